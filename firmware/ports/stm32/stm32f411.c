/* Clock of the STM32F411: 100 MHz from the internal 16 MHz oscillator. Registers: RM0383, chapters
 * 3.4 (wait states), 5.1.4 (voltage scaling), 6.3. */
#include "chip.h"
#include "stm32/stm32.h"

#define HSI_HZ 16000000u
#define USART2_HZ 50000000u

#define FLASH_ACCESS REGISTER(0x40023C00u)
#define FLASH_3_WAITS_CACHES_PREFETCH 0x703u
#define POWER_CONTROL REGISTER(0x40007000u)
#define POWER_SCALE_1 (3u << 14)

#define RCC 0x40023800u
#define RCC_CONTROL REGISTER(RCC + 0x00u)
#define RCC_PLL REGISTER(RCC + 0x04u)
#define RCC_CONFIGURATION REGISTER(RCC + 0x08u)
#define RCC_AHB1 REGISTER(RCC + 0x30u)
#define RCC_APB1 REGISTER(RCC + 0x40u)
#define PLL_ON (1u << 24)
#define PLL_READY (1u << 25)
/* 16 MHz / 8 x 100 / 2; the 48 MHz domain (/ 5 = 40 MHz) is not used. */
#define PLL_FACTORS (8u | 100u << 6 | 0u << 16 | 5u << 24)
#define APB1_HALF (4u << 10)
#define SWITCH_PLL 2u
#define SWITCHED_PLL (2u << 2)
#define GPIOA_ON (1u << 0)
#define USART2_ON (1u << 17)
#define POWER_ON (1u << 28)

uint32_t stm32_clock_start(void) {
  RCC_AHB1 |= GPIOA_ON;
  RCC_APB1 |= USART2_ON | POWER_ON;
  POWER_CONTROL |= POWER_SCALE_1;
  FLASH_ACCESS = FLASH_3_WAITS_CACHES_PREFETCH;
  RCC_PLL = PLL_FACTORS;
  RCC_CONTROL |= PLL_ON;
  if (!stm32_wait(&RCC_CONTROL, PLL_READY)) {
    return HSI_HZ;
  }
  RCC_CONFIGURATION |= APB1_HALF;
  RCC_CONFIGURATION |= SWITCH_PLL;
  return stm32_wait(&RCC_CONFIGURATION, SWITCHED_PLL) ? USART2_HZ : HSI_HZ / 2u;
}

/* Clock, supply and caches of the STM32H743: 480 MHz from the internal 64 MHz oscillator, supplied
 * by its LDO as on Nucleo boards; needs revision V (RM0433: VOS0). Registers: RM0433,
 * chapters 4.3.8 (wait states), 6.6.2 and 6.8 (supply, voltage scaling), 8.7, 12.3 (SYSCFG_PWRCR);
 * caches: PM0253, section 4.8. */
#include "chip.h"
#include "stm32/stm32.h"

#define HSI_HZ 64000000u
#define USART3_HZ 120000000u

#define FLASH_ACCESS REGISTER(0x52002000u)
#define FLASH_4_WAITS_SLOW_WRITES 0x24u

#define POWER 0x58024800u
#define POWER_STATUS REGISTER(POWER + 0x04u)
#define POWER_SUPPLY REGISTER(POWER + 0x0Cu)
#define POWER_SCALE REGISTER(POWER + 0x18u)
#define SUPPLY_MASK 7u
#define SUPPLY_LDO 2u
#define ACTUAL_SCALE_READY (1u << 13)
#define SCALE_1 (3u << 14)
#define SCALE_READY (1u << 13)
#define OVERDRIVE REGISTER(0x5800042Cu) /* SYSCFG_PWRCR; makes scale 0 of scale 1 */
#define OVERDRIVE_ON 1u

#define RCC 0x58024400u
#define RCC_CONTROL REGISTER(RCC + 0x00u)
#define RCC_CONFIGURATION REGISTER(RCC + 0x10u)
#define RCC_DOMAIN_1 REGISTER(RCC + 0x18u)
#define RCC_DOMAIN_2 REGISTER(RCC + 0x1Cu)
#define RCC_DOMAIN_3 REGISTER(RCC + 0x20u)
#define RCC_PLL_SOURCE REGISTER(RCC + 0x28u)
#define RCC_PLL_RANGES REGISTER(RCC + 0x2Cu)
#define RCC_PLL1_FACTORS REGISTER(RCC + 0x30u)
#define RCC_AHB4 REGISTER(RCC + 0xE0u)
#define RCC_APB1_LOW REGISTER(RCC + 0xE8u)
#define RCC_APB4 REGISTER(RCC + 0xF4u)
#define PLL1_ON (1u << 24)
#define PLL1_READY (1u << 25)
/* 64 MHz / 4 x 60 / 2; Q and R, / 8, are not switched on. */
#define PLL1_DIVIDER_MASK (0x3Fu << 4)
#define PLL1_DIVIDER (4u << 4)
#define PLL1_FACTORS (59u | 1u << 9 | 7u << 16 | 7u << 24)
#define PLL1_RANGE_MASK 0xFu
#define PLL1_INPUT_8_TO_16_MHZ (3u << 2)
#define PLL1_P_ON (1u << 16)
#define AHB_HALF_APB3_HALF (8u | 4u << 4)
#define APB1_HALF_APB2_HALF (4u << 4 | 4u << 8)
#define APB4_HALF (4u << 4)
#define SWITCH_PLL1 3u
#define SWITCHED_PLL1 (3u << 3)
#define GPIOB_GPIOD_ON (1u << 1 | 1u << 3)
#define USART3_ON (1u << 18)
#define SYSCFG_ON (1u << 1)

#define CACHE_CONTROL REGISTER(0xE000ED14u) /* CCR */
#define CACHE_SIZE REGISTER(0xE000ED80u)    /* CCSIDR of the selected cache */
#define CACHE_SELECT REGISTER(0xE000ED84u)  /* CSSELR */
#define CODE_INVALIDATE REGISTER(0xE000EF50u)
#define DATA_INVALIDATE REGISTER(0xE000EF60u) /* by set and way */
#define CODE_CACHE_ON (1u << 17)
#define DATA_CACHE_ON (1u << 16)

static void barrier(void) {
  __asm__ volatile("dsb\n\tisb" ::: "memory");
}

/* Nothing here uses DMA, so that the data cache needs no care. */
static void caches_start(void) {
  CODE_INVALIDATE = 0;
  CACHE_SELECT = 0;
  barrier();
  const uint32_t sets = (CACHE_SIZE >> 13 & 0x7FFFu) + 1u;
  const uint32_t ways = (CACHE_SIZE >> 3 & 0x3FFu) + 1u;
  for (uint32_t set = 0; set < sets; set++) {
    for (uint32_t way = 0; way < ways; way++) {
      DATA_INVALIDATE = set << 5 | way << 30;
    }
  }
  barrier();
  CACHE_CONTROL |= CODE_CACHE_ON | DATA_CACHE_ON;
  barrier();
}

static int supply_start(void) {
  POWER_SUPPLY = (POWER_SUPPLY & ~SUPPLY_MASK) | SUPPLY_LDO;
  if (!stm32_wait(&POWER_STATUS, ACTUAL_SCALE_READY)) {
    return 0;
  }
  POWER_SCALE |= SCALE_1;
  if (!stm32_wait(&POWER_SCALE, SCALE_READY)) {
    return 0;
  }
  OVERDRIVE |= OVERDRIVE_ON;
  return stm32_wait(&POWER_SCALE, SCALE_READY);
}

static int pll_start(void) {
  RCC_PLL_SOURCE = (RCC_PLL_SOURCE & ~(PLL1_DIVIDER_MASK | 3u)) | PLL1_DIVIDER;
  RCC_PLL_RANGES = (RCC_PLL_RANGES & ~PLL1_RANGE_MASK) | PLL1_INPUT_8_TO_16_MHZ | PLL1_P_ON;
  RCC_PLL1_FACTORS = PLL1_FACTORS;
  RCC_CONTROL |= PLL1_ON;
  return stm32_wait(&RCC_CONTROL, PLL1_READY);
}

uint32_t stm32_clock_start(void) {
  RCC_AHB4 |= GPIOB_GPIOD_ON;
  RCC_APB1_LOW |= USART3_ON;
  RCC_APB4 |= SYSCFG_ON;
  caches_start();
  if (!supply_start() || !pll_start()) {
    return HSI_HZ;
  }
  FLASH_ACCESS = FLASH_4_WAITS_SLOW_WRITES;
  RCC_DOMAIN_1 = AHB_HALF_APB3_HALF;
  RCC_DOMAIN_2 = APB1_HALF_APB2_HALF;
  RCC_DOMAIN_3 = APB4_HALF;
  RCC_CONFIGURATION |= SWITCH_PLL1;
  return stm32_wait(&RCC_CONFIGURATION, SWITCHED_PLL1) ? USART3_HZ : HSI_HZ / 4u;
}

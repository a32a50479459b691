/* Registers: Armv7-M and Armv8-M Architecture Reference Manuals (DDI 0403, DDI 0553), "System
 * Control Space" and "DWT". */
#include "cortex_m/cortex_m.h"

#include "bare_metal/bare_metal.h"
#include "chip.h"
#include "chips/receive_ring.h"
#include "quads_port.h"

#define BLINK_TURNS 2000000u

#define CPACR REGISTER(0xE000ED88u)
#define CPACR_FPU_FULL_ACCESS (0xFu << 20)
#define VTOR REGISTER(0xE000ED08u)
#define NVIC_ENABLE(number) REGISTER(0xE000E100u + 4u * ((number) / 32u))
#define DEMCR REGISTER(0xE000EDFCu)
#define DEMCR_TRACE (1u << 24)
#define DWT_CONTROL REGISTER(0xE0001000u)
#define DWT_CYCLES REGISTER(0xE0001004u)
#define DWT_LOCK REGISTER(0xE0001FB0u) /* on the Cortex-M7 */
#define DWT_UNLOCK 0xC5ACCE55u

const quads_port_tick_t quads_port_tick = {CHIP_TICK_NUMERATOR, CHIP_TICK_DENOMINATOR,
                                           QUADS_TICK_NANOSECONDS};

/* --- start -------------------------------------------------------------------------------- */

/* The first LED blinks for good. */
static void fault(void) {
  quads_port_exit(BARE_METAL_EXIT_FAULT);
}

void quads_reset(void);

typedef union {
  uint32_t *stack;
  void (*handler)(void);
} vector_t;

/* Aligned as VTOR wants it for up to 240 interrupts. */
__attribute__((section(".vectors"), used,
               aligned(1024))) static const vector_t vectors[16 + CHIP_INTERRUPTS] = {
    [0].stack = quads_stack_end,
    [1].handler = quads_reset,
    [2].handler = fault,
    [3].handler = fault,
    [4].handler = fault,
    [5].handler = fault,
    [6].handler = fault,
    [7].handler = fault,
    [11].handler = fault,
    [14].handler = fault,
    [15].handler = fault,
    [16 + CHIP_UART_IRQ].handler = chip_uart_interrupt,
#ifdef CHIP_MICROPHONE_IRQ
    [16 + CHIP_MICROPHONE_IRQ].handler = chip_microphone_interrupt,
#endif
};

void quads_reset(void) {
  VTOR = (uint32_t)(uintptr_t)vectors;
#ifdef __ARM_FP
  CPACR |= CPACR_FPU_FULL_ACCESS;
  __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
  bare_metal_start();
}

void cortex_m_enable_interrupt(uint32_t number) {
  NVIC_ENABLE(number) = 1u << (number % 32u);
}

int quads_port_init(int argc, char **argv) {
  (void)argc;
  (void)argv;
  DEMCR |= DEMCR_TRACE;
#if defined(__ARM_ARCH_7EM__) && __ARM_FP >= 12
  DWT_LOCK = DWT_UNLOCK;
#endif
  DWT_CYCLES = 0;
  DWT_CONTROL |= 1u;
  chip_start();
  cortex_m_enable_interrupt(CHIP_UART_IRQ);
  return 0;
}

/* --- sleep and time ------------------------------------------------------------------------ */

/* With interrupts masked a pending one still ends WFI, so none is slept through. The cycle counter
 * stands still meanwhile. */
void quads_port_idle(void) {
  __asm__ volatile("cpsid i" ::: "memory");
  if (receive_ring_is_empty()) {
    __asm__ volatile("wfi" ::: "memory");
  }
  __asm__ volatile("cpsie i" ::: "memory");
}

uint32_t quads_port_ticks(void) {
  return DWT_CYCLES;
}

/* --- LEDs --------------------------------------------------------------------------------- */

void quads_port_show(const uint16_t *answers) {
  chip_toggle_led(answers[0]);
}

void quads_port_exit(int code) {
  (void)code;
  for (;;) {
    chip_toggle_led(0);
    for (volatile uint32_t i = 0; i < BLINK_TURNS; i++) {
    }
  }
}

/* Reset, vectors and faults of the Cortex-M boards. */
#include <stdint.h>

#include "bare_metal/bare_metal.h"
#include "cmsdk.h"
#include "quads_port.h"

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU_FULL_ACCESS (0xFu << 20)

static void fault(void) {
  quads_port_exit(BARE_METAL_EXIT_FAULT);
}

static void reset(void) {
#ifdef __ARM_FP
  CPACR |= CPACR_FPU_FULL_ACCESS; /* Helium, too */
  __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
  bare_metal_start();
}

typedef union {
  uint32_t *stack;
  void (*handler)(void);
} vector_t;

/* 16 system exceptions, then interrupts. */
__attribute__((section(".vectors"), used)) static const vector_t vectors[16 + 64] = {
    [0].stack = quads_stack_end, [1].handler = reset,
    [2].handler = fault,         [3].handler = fault,
    [4].handler = fault,         [5].handler = fault,
    [6].handler = fault,         [7].handler = fault,
    [11].handler = fault,        [14].handler = fault,
    [15].handler = fault,        [16 + QUADS_UART_RX_IRQ].handler = cmsdk_uart_received,
};

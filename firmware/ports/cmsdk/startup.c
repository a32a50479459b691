/* Reset, vectors and faults of the Cortex-M boards; the linker script is templates/cmsdk.ld.j2. */
#include <stddef.h>
#include <stdint.h>

#include "cmsdk.h"
#include "quads_port.h"

extern uint32_t cmsdk_data_start[], cmsdk_data_end[], cmsdk_data_load[];
extern uint32_t cmsdk_bss_start[], cmsdk_bss_end[];

int main(int argc, char **argv);

void cmsdk_reset(void);
static void fault(void);

#define EXIT_FAULT 70
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU_FULL_ACCESS (0xFu << 20)

typedef union {
  uint32_t *stack;
  void (*handler)(void);
} vector_t;

/* 16 system exceptions, then interrupts 0 (UART0 receive) and on. */
__attribute__((section(".vectors"), used)) static const vector_t vectors[16 + 64] = {
    [0].stack = cmsdk_stack_end, [1].handler = cmsdk_reset,
    [2].handler = fault,         [3].handler = fault,
    [4].handler = fault,         [5].handler = fault,
    [6].handler = fault,         [7].handler = fault,
    [11].handler = fault,        [14].handler = fault,
    [15].handler = fault,        [16 + QUADS_UART_RX_IRQ].handler = cmsdk_uart_received,
};

/* Written without function calls: it paints the stack it stands on. */
static inline __attribute__((always_inline)) void paint_stack(void) {
  uint32_t here;
  __asm__ volatile("mov %0, sp" : "=r"(here));
  for (volatile uint32_t *word = cmsdk_stack_start; (uint32_t)(uintptr_t)word < here; word++) {
    *word = CMSDK_STACK_PAINT;
  }
}

void cmsdk_reset(void) {
#ifdef __ARM_FP
  CPACR |= CPACR_FPU_FULL_ACCESS;
  __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
  paint_stack();
  const uint32_t *load = cmsdk_data_load;
  for (volatile uint32_t *word = cmsdk_data_start; word < cmsdk_data_end; word++) {
    *word = *load++;
  }
  for (volatile uint32_t *word = cmsdk_bss_start; word < cmsdk_bss_end; word++) {
    *word = 0;
  }
  quads_port_exit(main(0, NULL));
}

static void fault(void) {
  quads_port_exit(EXIT_FAULT);
}

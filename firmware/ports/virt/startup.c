/* Reset and faults of RISC-V cores. */
#include <stdint.h>

#include "bare_metal/bare_metal.h"
#include "quads_port.h"

#define GUARD_BYTES 4096u
#define PMP_LOCKED_NAPOT 0x98u /* no access, for machine mode too */
#define MSTATUS_FS_INITIAL 0x2000u

/* A trap may find no stack: it stands on a fresh one, and never returns. */
__attribute__((naked, aligned(4), used)) static void trap(void) {
  __asm__ volatile(
      "la sp, quads_stack_end\n\t"
      "li a0, %0\n\t"
      "j quads_port_exit"
      :
      : "i"(BARE_METAL_EXIT_FAULT));
}

/* Nothing may touch the bytes below the stack: an overflow traps. */
static inline void guard_stack(void) {
  const uint32_t guard = (uint32_t)(uintptr_t)quads_stack_start - GUARD_BYTES;
  const uint32_t napot = (guard >> 2) | (GUARD_BYTES / 8 - 1);
  __asm__ volatile("csrw pmpaddr0, %0\n\tcsrw pmpcfg0, %1" : : "r"(napot), "r"(PMP_LOCKED_NAPOT));
}

__attribute__((used)) static void start(void) {
  __asm__ volatile("csrw mtvec, %0" : : "r"(trap));
#ifdef __riscv_flen
  __asm__ volatile("csrs mstatus, %0" : : "r"(MSTATUS_FS_INITIAL));
#endif
  guard_stack();
  bare_metal_start();
}

void quads_reset(void);

__attribute__((naked, section(".vectors"), used)) void quads_reset(void) {
  __asm__ volatile(
      "la sp, quads_stack_end\n\t"
      "j start");
}

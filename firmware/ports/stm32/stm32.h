/* stm32.h - what the files of this port share. */
#ifndef QUADS_STM32_H
#define QUADS_STM32_H

#include <stdint.h>

#include "cortex_m/cortex_m.h"

/* Turns to wait for a clock or regulator; a microsecond takes at least four at 16 MHz. */
#define STM32_WAIT_TURNS 200000u

/* Bring the core to its clock and switch the clocks of GPIO ports and UART on. Returns the UART's
 * clock, Hz; when the PLL does not lock the core stays on the internal oscillator. */
uint32_t stm32_clock_start(void);

/* Wait until all bits of `mask` are set. Returns 1, or 0 when they are not in time. */
int stm32_wait(volatile uint32_t *word, uint32_t mask);

#endif

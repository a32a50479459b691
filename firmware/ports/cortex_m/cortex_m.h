/* cortex_m.h - what bare ports of Cortex-M chips share: start-up, vectors, cycle counter, the ring
 * behind the UART. A port of a chip family defines the functions below; `family/chip.h` of one chip
 * its addresses, interrupts and pins:
 *
 *     CHIP_INTERRUPTS            number of interrupt lines
 *     CHIP_UART_IRQ              number of the UART's
 *     CHIP_MICROPHONE_IRQ        of the microphone's, where there is one
 *     CHIP_TICK_NUMERATOR, CHIP_TICK_DENOMINATOR    one clock cycle, ns
 *     CHIP_LEDS                  list of LEDs, in the family's terms */
#ifndef QUADS_CORTEX_M_H
#define QUADS_CORTEX_M_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Clocks, pins and UART; the UART's interrupt is enabled afterwards. */
void chip_start(void);

/* The UART's interrupt: passes what came in to receive_ring_put. */
void chip_uart_interrupt(void);

void chip_microphone_interrupt(void);

/* Toggle LED number `answer`, modulo their number. */
void chip_toggle_led(uint16_t answer);

void cortex_m_enable_interrupt(uint32_t number);

#endif

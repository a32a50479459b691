/* nRF5340, application core, on the nRF5340 DK; secure addresses, as after reset. Addresses and
 * interrupts: nRF5340 Product Specification, section 7.3 (application core peripherals); pins:
 * nRF5340 DK user guide (first virtual COM port, LED1-LED4). */
#ifndef QUADS_CHIP_H
#define QUADS_CHIP_H

#define CHIP_INTERRUPTS 69
#define CHIP_UART_IRQ 8
#define CHIP_MICROPHONE_IRQ 38
/* 128 MHz */
#define CHIP_TICK_NUMERATOR 125
#define CHIP_TICK_DENOMINATOR 16

#define CHIP_CLOCK 0x50005000u
#define CHIP_CLOCK_NRF53
#define CHIP_UARTE 0x50008000u
#define CHIP_PDM 0x50026000u
#define CHIP_GPIO 0x50842504u       /* OUT of P0 */
#define CHIP_CODE_CACHE 0x50001500u /* CACHE ENABLE */
/* Pins of P0. */
#define CHIP_UART_TX 20u
#define CHIP_UART_RX 22u
#define CHIP_MICROPHONE_CLOCK 25u /* A4 */
#define CHIP_MICROPHONE_DATA 26u  /* A5 */
#define CHIP_LEDS 28u, 29u, 30u, 31u

#endif

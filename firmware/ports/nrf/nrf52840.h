/* nRF52840 on the nRF52840 DK. Addresses and interrupts: nRF52840 Product Specification, section
 * 4.2.4 (instantiation); pins: nRF52840 DK user guide (UART of the interface chip, LED1-LED4). */
#ifndef QUADS_CHIP_H
#define QUADS_CHIP_H

#define CHIP_INTERRUPTS 48
#define CHIP_UART_IRQ 2
#define CHIP_MICROPHONE_IRQ 29
/* 64 MHz */
#define CHIP_TICK_NUMERATOR 125
#define CHIP_TICK_DENOMINATOR 8

#define CHIP_CLOCK 0x40000000u
#define CHIP_UARTE 0x40002000u
#define CHIP_PDM 0x4001D000u
#define CHIP_GPIO 0x50000504u       /* OUT of P0 */
#define CHIP_CODE_CACHE 0x4001E540u /* NVMC ICACHECNF */
/* Pins of P0. */
#define CHIP_UART_TX 6u
#define CHIP_UART_RX 8u
#define CHIP_MICROPHONE_CLOCK 30u /* A4 */
#define CHIP_MICROPHONE_DATA 31u  /* A5 */
#define CHIP_LEDS 13u, 14u, 15u, 16u

#endif

/* STM32F411RE on a NUCLEO-F411RE. Addresses: RM0383, section 2.3; interrupts: table 37; pins:
 * DS10314, table 8, and UM1724 (virtual COM port, LD2). */
#ifndef QUADS_CHIP_H
#define QUADS_CHIP_H

#define CHIP_INTERRUPTS 86
#define CHIP_UART_IRQ 38
/* 100 MHz */
#define CHIP_TICK_NUMERATOR 10
#define CHIP_TICK_DENOMINATOR 1

#define CHIP_GPIOA 0x40020000u
#define CHIP_USART 0x40004400u /* USART2 */
/* Port, pin. */
#define CHIP_UART_TX CHIP_GPIOA, 2u
#define CHIP_UART_RX CHIP_GPIOA, 3u
#define CHIP_LEDS {CHIP_GPIOA, 5u}

#endif

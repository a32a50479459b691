/* STM32H743ZI on a NUCLEO-H743ZI or -ZI2. Addresses: RM0433, section 2.3; interrupts: table 145;
 * pins: DS12110, table 9, and UM1974 or UM2407 (virtual COM port, LD1, LD3). */
#ifndef QUADS_CHIP_H
#define QUADS_CHIP_H

#define CHIP_INTERRUPTS 150
#define CHIP_UART_IRQ 39
/* 480 MHz */
#define CHIP_TICK_NUMERATOR 25
#define CHIP_TICK_DENOMINATOR 12

#define CHIP_GPIOB 0x58020400u
#define CHIP_GPIOD 0x58020C00u
#define CHIP_USART 0x40004800u /* USART3 */
#define CHIP_USART_H7
/* Port, pin. */
#define CHIP_UART_TX CHIP_GPIOD, 8u
#define CHIP_UART_RX CHIP_GPIOD, 9u
#define CHIP_LEDS {CHIP_GPIOB, 0u}, {CHIP_GPIOB, 14u}

#endif

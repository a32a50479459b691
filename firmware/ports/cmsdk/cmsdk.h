/* cmsdk.h - what the files of this port share. Addresses come from the board file as macros:
 * QUADS_UART, QUADS_UART_RX_IRQ, QUADS_TIMER or QUADS_COUNTER and QUADS_COUNTER_CONTROL,
 * QUADS_CLOCK_HZ, QUADS_TICK_NUMERATOR, QUADS_TICK_DENOMINATOR. */
#ifndef CMSDK_H
#define CMSDK_H

#include <stdint.h>

#define CMSDK_STACK_PAINT 0xDEADBEEFu

extern uint32_t cmsdk_stack_start[], cmsdk_stack_end[];

/* Interrupt handler of UART0's receive line. */
void cmsdk_uart_received(void);

/* Arm semihosting: one call to the emulator or debugger. */
int32_t cmsdk_semihost(uint32_t operation, const void *arguments);

/* Open the clip file named on the emulator's command line, if there is one. */
void cmsdk_storage_init(void);

#endif

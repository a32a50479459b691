/* cmsdk.h - what the files of this port share. */
#ifndef CMSDK_H
#define CMSDK_H

/* Interrupt handler of UART0's receive line. */
void cmsdk_uart_received(void);

#endif

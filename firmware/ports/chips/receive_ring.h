/* receive_ring.h - the ring between a UART's interrupt and quads_port_read, which it defines. */
#ifndef QUADS_RECEIVE_RING_H
#define QUADS_RECEIVE_RING_H

#include <stdint.h>

/* Keep a byte; called from one interrupt only. One too many is dropped: the frame's CRC tells, and
 * the host sends it again. */
void receive_ring_put(uint8_t byte);

int receive_ring_is_empty(void);

#endif

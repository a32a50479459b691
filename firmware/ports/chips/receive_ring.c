#include "chips/receive_ring.h"

#include "quads_port.h"

#define RING_BYTES 2048u /* a power of two; the largest frame and then some */

static uint8_t ring[RING_BYTES];
static volatile uint32_t stored; /* bytes ever; written by receive_ring_put */
static volatile uint32_t taken;  /* bytes ever; written by quads_port_read */

void receive_ring_put(uint8_t byte) {
  if (stored - taken < RING_BYTES) {
    ring[stored % RING_BYTES] = byte;
    stored++;
  }
}

int receive_ring_is_empty(void) {
  return stored == taken;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  size_t n_bytes = 0;
  while (n_bytes < capacity && taken != stored) {
    bytes[n_bytes++] = ring[taken % RING_BYTES];
    taken++;
  }
  return n_bytes;
}

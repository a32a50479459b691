/* Chips have no store of test clips: the host sends them over the link. */
#include "quads_port.h"

uint32_t quads_port_storage_bytes(void) {
  return 0;
}

int quads_port_storage_read(uint32_t offset, uint8_t *bytes, size_t n_bytes) {
  (void)offset;
  (void)bytes;
  (void)n_bytes;
  return -1;
}

#include "clips.h"

#include "quads_link.h"
#include "quads_port.h"

#define VERSION 1u
#define HEADER_BYTES 12u
#define ENTRY_BYTES 8u

uint32_t clips_count(void) {
  static const uint8_t magic[4] = {'Q', 'C', 'L', 'P'};
  uint8_t header[HEADER_BYTES];
  const uint32_t storage_bytes = quads_port_storage_bytes();
  if (storage_bytes < HEADER_BYTES || quads_port_storage_read(0, header, sizeof header) != 0) {
    return 0;
  }
  for (uint32_t i = 0; i < sizeof magic; i++) {
    if (header[i] != magic[i]) {
      return 0;
    }
  }
  const uint32_t count = quads_read_u32(header + 8);
  if (quads_read_u32(header + 4) != VERSION ||
      count > (storage_bytes - HEADER_BYTES) / ENTRY_BYTES) {
    return 0;
  }
  return count;
}

int clips_find(uint32_t index, clip_t *clip) {
  uint8_t entry[ENTRY_BYTES];
  if (quads_port_storage_read(HEADER_BYTES + index * ENTRY_BYTES, entry, sizeof entry) != 0) {
    return -1;
  }
  const uint32_t storage_bytes = quads_port_storage_bytes();
  const uint32_t offset = quads_read_u32(entry);
  const uint32_t length_bytes = quads_read_u32(entry + 4);
  if (offset > storage_bytes || length_bytes > storage_bytes - offset || length_bytes % 2 != 0) {
    return -1;
  }
  clip->offset = offset;
  clip->length_bytes = length_bytes;
  return 0;
}

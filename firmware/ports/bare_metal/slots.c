/* Two model slots in memory that stands in for flash, where the board has some to spare: its
 * definitions say where they are (QUADS_MODEL_SLOTS_AT) and how large (QUADS_MODEL_SLOT_BYTES). */
#include "quads_port.h"

#ifdef QUADS_MODEL_SLOTS_AT

#include <string.h>

#define SLOTS 2u
#define ERASED 0xFF

static uint8_t *slot_start(uint32_t slot) {
  return (uint8_t *)QUADS_MODEL_SLOTS_AT + slot * QUADS_MODEL_SLOT_BYTES;
}

uint32_t quads_port_model_slots(void) {
  return SLOTS;
}

const void *quads_port_model_map(uint32_t slot, size_t *n_bytes) {
  *n_bytes = QUADS_MODEL_SLOT_BYTES;
  return slot_start(slot);
}

int quads_port_model_erase(uint32_t slot, size_t n_bytes) {
  memset(slot_start(slot), ERASED, n_bytes);
  return 0;
}

int quads_port_model_write(uint32_t slot, size_t offset, const uint8_t *bytes, size_t n_bytes) {
  memcpy(slot_start(slot) + offset, bytes, n_bytes);
  return 0;
}

#endif

#include "quads_image.h"

/* The slot that looks right, was not refused yet and has the greatest sequence number. */
static int newest(const quads_image_slot_t *slots, size_t n_slots) {
  int best = QUADS_IMAGE_NONE;
  for (size_t i = 0; i < n_slots; i++) {
    if (slots[i].status == QUADS_IMAGE_OK &&
        (best == QUADS_IMAGE_NONE || slots[i].sequence > slots[best].sequence)) {
      best = (int)i;
    }
  }
  return best;
}

int quads_image_choose(quads_image_slot_t *slots, size_t n_slots,
                       const quads_image_limits_t *limits, quads_image_model_t *out) {
  for (size_t i = 0; i < n_slots; i++) {
    quads_image_header_t header;
    slots[i].status = quads_image_peek(slots[i].bytes, slots[i].n_bytes, limits, &header);
    slots[i].found = header.found;
    slots[i].allowed = header.allowed;
    slots[i].sequence = header.sequence;
  }
  for (;;) {
    const int best = newest(slots, n_slots);
    if (best == QUADS_IMAGE_NONE) {
      return QUADS_IMAGE_NONE;
    }
    quads_image_slot_t *slot = &slots[best];
    slot->status = quads_image_open(slot->bytes, slot->n_bytes, limits, out);
    slot->found = out->found;
    slot->allowed = out->allowed;
    if (slot->status == QUADS_IMAGE_OK) {
      return best;
    }
  }
}

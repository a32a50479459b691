#include "identity.h"

#include "clips.h"
#include "quads_port.h"
#include "update.h"

#ifndef QUADS_BUILD_ID
#define QUADS_BUILD_ID {0}
#endif
#ifndef QUADS_BOARD_NAME
#define QUADS_BOARD_NAME "unnamed"
#endif

void identity_send(quads_sender_t *answer, uint16_t max_payload_bytes) {
  static const uint8_t build_id[QUADS_HELLO_BUILD_ID_BYTES] = QUADS_BUILD_ID;
  static const char board[QUADS_HELLO_BOARD_BYTES + 1] = QUADS_BOARD_NAME;
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u16(answer, QUADS_PROTOCOL_VERSION);
  quads_send_u16(answer, (uint16_t)running_model->format_version);
  quads_send_bytes(answer, running_model->hash, QUADS_HELLO_MODEL_HASH_BYTES);
  quads_send_bytes(answer, build_id, sizeof build_id);
  quads_send_bytes(answer, (const uint8_t *)board, QUADS_HELLO_BOARD_BYTES);
  quads_send_u16(answer, running_model->n_mels);
  quads_send_u16(answer, running_model->n_frames);
  quads_send_u16(answer, running_model->n_classes);
  quads_send_u16(answer, max_payload_bytes);
  quads_send_u32(answer, running_model->plan.arena_bytes);
  quads_send_u32(answer, quads_port_stack_bytes());
  quads_send_u32(answer, quads_port_tick.numerator);
  quads_send_u32(answer, quads_port_tick.denominator);
  quads_send_u8(answer, quads_port_tick.unit);
  quads_send_u8(answer, QUADS_STAGE_COUNT);
  quads_send_u32(answer, clips_count());
  quads_send_u32(answer, (uint32_t)running_model->reject_threshold);
  for (uint16_t i = 0; i < running_model->n_slots; i++) {
    quads_send_u16(answer, running_model->slots[i].n_labels);
  }
}

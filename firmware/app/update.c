#include "update.h"

#if QUADS_MODEL_UPDATE

#include <string.h>

#include "quads_port.h"

#define MAX_MODEL_SLOTS 2u
#define NO_SLOT 255u

typedef enum {
  NOTHING,
  RECEIVING,
  JUDGED, /* and maybe refused */
} phase_t;

/* The image that comes in. Its first bytes are written last, so that whatever ends the transfer
 * before leaves a slot that is plainly empty. */
typedef struct {
  phase_t phase;
  uint32_t slot;
  uint32_t length_bytes;
  uint32_t received_bytes;
  uint8_t sha256[32];
  uint8_t first[QUADS_PORT_MODEL_WRITE_BYTES];
  uint32_t first_bytes;
} incoming_t;

const quads_model_t *running_model;

static const update_settings_t *application;
static quads_image_model_t loaded;
static quads_image_slot_t slots[MAX_MODEL_SLOTS];
static uint32_t n_slots;
static int running; /* slot, or QUADS_IMAGE_NONE */
static incoming_t incoming;

/* --- which model ---------------------------------------------------------------------------- */

static const quads_model_t *without_slots(void) {
#if QUADS_MODEL_COMPILED_IN
  return &quads_model;
#else
  return NULL;
#endif
}

static void choose(void) {
  for (uint32_t i = 0; i < n_slots; i++) {
    slots[i].bytes = quads_port_model_map(i, &slots[i].n_bytes);
  }
  running = quads_image_choose(slots, n_slots, &application->limits, &loaded);
  running_model = running != QUADS_IMAGE_NONE ? &loaded.model : NULL;
  if (n_slots == 0) {
    running_model = without_slots();
  }
  application->changed();
}

void update_start(const update_settings_t *settings) {
  const uint32_t found = quads_port_model_slots();
  application = settings;
  n_slots = found < MAX_MODEL_SLOTS ? found : MAX_MODEL_SLOTS;
  choose();
}

/* The slot to write: the one that does not run, if there is a choice. */
static uint32_t spare_slot(void) {
  return running == 0 && n_slots > 1 ? 1 : 0;
}

/* --- requests ------------------------------------------------------------------------------- */

static void refuse(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  (void)request;
  const quads_image_status_t none = QUADS_IMAGE_ERROR_EMPTY;
  quads_send_failure(answer, QUADS_LINK_NO_MODEL, n_slots > 0 ? slots[0].status : none,
                     n_slots > 1 ? slots[1].status : none);
}

static void send_refused_image(quads_sender_t *answer, quads_image_status_t status, uint32_t found,
                               uint32_t allowed) {
  quads_send_failure(answer, (quads_link_status_t)(QUADS_LINK_IMAGE + (int)status), found, allowed);
}

static void send_slot(quads_sender_t *answer, uint32_t slot) {
  quads_image_header_t header;
  quads_image_status_t status =
      quads_image_peek(slots[slot].bytes, slots[slot].n_bytes, &application->limits, &header);
  if (status == QUADS_IMAGE_OK) { /* what a whole look found */
    status = slots[slot].status;
  }
  quads_send_u8(answer, (uint8_t)status);
  quads_send_u32(answer, header.found);
  quads_send_u32(answer, header.allowed);
  quads_send_u32(answer, (uint32_t)slots[slot].n_bytes);
  quads_send_u32(answer, header.length_bytes);
  quads_send_u32(answer, header.sequence);
  quads_send_bytes(answer, header.model_hash, sizeof header.model_hash);
}

void update_info(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  (void)request;
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u16(answer, application->max_payload_bytes);
  quads_send_u8(answer, running == QUADS_IMAGE_NONE ? NO_SLOT : (uint8_t)running);
  for (uint32_t i = 0; i < n_slots; i++) {
    send_slot(answer, i);
  }
}

/* Make room for an image. Returns 0, or -1 when the flash failed. */
static int clear_slot(uint32_t slot, const quads_image_header_t *header) {
  incoming.phase = NOTHING;
  slots[slot].status = QUADS_IMAGE_OK;
  if ((int)slot == running) { /* the only one */
    running = QUADS_IMAGE_NONE;
    running_model = NULL;
    slots[slot].status = QUADS_IMAGE_ERROR_EMPTY;
    application->changed();
  }
  if (quads_port_model_erase(slot, header->length_bytes) != 0) {
    return -1;
  }
  incoming.phase = RECEIVING;
  incoming.slot = slot;
  incoming.length_bytes = header->length_bytes;
  incoming.received_bytes = 0;
  incoming.first_bytes = 0;
  memcpy(incoming.sha256, header->sha256, sizeof incoming.sha256);
  return 0;
}

static int goes_on(uint32_t slot, const quads_image_header_t *header) {
  return incoming.phase == RECEIVING && incoming.slot == slot &&
         memcmp(incoming.sha256, header->sha256, sizeof incoming.sha256) == 0;
}

void update_begin(void *context, const quads_request_t *request, quads_sender_t *answer) {
  _Alignas(QUADS_IMAGE_ALIGNMENT) uint8_t bytes[QUADS_IMAGE_HEADER_BYTES];
  quads_image_header_t header;
  const uint32_t slot = spare_slot();
  (void)context;
  if (n_slots == 0) {
    quads_send_failure(answer, QUADS_LINK_NO_SLOT, 0, 0);
    return;
  }
  if (request->payload_bytes != sizeof bytes) {
    quads_send_failure(answer, QUADS_LINK_BAD_LENGTH, (uint32_t)request->payload_bytes,
                       sizeof bytes);
    return;
  }
  memcpy(bytes, request->payload, sizeof bytes);
  if (quads_image_peek(bytes, slots[slot].n_bytes, &application->limits, &header) !=
      QUADS_IMAGE_OK) {
    send_refused_image(answer, header.status, header.found, header.allowed);
    return;
  }
  if (running != QUADS_IMAGE_NONE && header.sequence <= slots[running].sequence) {
    quads_send_failure(answer, QUADS_LINK_BAD_VALUE, header.sequence, slots[running].sequence + 1);
    return;
  }
  if (!goes_on(slot, &header) && clear_slot(slot, &header) != 0) {
    quads_send_failure(answer, QUADS_LINK_FLASH, slot, 0);
    return;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u8(answer, (uint8_t)slot);
  quads_send_u32(answer, incoming.received_bytes);
}

/* Returns 0, or -1 when the failure is sent. */
static int write_flash(uint32_t offset, const uint8_t *bytes, uint32_t n_bytes,
                       quads_sender_t *answer) {
  const int error = quads_port_model_write(incoming.slot, offset, bytes, n_bytes);
  if (error != 0) {
    incoming.phase = NOTHING;
    quads_send_failure(answer, QUADS_LINK_FLASH, incoming.slot, offset);
  }
  return error;
}

/* Take the next bytes. Returns whether they fit; otherwise the failure is sent. */
static int take(uint32_t offset, const uint8_t *data, uint32_t n_bytes, quads_sender_t *answer) {
  const uint32_t left = incoming.length_bytes - incoming.received_bytes;
  const uint32_t whole = n_bytes - n_bytes % QUADS_PORT_MODEL_WRITE_BYTES;
  if (offset != incoming.received_bytes) {
    quads_send_failure(answer, QUADS_LINK_BAD_OFFSET, offset, incoming.received_bytes);
    return 0;
  }
  if (n_bytes > left || (n_bytes < left && n_bytes != whole)) {
    quads_send_failure(answer, QUADS_LINK_BAD_LENGTH, n_bytes, n_bytes > left ? left : whole);
    return 0;
  }
  const uint32_t held = offset > 0                        ? 0
                        : n_bytes < sizeof incoming.first ? n_bytes
                                                          : sizeof incoming.first;
  if (held > 0) {
    memcpy(incoming.first, data, held);
    incoming.first_bytes = held;
  }
  if (n_bytes > held && write_flash(offset + held, data + held, n_bytes - held, answer) != 0) {
    return 0;
  }
  incoming.received_bytes += n_bytes;
  return 1;
}

void update_data(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint32_t offset = quads_read_u32(request->payload + QUADS_MODEL_DATA_OFFSET_BYTES_AT);
  const uint8_t *data = request->payload + QUADS_MODEL_DATA_DATA_AT;
  const uint32_t n_bytes = (uint32_t)(request->payload_bytes - QUADS_MODEL_DATA_DATA_AT);
  (void)context;
  if (incoming.phase != RECEIVING) {
    quads_send_failure(answer, QUADS_LINK_NO_UPDATE, 0, 0);
    return;
  }
  const int known =
      offset <= incoming.received_bytes && n_bytes <= incoming.received_bytes - offset;
  if (known || take(offset, data, n_bytes, answer)) {
    quads_send_u8(answer, QUADS_LINK_OK);
    quads_send_u32(answer, incoming.received_bytes);
  }
}

void update_end(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  (void)request;
  if (incoming.phase == NOTHING ||
      (incoming.phase == RECEIVING && incoming.received_bytes < incoming.length_bytes)) {
    quads_send_failure(answer, QUADS_LINK_NO_UPDATE, incoming.received_bytes,
                       incoming.length_bytes);
    return;
  }
  if (incoming.phase == RECEIVING) {
    if (write_flash(0, incoming.first, incoming.first_bytes, answer) != 0) {
      return;
    }
    incoming.phase = JUDGED;
    choose();
  }
  if ((int)incoming.slot != running) {
    const quads_image_slot_t *slot = &slots[incoming.slot];
    send_refused_image(answer, slot->status, slot->found, slot->allowed);
    return;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u8(answer, (uint8_t)running);
}

const quads_handler_t update_only[QUADS_MESSAGES] = {
    UPDATE_HANDLERS,
    [QUADS_MESSAGE_HELLO] = refuse,
    [QUADS_MESSAGE_BEGIN] = refuse,
    [QUADS_MESSAGE_CHUNK] = refuse,
    [QUADS_MESSAGE_CLIP] = refuse,
    [QUADS_MESSAGE_FEATURES] = refuse,
    [QUADS_MESSAGE_INFER] = refuse,
    [QUADS_MESSAGE_STATS] = refuse,
    [QUADS_MESSAGE_ECHO] = refuse,
    [QUADS_MESSAGE_LAYERS] = refuse,
    [QUADS_MESSAGE_LISTEN] = refuse,
    [QUADS_MESSAGE_HEARD] = refuse,
};

#endif

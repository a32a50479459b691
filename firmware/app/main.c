/* The firmware application: answers the host's requests until the end of days. */
#include <string.h>

#include "clips.h"
#include "identity.h"
#include "lend.h"
#include "quads.h"
#include "quads_link.h"
#include "quads_port.h"
#include "result.h"
#include "ticks.h"
#include "update.h"

#define MAX_PAYLOAD_BYTES 1024u
#define PIECE_SAMPLES 160u /* PCM is converted and pushed in pieces of this size */
#define PAINT 0xA5u        /* marks arena bytes that were never written */

enum { KIND_PCM, KIND_FEATURES };
typedef enum { IDLE, RECEIVING, CLOSED } phase_t;

/* The window being filled, by the host or from a stored clip. */
typedef struct {
  phase_t phase;
  uint8_t kind;
  uint8_t low; /* first byte of a sample whose second one is yet to come */
  uint8_t inferred;
  uint32_t length_bytes; /* announced */
  uint32_t received_bytes;
} window_t;

/* What depends on the model has its own place in the linker script, and the code takes sizes from
 * running_model: so code and other data are the same for every model, and predicted exactly. */
static QUADS_LARGE _Alignas(8) uint8_t arena[QUADS_ARENA_BYTES];

static quads_t runtime;
static window_t window;
static uint8_t rejected;
static uint8_t frame[MAX_PAYLOAD_BYTES + QUADS_OVERHEAD_BYTES];
static quads_link_t device_link;

static uint16_t place; /* being measured: a row of ticks_spent */
static uint8_t stage;  /* being measured */
static uint32_t stage_start;

/* Rows of ticks_spent. */
static uint16_t places(void) {
  return (uint16_t)(running_model->n_layers + 2u);
}

static void clear_ticks(void) {
  memset(ticks_spent, 0, places() * sizeof ticks_spent[0]);
}

static void enter_stage(void *context, uint8_t entered) {
  (void)context;
  const uint32_t now = quads_port_ticks();
  if (stage < QUADS_STAGE_COUNT) {
    ticks_spent[place][stage] += (uint32_t)(now - stage_start);
  }
  stage = entered;
  stage_start = quads_port_ticks();
}

static void enter_layer(void *context, uint16_t layer) {
  enter_stage(context, QUADS_STAGE_END);
  place = (uint16_t)(1u + layer);
}

static uint32_t features_bytes(void) {
  return (uint32_t)running_model->n_frames * running_model->n_mels;
}

/* --- windows ------------------------------------------------------------------------------ */

static void window_begin(uint8_t kind, uint32_t length_bytes) {
  memset(&window, 0, sizeof window);
  clear_ticks();
  place = 0;
  window.phase = RECEIVING;
  window.kind = kind;
  window.length_bytes = length_bytes;
  quads_restart(&runtime);
}

static void push(const int16_t *pcm, size_t n_samples) {
  enter_stage(NULL, QUADS_STAGE_FRONTEND);
  quads_push(&runtime, pcm, n_samples);
  enter_stage(NULL, QUADS_STAGE_END);
}

/* Samples may be split between two chunks anywhere. */
static void window_take_pcm(const uint8_t *bytes, size_t n_bytes) {
  int16_t pcm[PIECE_SAMPLES];
  size_t n_samples = 0;
  for (size_t i = 0; i < n_bytes; i++) {
    if (window.received_bytes++ % 2 == 0) {
      window.low = bytes[i];
      continue;
    }
    pcm[n_samples++] = (int16_t)(window.low | ((uint32_t)bytes[i] << 8));
    if (n_samples == PIECE_SAMPLES) {
      push(pcm, n_samples);
      n_samples = 0;
    }
  }
  push(pcm, n_samples);
}

/* Features are collected where the runtime keeps them: rows 1 .. n_frames of its mel tensor. */
static int8_t *received_features(void) {
  return (int8_t *)arena + running_model->plan.mel + running_model->n_mels;
}

static void window_take_features(const uint8_t *bytes, size_t n_bytes) {
  memcpy(received_features() + window.received_bytes, bytes, n_bytes);
  window.received_bytes += (uint32_t)n_bytes;
}

/* Close the window once everything announced is there. Returns 0 or a runtime error. */
static int window_close_if_complete(void) {
  if (window.received_bytes != window.length_bytes) {
    return QUADS_OK;
  }
  enter_stage(NULL, QUADS_STAGE_FRONTEND);
  const int error = window.kind == KIND_PCM ? quads_close(&runtime)
                                            : quads_set_features(&runtime, received_features());
  enter_stage(NULL, QUADS_STAGE_END);
  if (error == QUADS_OK) {
    window.phase = CLOSED;
  }
  return error;
}

static void send_internal(quads_sender_t *answer, int error) {
  window.phase = IDLE;
  quads_send_failure(answer, QUADS_LINK_INTERNAL, (uint32_t)-error, 0);
}

static void send_not_ready(quads_sender_t *answer) {
  quads_send_failure(answer, QUADS_LINK_NOT_READY, window.received_bytes, window.length_bytes);
}

/* --- requests ----------------------------------------------------------------------------- */

static void hello(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  (void)request;
  identity_send(answer, MAX_PAYLOAD_BYTES);
}

static void begin(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint8_t kind = request->payload[QUADS_BEGIN_KIND_AT];
  const uint32_t length = quads_read_u32(request->payload + QUADS_BEGIN_LENGTH_BYTES_AT);
  (void)context;
  if (kind > KIND_FEATURES) {
    quads_send_failure(answer, QUADS_LINK_BAD_VALUE, kind, KIND_FEATURES);
    return;
  }
  const uint32_t expected = kind == KIND_FEATURES ? features_bytes() : length - length % 2;
  if (length != expected) {
    quads_send_failure(answer, QUADS_LINK_BAD_LENGTH, length, expected);
    return;
  }
  window_begin(kind, length);
  const int error = window_close_if_complete();
  if (error != QUADS_OK) {
    send_internal(answer, error);
    return;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
}

static void chunk(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint32_t offset = quads_read_u32(request->payload + QUADS_CHUNK_OFFSET_BYTES_AT);
  const uint8_t *data = request->payload + QUADS_CHUNK_DATA_AT;
  const uint32_t n_bytes = (uint32_t)(request->payload_bytes - QUADS_CHUNK_DATA_AT);
  (void)context;
  if (window.phase == IDLE) {
    send_not_ready(answer);
    return;
  }
  const int known = offset <= window.received_bytes && n_bytes <= window.received_bytes - offset;
  if (!known && offset != window.received_bytes) {
    quads_send_failure(answer, QUADS_LINK_BAD_OFFSET, offset, window.received_bytes);
    return;
  }
  if (!known && n_bytes > window.length_bytes - offset) {
    quads_send_failure(answer, QUADS_LINK_BAD_LENGTH, n_bytes, window.length_bytes - offset);
    return;
  }
  if (!known) {
    if (window.kind == KIND_PCM) {
      window_take_pcm(data, n_bytes);
    } else {
      window_take_features(data, n_bytes);
    }
    const int error = window_close_if_complete();
    if (error != QUADS_OK) {
      send_internal(answer, error);
      return;
    }
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u32(answer, window.received_bytes);
}

/* Push a stored clip. Returns 0, or -1 when it could not be read. */
static int take_clip(const clip_t *stored) {
  uint8_t piece[2 * PIECE_SAMPLES];
  while (window.received_bytes < stored->length_bytes) {
    const uint32_t left = stored->length_bytes - window.received_bytes;
    const uint32_t n_bytes = left < sizeof piece ? left : (uint32_t)sizeof piece;
    if (quads_port_storage_read(stored->offset + window.received_bytes, piece, n_bytes) != 0) {
      return -1;
    }
    window_take_pcm(piece, n_bytes);
  }
  return 0;
}

static void clip(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint32_t index = quads_read_u32(request->payload + QUADS_CLIP_INDEX_AT);
  const uint32_t count = clips_count();
  clip_t stored;
  (void)context;
  if (index >= count) {
    quads_send_failure(answer, QUADS_LINK_NO_CLIP, index, count);
    return;
  }
  if (!request->repeated || window.phase != CLOSED) {
    window.phase = IDLE;
    if (clips_find(index, &stored) != 0) {
      quads_send_failure(answer, QUADS_LINK_STORAGE, index, count);
      return;
    }
    window_begin(KIND_PCM, stored.length_bytes);
    if (take_clip(&stored) != 0) {
      window.phase = IDLE;
      quads_send_failure(answer, QUADS_LINK_STORAGE, index, count);
      return;
    }
    const int error = window_close_if_complete();
    if (error != QUADS_OK) {
      send_internal(answer, error);
      return;
    }
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u32(answer, window.length_bytes);
}

static void features(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint32_t offset = quads_read_u32(request->payload + QUADS_FEATURES_OFFSET_BYTES_AT);
  const uint32_t length = quads_read_u16(request->payload + QUADS_FEATURES_LENGTH_BYTES_AT);
  const uint32_t available = features_bytes();
  const int8_t *mel = window.phase == CLOSED ? quads_features(&runtime) : NULL;
  (void)context;
  if (mel == NULL) {
    send_not_ready(answer);
    return;
  }
  if (offset > available || length > available - offset) {
    quads_send_failure(answer, QUADS_LINK_BAD_OFFSET, offset, available);
    return;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_bytes(answer, (const uint8_t *)mel + offset, length);
}

static void infer(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  if (window.phase != CLOSED) {
    send_not_ready(answer);
    return;
  }
  if (!request->repeated || !window.inferred) {
    const quads_observer_t observer = {.enter = enter_stage, .layer = enter_layer};
    const uint64_t frontend_ticks = ticks_spent[0][QUADS_STAGE_FRONTEND];
    clear_ticks();
    ticks_spent[0][QUADS_STAGE_FRONTEND] = frontend_ticks;
    place = 0;
    const int error = quads_infer(&runtime, result_logits, &observer);
    if (error != QUADS_OK) {
      send_internal(answer, error);
      return;
    }
    rejected = quads_decide(running_model, result_logits, result_answers) != QUADS_ACCEPTED;
    window.inferred = 1;
#ifdef QUADS_PORT_SHOWS
    if (!rejected) {
      quads_port_show(result_answers);
    }
#endif
  }
  const uint16_t n_classes = running_model->n_classes;
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u8(answer, rejected);
  quads_send_u16(answer, running_model->n_slots);
  quads_send_u16(answer, n_classes);
  for (uint16_t i = 0; i < running_model->n_slots; i++) {
    quads_send_u16(answer, result_answers[i]);
  }
  for (uint16_t i = 0; i < n_classes; i++) {
    quads_send_u32(answer, (uint32_t)result_logits[i]);
  }
  for (uint8_t i = 0; i < QUADS_STAGE_COUNT; i++) {
    uint64_t ticks = 0;
    for (uint16_t row = 0; row < places(); row++) {
      ticks += ticks_spent[row][i];
    }
    quads_send_u64(answer, ticks);
  }
}

static void layers(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  (void)request;
  if (!window.inferred) {
    send_not_ready(answer);
    return;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u16(answer, places());
  for (uint16_t row = 0; row < places(); row++) {
    for (uint8_t i = 0; i < QUADS_STAGE_COUNT; i++) {
      quads_send_u64(answer, ticks_spent[row][i]);
    }
  }
}

static void stats(void *context, const quads_request_t *request, quads_sender_t *answer) {
  uint32_t used = running_model->plan.arena_bytes;
  (void)context;
  (void)request;
  while (used > 0 && arena[used - 1] == PAINT) {
    used--;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u32(answer, used);
  quads_send_u32(answer, quads_port_stack_used());
  quads_send_u32(answer, device_link.frames_received);
  quads_send_u32(answer, device_link.frames_damaged);
}

static void echo(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_bytes(answer, request->payload, request->payload_bytes);
}

static const quads_handler_t handlers[QUADS_MESSAGES] = {
    [QUADS_MESSAGE_HELLO] = hello,       [QUADS_MESSAGE_BEGIN] = begin,
    [QUADS_MESSAGE_CHUNK] = chunk,       [QUADS_MESSAGE_CLIP] = clip,
    [QUADS_MESSAGE_FEATURES] = features, [QUADS_MESSAGE_INFER] = infer,
    [QUADS_MESSAGE_STATS] = stats,       [QUADS_MESSAGE_ECHO] = echo,
    [QUADS_MESSAGE_LAYERS] = layers,     UPDATE_HANDLERS,
};

/* Begin anew with the model that runs from now on, if there is one. */
static void model_changed(void) {
  window.phase = IDLE;
  window.inferred = 0;
  stage = QUADS_STAGE_END;
  device_link.handlers = running_model != NULL ? handlers : UPDATE_ONLY;
  if (running_model != NULL) {
    memset(arena, PAINT, running_model->plan.arena_bytes);
    if (quads_init(&runtime, running_model, arena, running_model->plan.arena_bytes) != QUADS_OK) {
      quads_port_exit(1);
    }
  }
}

static const update_settings_t update_settings = {
    .limits = {.arena_bytes = sizeof arena, .n_frames = UINT16_MAX},
    .max_payload_bytes = MAX_PAYLOAD_BYTES,
    .changed = model_changed,
};

const quads_model_t *app_lend(void **memory, size_t *n_bytes) {
  window.phase = IDLE;
  window.inferred = 0;
  *memory = arena;
  *n_bytes = sizeof arena;
  return running_model;
}

static void write_link(void *context, const uint8_t *bytes, size_t n_bytes) {
  (void)context;
  quads_port_write(bytes, n_bytes);
}

int main(int argc, char **argv) {
  uint8_t bytes[64];
  const int unusable = quads_port_init(argc, argv);
  if (unusable != 0) {
    quads_port_exit(unusable);
  }
  quads_link_init(&device_link, frame, sizeof frame, handlers, NULL, write_link);
  update_start(&update_settings);
  for (;;) {
    const size_t n_bytes = quads_port_read(bytes, sizeof bytes);
    if (n_bytes == 0) {
      quads_port_idle();
    } else {
      quads_link_feed(&device_link, bytes, n_bytes);
    }
  }
}

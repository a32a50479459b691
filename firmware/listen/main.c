/* The listening firmware: hears continuously and keeps its events until the host asks for them. */
#include <string.h>

#include "../app/clips.h"
#include "../app/identity.h"
#include "../app/result.h"
#include "../app/update.h"
#include "listen_settings.h"
#include "quads_link.h"
#include "quads_listen.h"
#include "quads_port.h"

#if QUADS_MODEL_UPDATE
#define MAX_PAYLOAD_BYTES 1024u
#else
#define MAX_PAYLOAD_BYTES 64u
#endif
#define CHUNK_SAMPLES 512u
#define EVENTS 16u /* kept */
#define MICROPHONE UINT32_MAX
#define PAINT 0xA5u /* marks arena bytes that were never written */

typedef struct {
  quads_listen_event_t heard;
  uint32_t answered_sample;
  uint32_t features_crc;
  uint16_t answers[QUADS_MAX_SLOTS];
  int32_t logits[QUADS_MAX_CLASSES];
} event_t;

static const quads_gate_settings_t settings = QUADS_LISTEN_SETTINGS;
static _Alignas(8) uint8_t arena[QUADS_ARENA_BYTES];
static int8_t
    ring[QUADS_LISTEN_RING_BYTES(QUADS_LISTEN_RING_FRAMES, QUADS_MODEL_FRAMES, QUADS_MODEL_MELS)];
static quads_listen_t listener;
static int16_t pcm[CHUNK_SAMPLES];
static uint8_t running;
static uint8_t start_status; /* of the last `listen`, for its repetitions */
static event_t events[EVENTS];
static uint32_t n_events;
static uint32_t events_forgotten; /* below this number */
static uint32_t events_dropped;
static uint32_t frame_hashed, frames_crc;
static uint32_t samples_lost;
static uint32_t slice_start, slice_ticks;

static uint8_t frame[MAX_PAYLOAD_BYTES + QUADS_OVERHEAD_BYTES];
static quads_link_t device_link;

/* --- listening ---------------------------------------------------------------------------- */

static void hash_frames(void) {
  for (; frame_hashed != listener.frame; frame_hashed++) {
    frames_crc =
        quads_crc32(frames_crc, (const uint8_t *)quads_listen_frame(&listener, frame_hashed),
                    running_model->n_mels);
  }
}

/* Drain the microphone. Called between two slices of any longer work. */
static void hear(void *context) {
  uint32_t lost = 0;
  size_t n_samples;
  (void)context;
  const uint32_t ticks = quads_port_ticks() - slice_start;
  slice_ticks = ticks > slice_ticks ? ticks : slice_ticks;
  slice_start += ticks;
  while ((n_samples = quads_port_audio_read(pcm, CHUNK_SAMPLES, &lost)) > 0) {
    if (lost > 0) {
      quads_listen_gap(&listener, lost);
      samples_lost += lost;
      frame_hashed = listener.frame;
    }
    quads_listen_push(&listener, pcm, n_samples);
    hash_frames();
  }
}

static void keep_event(const quads_listen_event_t *heard) {
  quads_port_audio_t audio;
  if (n_events - events_forgotten == EVENTS) {
    events_forgotten++;
    events_dropped++;
  }
  event_t *event = &events[n_events++ % EVENTS];
  quads_port_audio_state(&audio);
  event->heard = *heard;
  event->answered_sample = audio.made;
  memcpy(event->answers, result_answers, sizeof event->answers);
  memcpy(event->logits, result_logits, sizeof event->logits);
  event->features_crc = 0;
  if (heard->kind != QUADS_HEARD_LOST) {
    event->features_crc = quads_crc32(0, (const uint8_t *)quads_features(&listener.quads),
                                      (size_t)running_model->n_frames * running_model->n_mels);
  }
}

static void listen_on(void) {
  quads_listen_event_t event;
  hear(NULL);
  while (quads_listen_run(&listener, hear, NULL, &event)) {
    keep_event(&event);
  }
  if (!quads_port_audio_wait(QUADS_HOP_SAMPLES)) {
    running = 0;
  }
  slice_start = quads_port_ticks();
}

/* --- requests ----------------------------------------------------------------------------- */

static void hello(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  (void)request;
  identity_send(answer, MAX_PAYLOAD_BYTES);
}

/* Begin anew. Returns 0 or a link status. */
static uint8_t start(uint32_t index, quads_port_recording_t *recording) {
  clip_t clip;
  if (index != MICROPHONE) {
    if (index >= clips_count()) {
      return QUADS_LINK_NO_CLIP;
    }
    if (clips_find(index, &clip) != 0) {
      return QUADS_LINK_STORAGE;
    }
    recording->offset = clip.offset;
    recording->n_samples = clip.length_bytes / 2;
  }
  if (quads_port_audio_start(index == MICROPHONE ? NULL : recording) != 0) {
    return QUADS_LINK_BAD_VALUE;
  }
  if (quads_listen_init(&listener, running_model, arena, sizeof arena, ring,
                        QUADS_LISTEN_RING_FRAMES, result_logits, result_answers,
                        &settings) != QUADS_OK) {
    return QUADS_LINK_INTERNAL;
  }
  n_events = events_forgotten = events_dropped = 0;
  frame_hashed = frames_crc = samples_lost = slice_ticks = 0;
  slice_start = quads_port_ticks();
  running = 1;
  return QUADS_LINK_OK;
}

static void listen(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint32_t index = quads_read_u32(request->payload + QUADS_LISTEN_CLIP_AT);
  quads_port_recording_t recording = {
      .ticks_per_s = quads_read_u32(request->payload + QUADS_LISTEN_TICKS_PER_S_AT),
      .rate_hz = quads_read_u32(request->payload + QUADS_LISTEN_RATE_HZ_AT),
      .chunk_seed = quads_read_u32(request->payload + QUADS_LISTEN_CHUNK_SEED_AT),
  };
  (void)context;
  if (!request->repeated) {
    start_status = start(index, &recording);
  }
  if (start_status != QUADS_LINK_OK) {
    quads_send_failure(answer, start_status, index, clips_count());
    return;
  }
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u8(answer, settings.gate_lsb);
  quads_send_u16(answer, settings.lead_frames);
  quads_send_u16(answer, settings.tail_frames);
  quads_send_u16(answer, settings.hangover_frames);
  quads_send_u32(answer, QUADS_LISTEN_RING_FRAMES);
  quads_send_u32(answer, QUADS_PORT_AUDIO_SAMPLES);
}

static void send_event(const event_t *event, quads_sender_t *answer) {
  quads_send_u8(answer, (uint8_t)event->heard.kind);
  quads_send_u32(answer, event->heard.start);
  quads_send_u32(answer, event->heard.length);
  quads_send_u32(answer, event->heard.end);
  quads_send_u32(answer, event->heard.confirmed);
  quads_send_u32(answer, event->answered_sample);
  quads_send_u32(answer, event->features_crc);
  for (uint16_t i = 0; i < running_model->n_slots; i++) {
    quads_send_u16(answer, event->answers[i]);
  }
  for (uint16_t i = 0; i < running_model->n_classes; i++) {
    quads_send_u32(answer, (uint32_t)event->logits[i]);
  }
}

static void heard(void *context, const quads_request_t *request, quads_sender_t *answer) {
  const uint32_t wanted = quads_read_u32(request->payload + QUADS_HEARD_EVENT_AT);
  const quads_listen_counters_t *counters = &listener.counters;
  quads_port_audio_t audio;
  (void)context;
  if (wanted > n_events) {
    quads_send_failure(answer, QUADS_LINK_BAD_VALUE, wanted, n_events);
    return;
  }
  events_forgotten = wanted > events_forgotten ? wanted : events_forgotten;
  quads_port_audio_state(&audio);
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u8(answer, running);
  quads_send_u32(answer, counters->frames);
  quads_send_u32(answer, frames_crc);
  quads_send_u32(answer, audio.made);
  quads_send_u32(answer, audio.due);
  quads_send_u32(answer, samples_lost);
  quads_send_u32(answer, audio.stalls);
  quads_send_u32(answer, counters->utterances);
  quads_send_u32(answer, counters->utterances_lost);
  quads_send_u32(answer, counters->inferences);
  quads_send_u32(answer, counters->inferences_stopped);
  quads_send_u32(answer, counters->tokens_early);
  quads_send_u32(answer, counters->tokens_late);
  quads_send_u32(answer, n_events);
  quads_send_u32(answer, events_dropped);
  quads_send_u64(answer, audio.working);
  quads_send_u32(answer, slice_ticks);
  if (wanted >= events_forgotten && wanted < n_events) {
    send_event(&events[wanted % EVENTS], answer);
  }
}

static void stats(void *context, const quads_request_t *request, quads_sender_t *answer) {
  uint32_t used = sizeof arena;
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

static const quads_handler_t handlers[QUADS_MESSAGES] = {
    [QUADS_MESSAGE_HELLO] = hello,
    [QUADS_MESSAGE_LISTEN] = listen,
    [QUADS_MESSAGE_HEARD] = heard,
    [QUADS_MESSAGE_STATS] = stats,
    UPDATE_HANDLERS,
};

/* Another model: nothing is heard until the next `listen`, and what was heard is forgotten. */
static void model_changed(void) {
  running = 0;
  n_events = events_forgotten = events_dropped = 0;
  device_link.handlers = running_model != NULL ? handlers : UPDATE_ONLY;
}

static const update_settings_t update_settings = {
    .limits = {.arena_bytes = sizeof arena, .n_frames = QUADS_MODEL_FRAMES},
    .max_payload_bytes = MAX_PAYLOAD_BYTES,
    .changed = model_changed,
};

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
  memset(arena, PAINT, sizeof arena);
  quads_link_init(&device_link, frame, sizeof frame, handlers, NULL, write_link);
  update_start(&update_settings);
  for (;;) {
    const size_t n_bytes = quads_port_read(bytes, sizeof bytes);
    if (n_bytes > 0) {
      quads_link_feed(&device_link, bytes, n_bytes);
    } else if (running) {
      listen_on();
    } else {
      quads_port_idle();
    }
  }
}

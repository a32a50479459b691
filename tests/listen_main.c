/* Listen to a recording and write down every event, for tests/test_listener.py.
 *
 *     run RECORDING SEED RING_FRAMES POLLED GAP_AT GAP_SAMPLES BUSY
 *
 * The samples come in chunks of random sizes drawn from SEED, or all at once for seed 0. POLLED:
 * this many chunks are heard whenever the encoder lets the listener hear. GAP_AT, GAP_SAMPLES: lose
 * so many samples at this one. BUSY: hear so many chunks before quads_listen_run is first called.
 * stdout: per event its seven numbers, features and logits; at the end of it the counters; stderr:
 * what went wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "listen_settings.h"
#include "model.h"
#include "quads_listen.h"

#define LARGEST_CHUNK 700

static quads_listen_t listen;
static int16_t *pcm;
static size_t n_samples, at, gap_at, gap_samples;
static uint32_t seed;
static int polled;

static uint32_t random_number(void) {
  seed = seed * 1664525u + 1013904223u;
  return seed >> 8;
}

static void hear(size_t n) {
  if (gap_samples > 0 && at <= gap_at && at + n > gap_at) {
    quads_listen_push(&listen, pcm + at, gap_at - at);
    quads_listen_gap(&listen, (uint32_t)gap_samples);
    at = gap_at + gap_samples;
    gap_samples = 0;
    return;
  }
  quads_listen_push(&listen, pcm + at, n);
  at += n;
}

static void hear_chunk(void) {
  size_t n = seed == 0 ? n_samples : random_number() % LARGEST_CHUNK;
  hear(n < n_samples - at ? n : n_samples - at);
}

static void poll(void *context) {
  (void)context;
  for (int i = 0; i < polled && at < n_samples; i++) {
    hear_chunk();
  }
}

static void *allocate(size_t n_bytes) {
  void *memory = malloc(n_bytes > 0 ? n_bytes : 1);
  if (memory == NULL) {
    fprintf(stderr, "malloc\n");
    exit(1);
  }
  memset(memory, 0x5A, n_bytes);
  return memory;
}

static void read_recording(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(1);
  }
  n_samples = (size_t)ftell(file) / sizeof pcm[0];
  pcm = allocate(n_samples * sizeof pcm[0]);
  rewind(file);
  if (fread(pcm, sizeof pcm[0], n_samples, file) != n_samples) {
    exit(1);
  }
  fclose(file);
}

int main(int argc, char **argv) {
  static const quads_gate_settings_t settings = QUADS_LISTEN_SETTINGS;
  static int32_t logits[QUADS_MODEL_CLASSES];
  static uint16_t answers[QUADS_MODEL_SLOTS];
  static int8_t features[QUADS_MODEL_MELS * QUADS_MODEL_FRAMES];
  quads_listen_event_t event;
  if (argc != 8) {
    return 2;
  }
  read_recording(argv[1]);
  seed = (uint32_t)atoi(argv[2]);
  const uint32_t ring_frames = (uint32_t)atoi(argv[3]);
  polled = atoi(argv[4]);
  gap_at = (size_t)atoi(argv[5]);
  gap_samples = (size_t)atoi(argv[6]);
  void *arena = allocate(QUADS_MODEL_ARENA_BYTES);
  int8_t *ring =
      allocate(QUADS_LISTEN_RING_BYTES(ring_frames, QUADS_MODEL_FRAMES, QUADS_MODEL_MELS));
  if (quads_listen_init(&listen, &quads_model, arena, QUADS_MODEL_ARENA_BYTES, ring, ring_frames,
                        logits, answers, &settings) != QUADS_OK) {
    fprintf(stderr, "quads_listen_init\n");
    return 1;
  }
  for (int busy = atoi(argv[7]); busy > 0 && at < n_samples; busy--) {
    hear_chunk();
  }
  int more = 1;
  while (more) {
    more = at < n_samples;
    hear_chunk();
    while (quads_listen_run(&listen, poll, NULL, &event)) {
      const uint32_t numbers[7] = {event.kind, answers[0],      event.start,   event.length,
                                   event.end,  event.confirmed, event.answered};
      fwrite(numbers, sizeof numbers, 1, stdout);
      if (event.kind == QUADS_HEARD_LOST) {
        memset(features, 0, sizeof features);
        memset(logits, 0, sizeof logits);
      } else {
        memcpy(features, quads_features(&listen.quads), sizeof features);
      }
      fwrite(features, sizeof features, 1, stdout);
      fwrite(logits, sizeof logits, 1, stdout);
    }
  }
  fwrite(&listen.counters, sizeof listen.counters, 1, stdout);
  free(pcm);
  free(arena);
  free(ring);
  return 0;
}

/* One window of PCM, then one of features, through the whole runtime. Reads "pcm" (int16) and "mel"
 * (int8); writes the "ticks" that the PCM took, its "features", the "logits" of both (int32), and
 * the "arena" after each: every tensor that the last layer left there. */
#include <string.h>

#include "files.h"
#include "model.h"
#include "quads.h"

#define CHUNK_SAMPLES 331u
#define PAINT 0xA5
#define MEL_BYTES (QUADS_MODEL_FRAMES * QUADS_MODEL_MELS)

enum { FAILED_READ = 1, FAILED_RUNTIME, FAILED_WRITE };

/* Aligned for the tile of the vector unit, whose place in a workspace depends on that. */
static _Alignas(16) uint8_t arena[2][(QUADS_MODEL_ARENA_BYTES + 15) / 16 * 16];
static int32_t logits[2][QUADS_MODEL_CLASSES];
static int16_t pcm[(QUADS_MODEL_FRAMES + 5) * QUADS_HOP_SAMPLES];
static int8_t mel[MEL_BYTES];

static int run(uint8_t *memory, const int8_t *features, size_t n_samples, int32_t *result) {
  quads_t q;
  memset(memory, PAINT, QUADS_MODEL_ARENA_BYTES);
  int error = quads_init(&q, &quads_model, memory, QUADS_MODEL_ARENA_BYTES);
  if (features != NULL) {
    error |= quads_set_features(&q, features);
  }
  for (size_t at = 0; features == NULL && at < n_samples; at += CHUNK_SAMPLES) {
    const size_t left = n_samples - at;
    error |= quads_push(&q, pcm + at, left < CHUNK_SAMPLES ? left : CHUNK_SAMPLES);
  }
  error |= quads_close(&q);
  error |= quads_infer(&q, result, NULL);
  if (error == QUADS_OK && features == NULL) {
    memcpy(mel, quads_features(&q), sizeof mel);
  }
  return error;
}

int main(void) {
  const size_t n_samples = files_read("pcm", pcm, sizeof pcm) / sizeof pcm[0];
  if (n_samples == 0) {
    return FAILED_READ;
  }
  const uint32_t began = files_ticks();
  if (run(arena[0], NULL, n_samples, logits[0]) != QUADS_OK) {
    return FAILED_RUNTIME;
  }
  const uint32_t ticks = files_ticks() - began;
  if (files_write("ticks", &ticks, sizeof ticks) != 0) {
    return FAILED_WRITE;
  }
  if (files_write("features", mel, sizeof mel) != 0) {
    return FAILED_WRITE;
  }
  if (files_read("mel", mel, sizeof mel) != sizeof mel) {
    return FAILED_READ;
  }
  if (run(arena[1], mel, 0, logits[1]) != QUADS_OK) {
    return FAILED_RUNTIME;
  }
  const int failed =
      files_write("logits", logits, sizeof logits) | files_write("arena", arena, sizeof arena);
  return failed ? FAILED_WRITE : 0;
}

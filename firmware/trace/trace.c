/* Host only: int8 features in, logits out, and what every LayerNorm read and wrote.
 *
 * Reads windows [n_frames][n_mels] from stdin. Writes to stdout per window: int32 logits
 * [n_classes]; with any argument then, for every LayerNorm in order of computation, the residual
 * stream int16 [n_tokens][d_model] and the normalized int8 [n_tokens][d_model]. Exit code 1: a
 * call failed. The encoder is the firmware's own file, with LayerNorm looked at from outside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/quads_kernels.h"

static void traced_layer_norm(const int16_t *x, size_t rows, size_t d_model,
                              const quads_norm_t *norm, uint32_t sqrt_d, int8_t *y);

#define quads_layer_norm traced_layer_norm
#include "encoder.c"
#undef quads_layer_norm

#include "model.h"

typedef struct {
  int16_t *residual;  /* [n_norms][n_tokens][d_model] */
  int8_t *normalized; /* [n_norms][n_tokens][d_model] */
} trace_t;

static _Alignas(8) uint8_t arena[QUADS_MODEL_ARENA_BYTES];
static trace_t trace;

static size_t values(void) {
  return (size_t)quads_model.n_tokens * quads_model.d_model;
}

static size_t norm_index(const quads_norm_t *norm) {
  for (size_t i = 0; i < quads_model.n_layers; i++) {
    if (norm == &quads_model.layers[i].attention_norm) {
      return 2 * i;
    }
    if (norm == &quads_model.layers[i].feed_forward_norm) {
      return 2 * i + 1;
    }
  }
  return 2 * (size_t)quads_model.n_layers;
}

/* x: int16 [rows][d_model], rows of the residual stream; y: int8 [rows][d_model] */
static void traced_layer_norm(const int16_t *x, size_t rows, size_t d_model,
                              const quads_norm_t *norm, uint32_t sqrt_d, int8_t *y) {
  const int16_t *residual = (const int16_t *)(const void *)(arena + quads_model.plan.residual);
  const size_t at = norm_index(norm) * values() + (size_t)(x - residual);

  memcpy(trace.residual + at, x, rows * d_model * sizeof *x);
  quads_layer_norm(x, rows, d_model, norm, sqrt_d, y);
  memcpy(trace.normalized + at, y, rows * d_model);
}

int main(int argc, char **argv) {
  const size_t n_norms = 2 * (size_t)quads_model.n_layers + 1;
  static int8_t mel[QUADS_MODEL_MELS * QUADS_MODEL_FRAMES];
  static int32_t logits[QUADS_MODEL_CLASSES];
  quads_t q;

  (void)argv;
  trace.residual = malloc(n_norms * values() * sizeof *trace.residual);
  trace.normalized = malloc(n_norms * values());
  if (trace.residual == NULL || trace.normalized == NULL) {
    return 1;
  }
  while (fread(mel, 1, sizeof mel, stdin) == sizeof mel) {
    if (quads_init(&q, &quads_model, arena, sizeof arena) != QUADS_OK ||
        quads_set_features(&q, mel) != QUADS_OK || quads_infer(&q, logits, NULL) != QUADS_OK) {
      return 1;
    }
    fwrite(logits, sizeof *logits, QUADS_MODEL_CLASSES, stdout);
    if (argc > 1) {
      for (size_t i = 0; i < n_norms; i++) {
        fwrite(trace.residual + i * values(), sizeof *trace.residual, values(), stdout);
        fwrite(trace.normalized + i * values(), 1, values(), stdout);
      }
    }
  }
  free(trace.residual);
  free(trace.normalized);
  return fflush(stdout) == 0 ? 0 : 1;
}

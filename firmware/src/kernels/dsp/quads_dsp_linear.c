#include "kernels/dsp/quads_dsp_linear.h"

#include "quads_math.h"

_Static_assert(sizeof(quads_dsp_gemm_t) == 36, "quads_dsp_gemm.S reads nine words");

/* A last group of fewer than four rows repeats its last one. */
static void widen(const int8_t *x, size_t x_stride, size_t rows, size_t n_in, uint32_t *panel) {
  for (size_t t = 0; t < rows; t += QUADS_DSP_GROUP) {
    const size_t last = rows - t - 1;
    const int8_t *const group[QUADS_DSP_GROUP] = {
        x,
        x + quads_min(1, last) * x_stride,
        x + quads_min(2, last) * x_stride,
        x + quads_min(3, last) * x_stride,
    };
    quads_dsp_widen(group, n_in, panel);
    x += QUADS_DSP_GROUP * x_stride;
    panel += QUADS_DSP_GROUP / 2 * n_in;
  }
}

void quads_dsp_linear(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                      size_t first_out, size_t n_out, const quads_dsp_outputs_t *outputs,
                      void *workspace) {
  uint32_t *table = workspace;
  uint32_t *tile = table + QUADS_DSP_TABLE_WORDS;
  uint32_t *panel = tile + w->n_in;
  const int32_t *m = w->multiplier + (w->per_channel ? first_out : 0);
  const size_t channel = w->per_channel; /* from one multiplier to the next */
  quads_dsp_gemm_t job = {
      .tile = tile, .n_pairs = w->n_in / 2, .y_stride = outputs->y_stride, .rows = rows};
  uint8_t *y = outputs->y;

  quads_dsp_pairs(w, table);
  widen(x, x_stride, rows, w->n_in, panel);
  for (size_t n = first_out; n < first_out + n_out; n += 2) {
    quads_dsp_decode(w, n, table, tile);
    job.bias[0] = w->bias[n];
    job.bias[1] = w->bias[n + 1];
    job.multiplier[0] = m[0];
    job.multiplier[1] = m[channel];
    job.y = y;
    outputs->gemm(&job, panel);
    m += 2 * channel;
    y += 2 * outputs->y_bytes;
  }
}

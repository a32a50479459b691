#include "kernels/dsp/quads_dsp_linear.h"

/* Up to so many rows of 4-bit weights are cheaper looked up for each row than decoded. */
#define MOST_GEMV_ROWS 2

_Static_assert(sizeof(quads_dsp_gemv_t) == 36, "quads_dsp_gemv.S reads nine words");

static void gemv(const int8_t *x, const quads_linear_t *w, size_t first_out, size_t n_out,
                 const uint32_t *table, int16_t *wide, int8_t *y) {
  const int32_t m = w->multiplier[0];
  const int32_t same[4] = {m, m, m, m};
  const size_t row_bytes = w->n_in / 2;
  const quads_dsp_gemv_t job = {
      .indices = w->indices + first_out * row_bytes,
      .row_bytes = row_bytes,
      .x = wide,
      .table = table,
      .bias = w->bias + first_out,
      .bias_end = w->bias + first_out + n_out,
      .multiplier = w->per_channel ? w->multiplier + first_out : same,
      .multiplier_step = w->per_channel ? sizeof same : 0,
      .y = y,
  };
  quads_dsp_widen_row(x, w->n_in, wide);
  quads_dsp_gemv_s8(&job);
}

void quads_linear_s8(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                     size_t first_out, size_t n_out, int8_t *y, size_t y_stride, void *workspace) {
  uint32_t *table = workspace;

  if (w->bits != 4 || rows > MOST_GEMV_ROWS) {
    const quads_dsp_outputs_t outputs = {(uint8_t *)y, y_stride, sizeof y[0], quads_dsp_gemm_s8};
    quads_dsp_linear(x, x_stride, rows, w, first_out, n_out, &outputs, workspace);
    return;
  }
  quads_dsp_pairs(w, table);
  for (size_t t = 0; t < rows; t++) {
    gemv(x + t * x_stride, w, first_out, n_out, table,
         (int16_t *)(void *)(table + QUADS_DSP_TABLE_WORDS), y + t * y_stride);
  }
}

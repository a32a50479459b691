#include "kernels/dsp/quads_dsp_linear.h"

void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          void *workspace) {
  const quads_dsp_outputs_t outputs = {
      .y = (uint8_t *)residual,
      .y_stride = w->n_out * sizeof residual[0],
      .y_bytes = sizeof residual[0],
      .gemm = quads_dsp_gemm_add_s16,
  };
  quads_dsp_linear(x, w->n_in, rows, w, 0, w->n_out, &outputs, workspace);
}

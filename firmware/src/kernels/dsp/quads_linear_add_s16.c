#include "kernels/dsp/quads_dsp_linear.h"

void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          void *workspace) {
  quads_dsp_linear(x, w->n_in, rows, w, 0, w->n_out, residual, w->n_out * sizeof residual[0],
                   sizeof residual[0], quads_dsp_gemm_add_s16, workspace);
}

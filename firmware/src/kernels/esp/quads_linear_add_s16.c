#include "kernels/esp/quads_esp.h"

void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          void *workspace) {
  const quads_esp_linear_t job = {
      .x = x,
      .x_stride = w->n_in,
      .rows = rows,
      .w = w,
      .residual = residual,
      .y_stride = w->n_out,
  };
  quads_esp_linear(&job, w->n_out, workspace);
}

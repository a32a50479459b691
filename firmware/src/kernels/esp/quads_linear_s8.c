#include "kernels/esp/quads_esp.h"

void quads_linear_s8(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                     size_t first_out, size_t n_out, int8_t *y, size_t y_stride, void *workspace) {
  const quads_esp_linear_t job = {
      .x = x,
      .x_stride = x_stride,
      .rows = rows,
      .w = w,
      .first_out = first_out,
      .y = y,
      .y_stride = y_stride,
  };
  quads_esp_linear(&job, n_out, workspace);
}

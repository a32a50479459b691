#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

void quads_linear_s8(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                     size_t first_out, size_t n_out, int8_t *y, size_t y_stride, void *workspace) {
  int8_t *tile = workspace;

  for (size_t n = 0; n < n_out; n += QUADS_TILE_ROWS) {
    const int32_t *bias = w->bias + first_out + n;
    int32_t m[QUADS_TILE_ROWS];

    quads_decode_rows(w, first_out + n, QUADS_TILE_ROWS, tile);
    quads_tile_multipliers(w, first_out + n, m);
    for (size_t t = 0; t < rows; t += 2) {
      const size_t pair = quads_min(rows - t, 2); /* an odd last row is its own neighbour */
      const int8_t *x0 = x + t * x_stride;
      int8_t *out = y + t * y_stride + n;
      int32_t sums[2 * QUADS_TILE_ROWS];

      quads_dot_tile(tile, x0, x0 + (pair - 1) * x_stride, w->n_in, bias, sums);
      for (const int32_t *s = sums; s < sums + pair * QUADS_TILE_ROWS; s += QUADS_TILE_ROWS) {
        out[0] = quads_sat8(quads_requantize(s[0], m[0]));
        out[1] = quads_sat8(quads_requantize(s[1], m[1]));
        out[2] = quads_sat8(quads_requantize(s[2], m[2]));
        out[3] = quads_sat8(quads_requantize(s[3], m[3]));
        out += y_stride;
      }
    }
  }
}

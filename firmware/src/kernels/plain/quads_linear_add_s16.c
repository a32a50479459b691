#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          void *workspace) {
  int8_t *tile = workspace;

  for (size_t n = 0; n < w->n_out; n += QUADS_TILE_ROWS) {
    const int32_t *bias = w->bias + n;
    int32_t m[QUADS_TILE_ROWS];

    quads_decode_rows(w, n, QUADS_TILE_ROWS, tile);
    quads_tile_multipliers(w, n, m);
    for (size_t t = 0; t < rows; t += 2) {
      const size_t pair = quads_min(rows - t, 2); /* an odd last row is its own neighbour */
      const int8_t *x0 = x + t * w->n_in;
      int16_t *out = residual + t * w->n_out + n;
      int32_t sums[2 * QUADS_TILE_ROWS];

      quads_dot_tile(tile, x0, x0 + (pair - 1) * w->n_in, w->n_in, bias, sums);
      for (const int32_t *s = sums; s < sums + pair * QUADS_TILE_ROWS; s += QUADS_TILE_ROWS) {
        out[0] = quads_sat16(out[0] + quads_requantize(s[0], m[0]));
        out[1] = quads_sat16(out[1] + quads_requantize(s[1], m[1]));
        out[2] = quads_sat16(out[2] + quads_requantize(s[2], m[2]));
        out[3] = quads_sat16(out[3] + quads_requantize(s[3], m[3]));
        out += w->n_out;
      }
    }
  }
}

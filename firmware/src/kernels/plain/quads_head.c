#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

void quads_head(const int16_t *pooled, const quads_linear_t *w, size_t first_out, size_t n_out,
                int32_t *logits, void *workspace) {
  int8_t *tile = workspace;

  for (size_t n = 0; n < n_out; n += QUADS_TILE_ROWS) {
    const size_t channels = quads_min(n_out - n, QUADS_TILE_ROWS);

    quads_decode_rows(w, first_out + n, channels, tile);
    for (size_t c = 0; c < channels; c++) {
      int32_t sum = w->bias[first_out + n + c]; /* |pooled| <= 8191; bounded at export */
      for (size_t k = 0; k < w->n_in; k++) {
        sum += tile[k * QUADS_TILE_ROWS + c] * pooled[k];
      }
      logits[n + c] = sum;
    }
  }
}

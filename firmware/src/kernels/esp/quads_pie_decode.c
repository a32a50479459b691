#include "kernels/esp/quads_esp.h"

/* Rows are contiguous here. Inlined for each number of bits: eight indices fill so many bytes. */
static inline void decode_row(const uint8_t *packed, const int8_t *centroids, size_t n_in,
                              size_t bits, int8_t *restrict row) {
  for (const int8_t *const end = row + n_in; row != end; row += 8) {
    uint32_t group = 0;
    for (size_t i = 0; i < bits; i++) {
      group |= (uint32_t)packed[i] << (8 * i);
    }
    for (size_t k = 0; k < 8; k++) {
      row[k] = centroids[group & ((1u << bits) - 1)];
      group >>= bits;
    }
    packed += bits;
  }
}

static void decode_8(const uint8_t *packed, const int8_t *centroids, size_t n_in, int8_t *row) {
  for (size_t k = 0; k < n_in; k++) {
    row[k] = centroids[packed[k]];
  }
}

void quads_pie_decode(const quads_linear_t *w, size_t first_row, int8_t *tile) {
  const size_t n_in = w->n_in;
  const size_t row_bytes = n_in / 8 * w->bits;
  const uint8_t *packed = w->indices + first_row * row_bytes;

  for (size_t c = 0; c < QUADS_TILE_ROWS; c++) {
    switch (w->bits) {
      case 8:
        decode_8(packed, w->centroids, n_in, tile);
        break;
      case 4:
        decode_row(packed, w->centroids, n_in, 4, tile);
        break;
      case 3:
        decode_row(packed, w->centroids, n_in, 3, tile);
        break;
      default:
        decode_row(packed, w->centroids, n_in, 2, tile);
        break;
    }
    for (size_t k = n_in; k < QUADS_PIE_ROW_BYTES(n_in); k++) {
      tile[k] = 0;
    }
    packed += row_bytes;
    tile += QUADS_PIE_ROW_BYTES(n_in);
  }
}

#include "kernels/dsp/quads_dsp_linear.h"

/* Eight indices fill `bits` bytes. One row of the tile, every other word. */
#define PUT(k, pair) tile[2 * (k)] = (pair)

static void decode_8(const uint8_t *packed, const int8_t *centroids, size_t n_in, uint32_t *tile) {
  for (size_t k = 0; k < n_in; k += 4) {
    PUT(0, quads_dsp_pair(centroids[packed[0]], centroids[packed[1]]));
    PUT(1, quads_dsp_pair(centroids[packed[2]], centroids[packed[3]]));
    packed += 4;
    tile += 4;
  }
}

static void decode_3(const uint8_t *packed, const uint32_t *table, size_t n_in, uint32_t *tile) {
  for (size_t k = 0; k < n_in; k += 8) {
    const uint32_t group = packed[0] | (uint32_t)packed[1] << 8 | (uint32_t)packed[2] << 16;
    PUT(0, table[group & 63]);
    PUT(1, table[group >> 6 & 63]);
    PUT(2, table[group >> 12 & 63]);
    PUT(3, table[group >> 18]);
    packed += 3;
    tile += 8;
  }
}

static void decode_2(const uint8_t *packed, const uint32_t *table, size_t n_in, uint32_t *tile) {
  for (size_t k = 0; k < n_in; k += 8) {
    PUT(0, table[packed[0] & 15]);
    PUT(1, table[packed[0] >> 4]);
    PUT(2, table[packed[1] & 15]);
    PUT(3, table[packed[1] >> 4]);
    packed += 2;
    tile += 8;
  }
}

void quads_dsp_decode(const quads_linear_t *w, size_t first_row, const uint32_t *table,
                      uint32_t *tile) {
  const size_t row_bytes = (size_t)(w->n_in / 8) * w->bits;
  const uint8_t *packed = w->indices + first_row * row_bytes;

  if (w->bits == 4) {
    quads_dsp_decode_4(packed, packed + row_bytes, row_bytes, table, tile);
    return;
  }
  for (size_t row = 0; row < 2; row++) {
    if (w->bits == 8) {
      decode_8(packed, w->centroids, w->n_in, tile + row);
    } else if (w->bits == 3) {
      decode_3(packed, table, w->n_in, tile + row);
    } else {
      decode_2(packed, table, w->n_in, tile + row);
    }
    packed += row_bytes;
  }
}

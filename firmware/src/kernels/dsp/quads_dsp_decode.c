#include "kernels/dsp/quads_dsp_linear.h"

/* Eight indices fill `bits` bytes. Word 2k of the tile is the first row's, 2k + 1 the second's. */

static void decode_8(const uint8_t *row0, const uint8_t *row1, const int8_t *centroids, size_t n_in,
                     uint32_t *restrict tile) {
  const uint8_t *const end = row0 + n_in;
  do {
    tile[0] = quads_dsp_pair(centroids[row0[0]], centroids[row0[1]]);
    tile[1] = quads_dsp_pair(centroids[row1[0]], centroids[row1[1]]);
    tile[2] = quads_dsp_pair(centroids[row0[2]], centroids[row0[3]]);
    tile[3] = quads_dsp_pair(centroids[row1[2]], centroids[row1[3]]);
    tile[4] = quads_dsp_pair(centroids[row0[4]], centroids[row0[5]]);
    tile[5] = quads_dsp_pair(centroids[row1[4]], centroids[row1[5]]);
    tile[6] = quads_dsp_pair(centroids[row0[6]], centroids[row0[7]]);
    tile[7] = quads_dsp_pair(centroids[row1[6]], centroids[row1[7]]);
    row0 += 8;
    row1 += 8;
    tile += 8;
  } while (row0 != end);
}

static void decode_3(const uint8_t *row0, const uint8_t *row1, const uint32_t *table, size_t n_in,
                     uint32_t *restrict tile) {
  const uint8_t *const end = row0 + n_in / 8 * 3;
  do {
    const uint32_t a = row0[0] | (uint32_t)row0[1] << 8 | (uint32_t)row0[2] << 16;
    const uint32_t b = row1[0] | (uint32_t)row1[1] << 8 | (uint32_t)row1[2] << 16;
    tile[0] = table[a & 63];
    tile[1] = table[b & 63];
    tile[2] = table[a >> 6 & 63];
    tile[3] = table[b >> 6 & 63];
    tile[4] = table[a >> 12 & 63];
    tile[5] = table[b >> 12 & 63];
    tile[6] = table[a >> 18];
    tile[7] = table[b >> 18];
    row0 += 3;
    row1 += 3;
    tile += 8;
  } while (row0 != end);
}

static void decode_2(const uint8_t *row0, const uint8_t *row1, const uint32_t *table, size_t n_in,
                     uint32_t *restrict tile) {
  const uint8_t *const end = row0 + n_in / 8 * 2;
  do {
    tile[0] = table[row0[0] & 15];
    tile[1] = table[row1[0] & 15];
    tile[2] = table[row0[0] >> 4];
    tile[3] = table[row1[0] >> 4];
    tile[4] = table[row0[1] & 15];
    tile[5] = table[row1[1] & 15];
    tile[6] = table[row0[1] >> 4];
    tile[7] = table[row1[1] >> 4];
    row0 += 2;
    row1 += 2;
    tile += 8;
  } while (row0 != end);
}

void quads_dsp_decode(const quads_linear_t *w, size_t first_row, const uint32_t *table,
                      uint32_t *restrict tile) {
  const size_t row_bytes = (size_t)(w->n_in / 8) * w->bits;
  const uint8_t *row0 = w->indices + first_row * row_bytes;
  const uint8_t *row1 = row0 + row_bytes;

  switch (w->bits) {
    case 8:
      decode_8(row0, row1, w->centroids, w->n_in, tile);
      break;
    case 4:
      quads_dsp_decode_4(row0, row1, row_bytes, table, tile);
      break;
    case 3:
      decode_3(row0, row1, table, w->n_in, tile);
      break;
    default:
      decode_2(row0, row1, table, w->n_in, tile);
      break;
  }
}

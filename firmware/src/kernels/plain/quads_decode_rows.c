#include "kernels/plain/quads_plain.h"

/* Eight indices fill exactly `bits` bytes and n_in is a multiple of 8, so every row and every
 * group of eight starts on a byte. The groups are written out: decoding is a good part of the time
 * when few rows share a tile. */
#define PUT(k, index) tile[(k) * QUADS_TILE_ROWS] = centroids[index]

static void decode_8(const uint8_t *packed, const int8_t *centroids, size_t n_in,
                     int8_t *restrict tile) {
  for (size_t k = 0; k < n_in; k += 8) {
    PUT(0, packed[0]);
    PUT(1, packed[1]);
    PUT(2, packed[2]);
    PUT(3, packed[3]);
    PUT(4, packed[4]);
    PUT(5, packed[5]);
    PUT(6, packed[6]);
    PUT(7, packed[7]);
    packed += 8;
    tile += 8 * QUADS_TILE_ROWS;
  }
}

static void decode_4(const uint8_t *packed, const int8_t *centroids, size_t n_in,
                     int8_t *restrict tile) {
  for (size_t k = 0; k < n_in; k += 8) {
    PUT(0, packed[0] & 15);
    PUT(1, packed[0] >> 4);
    PUT(2, packed[1] & 15);
    PUT(3, packed[1] >> 4);
    PUT(4, packed[2] & 15);
    PUT(5, packed[2] >> 4);
    PUT(6, packed[3] & 15);
    PUT(7, packed[3] >> 4);
    packed += 4;
    tile += 8 * QUADS_TILE_ROWS;
  }
}

static void decode_3(const uint8_t *packed, const int8_t *centroids, size_t n_in,
                     int8_t *restrict tile) {
  for (size_t k = 0; k < n_in; k += 8) {
    const uint32_t group = packed[0] | (uint32_t)packed[1] << 8 | (uint32_t)packed[2] << 16;
    PUT(0, group & 7);
    PUT(1, group >> 3 & 7);
    PUT(2, group >> 6 & 7);
    PUT(3, group >> 9 & 7);
    PUT(4, group >> 12 & 7);
    PUT(5, group >> 15 & 7);
    PUT(6, group >> 18 & 7);
    PUT(7, group >> 21);
    packed += 3;
    tile += 8 * QUADS_TILE_ROWS;
  }
}

static void decode_2(const uint8_t *packed, const int8_t *centroids, size_t n_in,
                     int8_t *restrict tile) {
  for (size_t k = 0; k < n_in; k += 8) {
    PUT(0, packed[0] & 3);
    PUT(1, packed[0] >> 2 & 3);
    PUT(2, packed[0] >> 4 & 3);
    PUT(3, packed[0] >> 6);
    PUT(4, packed[1] & 3);
    PUT(5, packed[1] >> 2 & 3);
    PUT(6, packed[1] >> 4 & 3);
    PUT(7, packed[1] >> 6);
    packed += 2;
    tile += 8 * QUADS_TILE_ROWS;
  }
}

void quads_decode_rows(const quads_linear_t *w, size_t first_row, size_t n_rows, int8_t *tile) {
  const size_t n_in = w->n_in;
  const size_t row_bytes = n_in / 8 * w->bits;
  const uint8_t *packed = w->indices + first_row * row_bytes;

  for (size_t row = 0; row < n_rows; row++) {
    switch (w->bits) {
      case 8:
        decode_8(packed, w->centroids, n_in, tile + row);
        break;
      case 4:
        decode_4(packed, w->centroids, n_in, tile + row);
        break;
      case 3:
        decode_3(packed, w->centroids, n_in, tile + row);
        break;
      default:
        decode_2(packed, w->centroids, n_in, tile + row);
        break;
    }
    packed += row_bytes;
  }
  for (size_t row = n_rows; row < QUADS_TILE_ROWS; row++) {
    for (size_t k = 0; k < n_in; k++) {
      tile[k * QUADS_TILE_ROWS + row] = 0;
    }
  }
}

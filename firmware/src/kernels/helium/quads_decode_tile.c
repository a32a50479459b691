#include "quads_helium.h"

void quads_decode_tile(const quads_linear_t *w, size_t first, const quads_pairs_t *pairs,
                       int8_t *tile) {
  const size_t blocks = quads_padded(w->n_in) / QUADS_BLOCK;
  const uint8_t *half = quads_group(w, first);

  if (first % QUADS_GROUP_ROWS != 0) {
    half += (size_t)QUADS_GROUP_ROWS * w->bits;
  }
  quads_decode_blocks(half, w->bits == 8 ? (const void *)w->centroids : (const void *)pairs, blocks,
                      tile, w->bits);
  if (w->n_in % QUADS_BLOCK != 0) { /* the upper half of each channel's last block */
    const int8x16_t zero = vdupq_n_s8(0);
    for (size_t pair = 0; pair < QUADS_TILE_CHANNELS / 2; pair++) {
      int8_t *const end = tile + (pair + 1) * 2 * QUADS_BLOCK * blocks;
      vstrbq_p_s8(end - 2 * QUADS_BLOCK, zero, 0xFF00);
      vstrbq_p_s8(end - QUADS_BLOCK, zero, 0xFF00);
    }
  }
}

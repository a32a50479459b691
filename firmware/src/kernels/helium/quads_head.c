#include "quads_helium.h"
#include "quads_math.h"

/* One channel of a tile: blocks of 16 weights, 32 apart. */
static int32_t dot(const int8_t *tile, const int16_t *pooled, size_t n_in, int32_t sum) {
  for (size_t k = 0; k < n_in; k += 8) {
    const int8_t *const weights = tile + 2 * k - k % QUADS_BLOCK;
    sum = vmladavaq_s16(sum, vldrbq_s16(weights), vld1q_s16(pooled + k));
  }
  return sum; /* |pooled| <= 8191; bounded at export */
}

/* Tiles begin at multiples of QUADS_TILE_CHANNELS: the first one may begin before first_out. */
void quads_head(const int16_t *pooled, const quads_linear_t *w, size_t first_out, size_t n_out,
                int32_t *logits, void *workspace) {
  const quads_linear_work_t work = quads_linear_work(workspace);
  const size_t padded = quads_padded(w->n_in);

  quads_pair_table(w, work.pairs);
  for (size_t done = 0; done < n_out;) {
    const size_t skipped = (first_out + done) % QUADS_TILE_CHANNELS;
    const size_t tile_out = first_out + done - skipped;
    const size_t end = quads_min(n_out - done + skipped, QUADS_TILE_CHANNELS);
    quads_decode_tile(w, tile_out, work.pairs, work.tile);
    for (size_t c = skipped; c < end; c++) {
      const int8_t *const tile = work.tile + c / 2 * 2 * padded + c % 2 * QUADS_BLOCK;
      logits[done++] = dot(tile, pooled, w->n_in, w->bias[tile_out + c]);
    }
  }
}

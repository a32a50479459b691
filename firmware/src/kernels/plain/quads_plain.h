/* quads_plain.h - what the plain kernels share; each in the file of its name.
 *
 * Weights are decoded QUADS_TILE_ROWS output channels at a time into a tile, which is then
 * multiplied with all rows of the input. A tile is int8 [n_in][QUADS_TILE_ROWS], so that one
 * pointer walks all its channels.
 */
#ifndef QUADS_PLAIN_H
#define QUADS_PLAIN_H

#include "kernels/quads_kernels.h"
#include "quads_math.h"

#define QUADS_TILE_ROWS 4

/* Bytes of a tile for n_in inputs. */
#define QUADS_TILE_BYTES(n_in) ((size_t)(n_in) * QUADS_TILE_ROWS)

/* The multipliers of the QUADS_TILE_ROWS channels from first_out. */
static inline void quads_tile_multipliers(const quads_linear_t *w, size_t first_out,
                                          int32_t *multipliers) {
  for (size_t c = 0; c < QUADS_TILE_ROWS; c++) {
    multipliers[c] = w->multiplier[w->per_channel ? first_out + c : 0];
  }
}

/* Decode rows first_row .. first_row + n_rows - 1 of w (n_rows <= QUADS_TILE_ROWS); the tile's
 * other rows become zero.
 * tile: int8 [n_in][QUADS_TILE_ROWS] */
void quads_decode_rows(const quads_linear_t *w, size_t first_row, size_t n_rows, int8_t *tile);

/* sums = bias + products of a tile with two rows of input.
 * tile: int8 [n_in][QUADS_TILE_ROWS]; x0, x1: int8 [n_in]; bias: int32 [QUADS_TILE_ROWS]
 * sums: int32 [2][QUADS_TILE_ROWS] */
void quads_dot_tile(const int8_t *tile, const int8_t *x0, const int8_t *x1, size_t n_in,
                    const int32_t *bias, int32_t *sums);

/* scores[u] = query . key[u] (section 6).
 * query: int8 [d_head]; key: int8 [n_tokens][d_head]; scores: int32 [n_tokens] */
void quads_attention_scores(const int8_t *query, const int8_t *key, size_t n_tokens, size_t d_head,
                            int32_t *scores);

/* Powers of two of the scores less their maximum, 1.0 = 8192; returns their sum (section 6).
 * scores: int32 [n_tokens]; exps: int16 [n_tokens] */
uint32_t quads_softmax_exps(const int32_t *scores, size_t n_tokens, int32_t multiplier,
                            int16_t *exps);

/* The multiplier that stands for value_multiplier / 2^12 / sum (section 6). */
static inline int32_t quads_softmax_multiplier(uint32_t sum, int32_t value_multiplier) {
  const uint32_t n = 32 - quads_bit_length(sum);
  const uint32_t reciprocal = UINT32_MAX / ((sum << n) >> 16); /* 2^16 <= r < 2^17 */
  return (int32_t)(((uint64_t)(uint32_t)value_multiplier * reciprocal) >> (28 - n));
}

/* The range of the head's input (section 7). */
static inline int16_t quads_sat_pooled(int32_t a) {
  return (int16_t)(a < -QUADS_POOLED_MAX  ? -QUADS_POOLED_MAX
                   : a > QUADS_POOLED_MAX ? QUADS_POOLED_MAX
                                          : a);
}

/* out = sat8(RQ(exps value, multiplier / sum)) (section 6).
 * exps: int16 [n_tokens]; value: int8 [n_tokens][d_head]; out: int8 [d_head] */
void quads_attention_values(const int16_t *exps, uint32_t sum, const int8_t *value, size_t n_tokens,
                            size_t d_head, int32_t multiplier, int8_t *out);

#endif

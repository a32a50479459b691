/* quads_kernels.h - the loops of the encoder, a file per function.
 *
 * Weights are decoded QUADS_TILE_ROWS output channels at a time into a tile and then multiplied
 * with all rows of the input. The tile's layout is private to quads_decode_rows, quads_dot_tile and
 * quads_head: plain C keeps it [n_in][QUADS_TILE_ROWS], so that one pointer walks all channels.
 * n_in is always a multiple of 8 and n_out of QUADS_TILE_ROWS, except the head's. Strides are in
 * elements. Semantics: docs/arithmetic.md.
 */
#ifndef QUADS_KERNELS_H
#define QUADS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "quads.h"

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

/* y = sat8(RQ(x w + bias)) for output channels first_out .. first_out + n_out - 1 (section 2).
 * x: int8 [rows][n_in], rows x_stride apart (they may overlap: a convolution)
 * y: int8 [rows][n_out], rows y_stride apart */
void quads_linear_s8(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                     size_t first_out, size_t n_out, int8_t *y, size_t y_stride, int8_t *tile);

/* residual = sat16(residual + RQ(x w + bias)) (section 2).
 * x: int8 [rows][n_in]; residual: int16 [rows][n_out] */
void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          int8_t *tile);

/* logits = pooled w + bias (section 7). pooled: int16 [n_in]; logits: int32 [n_out] */
void quads_head(const int16_t *pooled, const quads_linear_t *w, int32_t *logits, int8_t *tile);

/* x = gelu[x + 128] in place (section 3). x: int8 [n]; gelu: int8 [256] */
void quads_gelu_s8(int8_t *x, size_t n, const int8_t *gelu);

/* residual = sat16(gelu[x + 128] + multiplier * positions) (sections 3 and 4). x may be the upper
 * half of residual's own memory.
 * x: int8 [n]; gelu: int16 [256]; positions: int8 [n]; residual: int16 [n] */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual);

/* LayerNorm of every row (section 5). x: int16 [rows][d_model]; y: int8 [rows][d_model] */
void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y);

/* scores[u] = query . key[u] (section 6).
 * query: int8 [d_head]; key: int8 [n_tokens][d_head]; scores: int32 [n_tokens] */
void quads_attention_scores(const int8_t *query, const int8_t *key, size_t n_tokens, size_t d_head,
                            int32_t *scores);

/* Powers of two of the scores less their maximum, 1.0 = 8192; returns their sum (section 6).
 * scores: int32 [n_tokens]; exps: int16 [n_tokens] */
uint32_t quads_softmax_exps(const int32_t *scores, size_t n_tokens, int32_t multiplier,
                            int16_t *exps);

/* out = sat8(RQ(exps value, multiplier / sum)) (section 6).
 * exps: int16 [n_tokens]; value: int8 [n_tokens][d_head]; out: int8 [d_head] */
void quads_attention_values(const int16_t *exps, uint32_t sum, const int8_t *value, size_t n_tokens,
                            size_t d_head, int32_t multiplier, int8_t *out);

/* sums += the sum of the rows (section 7). y: int8 [rows][d_model]; sums: int32 [d_model] */
void quads_sum_rows(const int8_t *y, size_t rows, size_t d_model, int32_t *sums);

/* Requantize the sums to the head's input (section 7). sums: int32 [d_model]; pooled: int16
 * [d_model] */
void quads_mean_pool(const int32_t *sums, size_t d_model, int32_t multiplier, int16_t *pooled);

#endif

/* quads_kernels.h - the loops of the encoder, a file per function.
 *
 * plain/ holds every kernel in plain C: the definition, for any core. dsp/ (Cortex-M4, M7, M33) and
 * helium/ (Cortex-M55) hold faster twins under the same file names; a board file's `kernels` says
 * whose files a build takes, and plain's stand in for those that a folder lacks.
 *
 * n_in is always a multiple of 8 and n_out of 4, except the head's. Strides are in elements. A
 * workspace is 8-byte aligned, uninitialized, and as large as quads_kernel_sizes.c and
 * quads_mcu/export/kernels.py say for the kernels of the build. Semantics: docs/arithmetic.md.
 */
#ifndef QUADS_KERNELS_H
#define QUADS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "quads.h"

/* y = sat8(RQ(x w + bias)) for output channels first_out .. first_out + n_out - 1 (section 2);
 * first_out and n_out are multiples of 4.
 * x: int8 [rows][n_in], rows x_stride apart (they may overlap: a convolution)
 * y: int8 [rows][n_out], rows y_stride apart; y and y_stride are multiples of 4 */
void quads_linear_s8(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                     size_t first_out, size_t n_out, int8_t *y, size_t y_stride, void *workspace);

/* residual = sat16(residual + RQ(x w + bias)) (section 2).
 * x: int8 [rows][n_in]; residual: int16 [rows][n_out] */
void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          void *workspace);

/* logits = pooled w + bias for the outputs first_out .. first_out + n_out - 1 (section 7).
 * pooled: int16 [n_in]; logits: int32 [n_out] */
void quads_head(const int16_t *pooled, const quads_linear_t *w, size_t first_out, size_t n_out,
                int32_t *logits, void *workspace);

/* softmax(query key') value of one head for all tokens (section 6); each output takes its query's
 * place. d_head is a multiple of 8.
 * query: int8 [n_tokens][d_head], rows stride apart; key, value: int8 [n_tokens][d_head] */
void quads_attention_head(int8_t *query, size_t stride, const int8_t *key, const int8_t *value,
                          size_t n_tokens, size_t d_head, int32_t score_multiplier,
                          int32_t value_multiplier, void *workspace);

/* x = gelu[x + 128] in place (section 3); n is a multiple of 8. x: int8 [n]; gelu: int8 [256] */
void quads_gelu_s8(int8_t *x, size_t n, const int8_t *gelu);

/* residual = sat16(gelu[x + 128] + multiplier * positions) (sections 3 and 4). x may be the upper
 * half of residual's own memory. n is a multiple of 8.
 * x: int8 [n]; gelu: int16 [256]; positions: int8 [n]; residual: int16 [n] */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual);

/* LayerNorm of every row (section 5). x: int16 [rows][d_model]; y: int8 [rows][d_model] */
void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y);

/* sums += the sum of the rows (section 7). y: int8 [rows][d_model]; sums: int32 [d_model] */
void quads_sum_rows(const int8_t *y, size_t rows, size_t d_model, int32_t *sums);

/* Requantize the sums to the head's input (section 7). sums: int32 [d_model]; pooled: int16
 * [d_model] */
void quads_mean_pool(const int32_t *sums, size_t d_model, int32_t multiplier, int16_t *pooled);

/* pooled = softmax(query x') x (section 7). d_model is a multiple of 8.
 * query: int8 [d_model]; x: int8 [n_tokens][d_model]; pooled: int16 [d_model] */
void quads_attention_pool(const int8_t *query, const int8_t *x, size_t n_tokens, size_t d_model,
                          int32_t score_multiplier, int32_t value_multiplier, int16_t *pooled,
                          void *workspace);

/* --- sizes in bytes; all of a variant in its quads_kernel_sizes.c --- */

/* The packed indices of a matrix (section 9). */
size_t quads_index_bytes(size_t n_out, size_t n_in, size_t bits);

/* The workspace of quads_linear_s8 and quads_linear_add_s16; grows with rows and n_in. */
size_t quads_linear_bytes(size_t rows, size_t n_in);

size_t quads_head_bytes(size_t n_in);
size_t quads_attention_bytes(size_t n_tokens, size_t d_head, size_t d_model);

/* Scores, padded to 8 bytes, and exponentials of one query, for every variant. */
static inline size_t quads_attention_pool_bytes(size_t n_tokens) {
  return (n_tokens + 1) / 2 * 8 + 2 * n_tokens;
}

#endif

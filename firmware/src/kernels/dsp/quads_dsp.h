/* quads_dsp.h - routines that only the kernels for the Arm DSP extension have (Cortex-M4, M7, M33).
 *
 * A word holds two int16, the first of them in memory in its low half. All pointers to words, int16
 * and int32 lie on multiples of 4, n_tokens and the like are not 0.
 */
#ifndef QUADS_DSP_H
#define QUADS_DSP_H

#include <stddef.h>
#include <stdint.h>

/* sums = rows . columns; a step is two terms of every sum. Sums wrap at 32 bits. n_steps is a
 * multiple of 4.
 * rows: words [n_pairs][n_steps][2 rows]; columns: words [n_steps][4 columns]
 * sums: int32 [2 rows][4 columns] per pair, pairs sums_stride bytes apart */
void quads_pair_products(const void *rows, size_t n_pairs, const void *columns, size_t n_steps,
                         int32_t *sums, size_t sums_stride);

/* Widen four keys: of every four elements first 0 and 2, then 1 and 3. d_head is a multiple of 8.
 * k0 .. k3: int8 [d_head]; out: words [d_head / 2][4 keys] */
void quads_widen_keys(const int8_t *k0, const int8_t *k1, const int8_t *k2, const int8_t *k3,
                      size_t d_head, uint32_t *out);

/* Widen four channels of 4 n_fours tokens; a word holds two tokens.
 * value: int8 [4 n_fours][4], rows d_head apart; out: words [2 n_fours][4 channels] */
void quads_widen_values(const int8_t *value, size_t d_head, size_t n_fours, uint32_t *out);

/* Powers of two queries' scores less their maximum (docs/arithmetic.md, section 6) and the sums of
 * them. tokens is a multiple of 8. powers may be at or before scores.
 * scores: int32 [tokens / 4][2 queries][4]; powers: words [tokens / 2][2 queries], two tokens each;
 * sums: uint32 [2] */
void quads_soften_pair(const int32_t *scores, size_t tokens, int32_t multiplier, uint32_t *powers,
                       uint32_t *sums);

/* round(8192 * 2^(-i / 64)) */
extern const int16_t quads_exp_table[];

/* Sum and, returned, sum of squares. x: int16 [d_model], a multiple of 8 */
int64_t quads_row_moments(const int16_t *x, size_t d_model, int32_t *sum);

/* Constants of a row's LayerNorm: (x - mean) << p is x * power + offset modulo 2^32, and
 * (a + 2^(shift - 1)) >> shift is RQ(a, rounding). */
typedef struct {
  int32_t power, offset, inverse, rounding;
} quads_row_constants_t;

/* y = sat8(RQ(RQ(x * power + offset, inverse) * gamma + beta, rounding)), d_model a multiple of 8.
 * x, gamma: int16 [d_model]; beta: int32 [d_model]; y: int8 [d_model] */
void quads_normalize_row(const int16_t *x, const int16_t *gamma, const int32_t *beta, int8_t *y,
                         size_t d_model, const quads_row_constants_t *constants);

#endif

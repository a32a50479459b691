/* quads_dsp.h - instructions of the Arm DSP extension (Cortex-M4, M7, M33), and the routines that
 * only this variant has.
 *
 * Inline assembly rather than arm_acle.h, whose macros do not pass -Wconversion. Words hold two
 * int16: the first of them in memory is the low half.
 */
#ifndef QUADS_DSP_H
#define QUADS_DSP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Load a word from any address. */
static inline uint32_t quads_load_word(const void *from) {
  uint32_t word;
  memcpy(&word, from, sizeof word);
  return word;
}

/* Bytes 0 and 2, sign-extended to a pair. */
static inline uint32_t quads_sxtb16(uint32_t bytes) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(bytes));
  return pair;
}

/* Bytes 1 and 3, sign-extended to a pair. */
static inline uint32_t quads_sxtb16_odd(uint32_t bytes) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(bytes));
  return pair;
}

/* The low halves of a and b. */
static inline uint32_t quads_low_halves(uint32_t a, uint32_t b) {
  uint32_t pair;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}

/* The high halves of a and b. */
static inline uint32_t quads_high_halves(uint32_t a, uint32_t b) {
  uint32_t pair;
  __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair) : "r"(b), "r"(a));
  return pair;
}

#define QUADS_ONES 0x00010001u

/* sum + a.low * b.low + a.high * b.high */
static inline int32_t quads_smlad(uint32_t a, uint32_t b, int32_t sum) {
  __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}

/* The same in 64 bits. */
static inline int64_t quads_smlald(uint32_t a, uint32_t b, int64_t sum) {
  __asm__("smlald %Q0, %R0, %1, %2" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}

/* RQ(a, m) of docs/arithmetic.md. */
static inline int32_t quads_smmulr(int32_t a, int32_t multiplier) {
  int32_t product;
  __asm__("smmulr %0, %1, %2" : "=r"(product) : "r"(a), "r"(multiplier));
  return product;
}

/* rows [n_pairs][n_steps][2 rows][2], columns [n_steps][4 columns][2]: a step is two terms of every
 * sum. sums: int32 [2 rows][4 columns] per pair, pairs sums_stride bytes apart. n_pairs is at least
 * 1, n_steps a multiple of 4 and not 0. Sums wrap at 32 bits. */
void quads_pair_products(const void *rows, size_t n_pairs, const void *columns, size_t n_steps,
                         int32_t *sums, size_t sums_stride);

/* Widen four keys: of every four elements first 0 and 2, then 1 and 3.
 * k0 .. k3: int8 [d_head], a multiple of 8; out: words [d_head / 2][4 keys] */
void quads_widen_keys(const int8_t *k0, const int8_t *k1, const int8_t *k2, const int8_t *k3,
                      size_t d_head, uint32_t *out);

/* Widen four channels of 4 * n_fours tokens.
 * value: int8 [4 * n_fours], d_head apart; out: words [2 * n_fours][4 channels], pairs of tokens */
void quads_widen_values(const int8_t *value, size_t d_head, size_t n_fours, uint32_t *out);

/* Powers of two queries' scores less their maximum, and the sums of all `tokens` of them (docs/
 * arithmetic.md, 6). powers may be at or before scores. tokens: a multiple of 8, not 0.
 * scores: int32 [tokens / 4][2 queries][4]; powers: words [tokens / 2][2 queries], pairs of tokens;
 * sums: [2] */
void quads_soften_pair(const int32_t *scores, size_t tokens, int32_t multiplier, uint32_t *powers,
                       uint32_t *sums);

/* round(8192 * 2^(-i / 64)) */
extern const int16_t quads_exp_table[];

#endif

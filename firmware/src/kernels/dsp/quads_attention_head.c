/* Attention for a block of queries at a time: scores, powers and weighted values are products of
 * int16 pairs, for which queries, keys and values are widened four at a time. Each key and value is
 * widened once per block.
 *
 * A pair of queries has its scores and then, from the same place on, its powers, which are half as
 * long; behind all powers there is room for the values then.
 *
 *     scores  [pairs][tokens / 4][2 queries][4]    queries [pairs][d_head / 2][2][2]    keys
 *     powers  [pairs][tokens / 2][2 queries][2]    values  [tokens / 2][4][2]           sums
 *
 * `tokens` is n_tokens rounded up to 8. Past the end, keys repeat the last one and values are zero.
 */
#include "../../quads_math.h"
#include "../quads_kernels.h"
#include "quads_dsp.h"

#define QUERY_SHARE 16 /* of d_model: the size of a block; planner.py knows it too */

/* round(8192 * 2^(-i / 64)) */
static const int16_t exp_table[QUADS_EXP_STEPS] = QUADS_EXP_TABLE;

/* A block of queries and its places in the workspace. */
typedef struct {
  size_t n_tokens, tokens, d_head, stride;
  int32_t *multipliers; /* [2 * pairs] */
  int32_t *scores;
  uint32_t *powers; /* words, two powers each */
  uint32_t *queries;
  uint32_t *keys;   /* [d_head / 2][4] */
  uint32_t *values; /* [tokens / 2][4] */
  int32_t *sums;    /* [pairs][2][4] */
} block_t;

static block_t bind_workspace(size_t n_tokens, size_t d_head, size_t stride, size_t pairs,
                              void *workspace) {
  const size_t tokens = (n_tokens + 7) / 8 * 8;
  int32_t *multipliers = workspace;
  int32_t *scores = multipliers + 2 * pairs;
  uint32_t *powers = (uint32_t *)scores;
  uint32_t *queries = powers + 2 * pairs * tokens;
  uint32_t *values = powers + pairs * tokens;
  const block_t block = {
      .n_tokens = n_tokens,
      .tokens = tokens,
      .d_head = d_head,
      .stride = stride,
      .multipliers = multipliers,
      .scores = scores,
      .powers = powers,
      .queries = queries,
      .keys = queries + pairs * d_head,
      .values = values,
      .sums = (int32_t *)(values + 2 * tokens),
  };
  return block;
}

/* Pairs of elements 0 and 2, 1 and 3 of every four, words `step` apart.
 * row: int8 [d_head]; out: words [d_head / 2] */
static void widen_row(const int8_t *row, size_t d_head, uint32_t *out, size_t step) {
  const int8_t *const end = row + d_head;
  do {
    const uint32_t a = quads_load_word(row), b = quads_load_word(row + 4);
    out[0] = quads_sxtb16(a);
    out[step] = quads_sxtb16_odd(a);
    out[2 * step] = quads_sxtb16(b);
    out[3 * step] = quads_sxtb16_odd(b);
    row += 8;
    out += 4 * step;
  } while (row != end);
}

/* Keys u .. u + 3. */
static void widen_keys(const block_t *block, const int8_t *key, size_t u) {
  const size_t last = block->n_tokens - 1;
  const size_t d = block->d_head;
  const int8_t *k0 = key + quads_min(u, last) * d;
  const int8_t *k1 = key + quads_min(u + 1, last) * d;
  const int8_t *k2 = key + quads_min(u + 2, last) * d;
  const int8_t *k3 = key + quads_min(u + 3, last) * d;
  const int8_t *const end = k0 + d;
  uint32_t *out = block->keys;
  do {
    const uint32_t a = quads_load_word(k0), b = quads_load_word(k1);
    const uint32_t c = quads_load_word(k2), e = quads_load_word(k3);
    out[0] = quads_sxtb16(a);
    out[1] = quads_sxtb16(b);
    out[2] = quads_sxtb16(c);
    out[3] = quads_sxtb16(e);
    out[4] = quads_sxtb16_odd(a);
    out[5] = quads_sxtb16_odd(b);
    out[6] = quads_sxtb16_odd(c);
    out[7] = quads_sxtb16_odd(e);
    k0 += 4;
    k1 += 4;
    k2 += 4;
    k3 += 4;
    out += 8;
  } while (k0 != end);
}

/* A pair of tokens, a and b, of four channels. */
static inline void widen_token_pair(uint32_t a, uint32_t b, uint32_t *out) {
  const uint32_t low = quads_low_halves(a, b), high = quads_high_halves(a, b);
  out[0] = quads_sxtb16(low);
  out[1] = quads_sxtb16_odd(low);
  out[2] = quads_sxtb16(high);
  out[3] = quads_sxtb16_odd(high);
}

/* Channels i .. i + 3 of all values; value points at the first. */
static void widen_values(const block_t *block, const int8_t *value) {
  const size_t d = block->d_head;
  uint32_t *out = block->values;
  for (size_t n = block->n_tokens / 2; n > 0; n--) {
    widen_token_pair(quads_load_word(value), quads_load_word(value + d), out);
    value += 2 * d;
    out += 4;
  }
  if (block->n_tokens % 2) {
    widen_token_pair(quads_load_word(value), 0, out);
    out += 4;
  }
  memset(out, 0, (size_t)((const uint8_t *)(block->values + 2 * block->tokens) - (uint8_t *)out));
}

/* The power of a score; `top` is the greatest score << 4. From z = 14 * 64 on every power is zero,
 * so that saturating z to 1023 changes none. */
static inline uint32_t power(int32_t top, int32_t score, int32_t multiplier) {
  uint32_t z = (uint32_t)quads_smmulr(top - quads_shift_left(score, 4), multiplier);
  __asm__("usat %0, #10, %0" : "+r"(z));
  return (uint32_t)exp_table[z % QUADS_EXP_STEPS] >> (z / QUADS_EXP_STEPS);
}

/* Greatest scores of a pair of queries. */
static void find_tops(const int32_t *scores, size_t tokens, int32_t tops[2]) {
  int32_t top0 = scores[0], top1 = scores[4];
  for (const int32_t *const end = scores + 2 * tokens; scores != end; scores += 8) {
    for (size_t i = 0; i < 4; i++) {
      top0 = scores[i] > top0 ? scores[i] : top0;
      top1 = scores[4 + i] > top1 ? scores[4 + i] : top1;
    }
  }
  tops[0] = top0;
  tops[1] = top1;
}

/* The value multiplier over a sum of powers. */
static int32_t over_sum(int32_t value_multiplier, uint32_t sum) {
  const uint32_t n = 32 - quads_bit_length(sum);
  const uint32_t reciprocal = UINT32_MAX / ((sum << n) >> 16); /* 2^16 <= r < 2^17 */
  return (int32_t)(((uint64_t)(uint32_t)value_multiplier * reciprocal) >> (28 - n));
}

#define ONES 0x00010001u

/* Powers of a pair of queries; each group of four tokens is read before its place is written. */
static void soften(const block_t *block, size_t pair, int32_t score_multiplier,
                   int32_t value_multiplier) {
  const int32_t *s = block->scores + 2 * pair * block->tokens;
  const int32_t *const end = s + 2 * block->tokens;
  uint32_t *e = block->powers + pair * block->tokens;
  int32_t tops[2], sum0 = 0, sum1 = 0; /* 2^13 <= sum < 2^24 */

  find_tops(s, block->tokens, tops);
  const int32_t top0 = quads_shift_left(tops[0], 4), top1 = quads_shift_left(tops[1], 4);
  for (; s != end; s += 8, e += 4) {
    const uint32_t a = quads_low_halves(power(top0, s[0], score_multiplier),
                                        power(top0, s[1], score_multiplier));
    const uint32_t b = quads_low_halves(power(top0, s[2], score_multiplier),
                                        power(top0, s[3], score_multiplier));
    const uint32_t c = quads_low_halves(power(top1, s[4], score_multiplier),
                                        power(top1, s[5], score_multiplier));
    const uint32_t d = quads_low_halves(power(top1, s[6], score_multiplier),
                                        power(top1, s[7], score_multiplier));
    e[0] = a;
    e[1] = c;
    e[2] = b;
    e[3] = d;
    sum0 = quads_smlad(b, ONES, quads_smlad(a, ONES, sum0));
    sum1 = quads_smlad(d, ONES, quads_smlad(c, ONES, sum1));
  }
  /* the repeated last key does not count */
  const int32_t surplus = (int32_t)(block->tokens - block->n_tokens);
  sum0 -= surplus * (int32_t)(e[-2] >> 16);
  sum1 -= surplus * (int32_t)(e[-1] >> 16);
  block->multipliers[2 * pair] = over_sum(value_multiplier, (uint32_t)sum0);
  block->multipliers[2 * pair + 1] = over_sum(value_multiplier, (uint32_t)sum1);
}

/* Four channels of `rows` outputs, stride apart. */
static void requantize(const block_t *block, size_t rows, int8_t *out) {
  const int32_t *s = block->sums;
  for (size_t t = 0; t < rows; t++) {
    const int32_t m = block->multipliers[t];
    out[0] = quads_sat8(quads_smmulr(s[0], m));
    out[1] = quads_sat8(quads_smmulr(s[1], m));
    out[2] = quads_sat8(quads_smmulr(s[2], m));
    out[3] = quads_sat8(quads_smmulr(s[3], m));
    s += 4;
    out += block->stride;
  }
}

void quads_attention_head(int8_t *query, size_t stride, const int8_t *key, const int8_t *value,
                          size_t n_tokens, size_t d_head, int32_t score_multiplier,
                          int32_t value_multiplier, void *workspace) {
  const size_t block_pairs = stride < 2 * QUERY_SHARE ? 1 : stride / (2 * QUERY_SHARE);

  for (size_t t = 0; t < n_tokens; t += 2 * block_pairs) {
    const size_t rows = quads_min(2 * block_pairs, n_tokens - t);
    const size_t pairs = (rows + 1) / 2;
    const block_t block = bind_workspace(n_tokens, d_head, stride, pairs, workspace);
    int8_t *first = query + t * stride;

    for (size_t row = 0; row < 2 * pairs; row++) { /* an odd last row is its own neighbour */
      widen_row(first + quads_min(row, rows - 1) * stride, d_head,
                block.queries + row / 2 * d_head + row % 2, 2);
    }
    for (size_t u = 0; u < block.tokens; u += 4) {
      widen_keys(&block, key, u);
      quads_pair_products((const int16_t *)block.queries, pairs, (const int16_t *)block.keys,
                          d_head / 2, block.scores + 2 * u, 8 * block.tokens);
    }
    for (size_t pair = 0; pair < pairs; pair++) {
      soften(&block, pair, score_multiplier, value_multiplier);
    }
    for (size_t i = 0; i < d_head; i += 4) {
      widen_values(&block, value + i);
      quads_pair_products((const int16_t *)block.powers, pairs, (const int16_t *)block.values,
                          block.tokens / 2, block.sums, 8 * sizeof block.sums[0]);
      requantize(&block, rows, first + i);
    }
  }
}

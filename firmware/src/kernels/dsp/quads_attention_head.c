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
#include <string.h>

#include "kernels/dsp/quads_dsp.h"
#include "kernels/quads_kernels.h"
#include "quads_math.h"

#define QUERY_SHARE 16 /* of d_model: the size of a block; planner.py knows it too */

/* round(8192 * 2^(-i / 64)) */
const int16_t quads_exp_table[QUADS_EXP_STEPS] = QUADS_EXP_TABLE;

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

/* Elements a and b of a row as a word. */
static inline uint32_t pair(const int8_t *row, size_t a, size_t b) {
  return ((uint32_t)row[a] & 0xFFFFu) | (uint32_t)row[b] << 16;
}

/* Queries t and t + 1 of the block, in the order of the keys.
 * q0, q1: int8 [d_head]; out: words [d_head / 2][2] */
static void widen_queries(const int8_t *q0, const int8_t *q1, size_t d_head, uint32_t *out) {
  for (size_t i = 0; i < d_head; i += 4, out += 4) {
    out[0] = pair(q0, i, i + 2);
    out[1] = pair(q1, i, i + 2);
    out[2] = pair(q0, i + 1, i + 3);
    out[3] = pair(q1, i + 1, i + 3);
  }
}

/* Keys u .. u + 3. */
static void widen_keys(const block_t *block, const int8_t *key, size_t u) {
  const size_t last = block->n_tokens - 1;
  const size_t d = block->d_head;
  quads_widen_keys(key + quads_min(u, last) * d, key + quads_min(u + 1, last) * d,
                   key + quads_min(u + 2, last) * d, key + quads_min(u + 3, last) * d, d,
                   block->keys);
}

/* Channels i .. i + 3 of all values; value points at the first. */
static void widen_values(const block_t *block, const int8_t *value) {
  const size_t d = block->d_head;
  const size_t fours = block->n_tokens / 4;
  uint32_t *out = block->values + 8 * fours;

  quads_widen_values(value, d, fours, block->values);
  value += 4 * fours * d;
  memset(out, 0, (2 * block->tokens - 8 * fours) * sizeof out[0]);
  for (size_t u = 0; u < block->n_tokens % 4; u++, value += d) {
    uint32_t *words = out + u / 2 * 4;
    for (size_t i = 0; i < 4; i++) {
      words[i] |= ((uint32_t)value[i] & 0xFFFFu) << u % 2 * 16;
    }
  }
}

/* The value multiplier over a sum of powers. */
static int32_t over_sum(int32_t value_multiplier, uint32_t sum) {
  const uint32_t n = (uint32_t)__builtin_clz(sum);
  const uint32_t reciprocal = UINT32_MAX / ((sum << n) >> 16); /* 2^16 <= r < 2^17 */
  return (int32_t)(((uint64_t)(uint32_t)value_multiplier * reciprocal) >> (28 - n));
}

/* Powers of a pair of queries, and what their values are to be multiplied with. */
static void soften(const block_t *block, size_t pair, int32_t score_multiplier,
                   int32_t value_multiplier) {
  uint32_t *powers = block->powers + pair * block->tokens;
  const uint32_t *last = powers + block->tokens - 2;
  const uint32_t surplus = (uint32_t)(block->tokens - block->n_tokens);
  uint32_t sums[2]; /* 2^13 <= sum < 2^24 */

  quads_soften_pair(block->scores + 2 * pair * block->tokens, block->tokens, score_multiplier,
                    powers, sums);
  for (size_t i = 0; i < 2; i++) { /* the repeated last key does not count */
    sums[i] -= surplus * (last[i] >> 16);
    block->multipliers[2 * pair + i] = over_sum(value_multiplier, sums[i]);
  }
}

/* Four channels of `rows` outputs, stride apart. */
static void requantize(const block_t *block, size_t rows, int8_t *out) {
  const int32_t *s = block->sums;
  for (size_t t = 0; t < rows; t++) {
    const int32_t m = block->multipliers[t];
    out[0] = quads_sat8(quads_requantize(s[0], m));
    out[1] = quads_sat8(quads_requantize(s[1], m));
    out[2] = quads_sat8(quads_requantize(s[2], m));
    out[3] = quads_sat8(quads_requantize(s[3], m));
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

    for (size_t row = 0; row < rows; row += 2) { /* an odd last one is its own neighbour */
      const int8_t *q0 = first + row * stride;
      widen_queries(q0, row + 1 < rows ? q0 + stride : q0, d_head,
                    block.queries + row / 2 * d_head);
    }
    for (size_t u = 0; u < block.tokens; u += 4) {
      widen_keys(&block, key, u);
      quads_pair_products(block.queries, pairs, block.keys, d_head / 2, block.scores + 2 * u,
                          8 * block.tokens);
    }
    for (size_t pair = 0; pair < pairs; pair++) {
      soften(&block, pair, score_multiplier, value_multiplier);
    }
    for (size_t i = 0; i < d_head; i += 4) {
      widen_values(&block, value + i);
      quads_pair_products(block.powers, pairs, block.values, block.tokens / 2, block.sums,
                          8 * sizeof block.sums[0]);
      requantize(&block, rows, first + i);
    }
  }
}

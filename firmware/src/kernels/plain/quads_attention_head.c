#include "kernels/plain/quads_plain.h"

/* One query at a time: a row of scores, int32 [n_tokens], then of their exponentials, int16
 * [n_tokens], which begin on a multiple of 8. */
void quads_attention_head(int8_t *query, size_t stride, const int8_t *key, const int8_t *value,
                          size_t n_tokens, size_t d_head, int32_t score_multiplier,
                          int32_t value_multiplier, void *workspace) {
  int32_t *scores = workspace;
  int16_t *exps = (int16_t *)(void *)(scores + (n_tokens + 1) / 2 * 2);

  for (size_t t = 0; t < n_tokens; t++, query += stride) {
    quads_attention_scores(query, key, n_tokens, d_head, scores);
    const uint32_t sum = quads_softmax_exps(scores, n_tokens, score_multiplier, exps);
    quads_attention_values(exps, sum, value, n_tokens, d_head, value_multiplier, query);
  }
}

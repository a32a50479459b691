#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

void quads_attention_pool(const int8_t *query, const int8_t *x, size_t n_tokens, size_t d_model,
                          int32_t score_multiplier, int32_t value_multiplier, int16_t *pooled,
                          void *workspace) {
  int32_t *scores = workspace;
  int16_t *exps = (int16_t *)(void *)(scores + (n_tokens + 1) / 2 * 2);

  quads_attention_scores(query, x, n_tokens, d_model, scores);
  const uint32_t sum = quads_softmax_exps(scores, n_tokens, score_multiplier, exps);
  const int32_t m = quads_softmax_multiplier(sum, value_multiplier);
  for (size_t i = 0; i < d_model; i++) {
    const int8_t *value = x + i;
    int32_t a = 0; /* |a| <= 2047 * 8192 * 128 < 2^31 */

    for (size_t u = 0; u < n_tokens; u++, value += d_model) {
      a += exps[u] * *value;
    }
    pooled[i] = quads_sat_pooled(quads_requantize(a, m));
  }
}

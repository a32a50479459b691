#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

/* round(8192 * 2^(-i / 64)) */
static const int16_t exp_table[QUADS_EXP_STEPS] = QUADS_EXP_TABLE;

uint32_t quads_softmax_exps(const int32_t *scores, size_t n_tokens, int32_t multiplier,
                            int16_t *exps) {
  int32_t max = scores[0];
  for (size_t u = 1; u < n_tokens; u++) {
    if (scores[u] > max) {
      max = scores[u];
    }
  }

  uint32_t sum = 0; /* 2^13 <= sum < 2^24 */
  for (size_t u = 0; u < n_tokens; u++) {
    const uint32_t z = (uint32_t)quads_requantize((max - scores[u]) << 4, multiplier);
    const uint32_t halvings = z / QUADS_EXP_STEPS;
    const int32_t e = halvings > 13 ? 0 : exp_table[z % QUADS_EXP_STEPS] >> halvings;
    exps[u] = (int16_t)e;
    sum += (uint32_t)e;
  }
  return sum;
}

#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

void quads_attention_values(const int16_t *exps, uint32_t sum, const int8_t *value, size_t n_tokens,
                            size_t d_head, int32_t multiplier, int8_t *out) {
  const int32_t m = quads_softmax_multiplier(sum, multiplier);

  for (size_t i = 0; i < d_head; i += 8) { /* d_head is a multiple of 8 */
    const int8_t *v = value + i;
    /* |a| <= 2047 * 8192 * 128 < 2^31 */
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0, a5 = 0, a6 = 0, a7 = 0;

    for (size_t u = 0; u < n_tokens; u++) {
      const int32_t e = exps[u];
      a0 += e * v[0];
      a1 += e * v[1];
      a2 += e * v[2];
      a3 += e * v[3];
      a4 += e * v[4];
      a5 += e * v[5];
      a6 += e * v[6];
      a7 += e * v[7];
      v += d_head;
    }
    out[i] = quads_sat8(quads_requantize(a0, m));
    out[i + 1] = quads_sat8(quads_requantize(a1, m));
    out[i + 2] = quads_sat8(quads_requantize(a2, m));
    out[i + 3] = quads_sat8(quads_requantize(a3, m));
    out[i + 4] = quads_sat8(quads_requantize(a4, m));
    out[i + 5] = quads_sat8(quads_requantize(a5, m));
    out[i + 6] = quads_sat8(quads_requantize(a6, m));
    out[i + 7] = quads_sat8(quads_requantize(a7, m));
  }
}

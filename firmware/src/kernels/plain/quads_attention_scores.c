#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

#define STEP(i)                 \
  do {                          \
    const int32_t q = query[i]; \
    s0 += q * k0[i];            \
    s1 += q * k1[i];            \
    s2 += q * k2[i];            \
    s3 += q * k3[i];            \
  } while (0)

/* Four keys at a time; past the end the last one is repeated. */
void quads_attention_scores(const int8_t *query, const int8_t *key, size_t n_tokens, size_t d_head,
                            int32_t *scores) {
  for (size_t u = 0; u < n_tokens; u += 4) {
    const size_t last = quads_min(n_tokens - u, 4) - 1;
    const int8_t *k0 = key + u * d_head;
    const int8_t *k1 = k0 + quads_min(1, last) * d_head;
    const int8_t *k2 = k0 + quads_min(2, last) * d_head;
    const int8_t *k3 = k0 + last * d_head;
    const int8_t *const end = query + d_head;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0; /* |s| <= d_head * 2^14 */

    do { /* d_head is a multiple of 8 */
      STEP(0);
      STEP(1);
      STEP(2);
      STEP(3);
      STEP(4);
      STEP(5);
      STEP(6);
      STEP(7);
      query += 8;
      k0 += 8;
      k1 += 8;
      k2 += 8;
      k3 += 8;
    } while (query != end);
    query -= d_head;

    scores[u] = s0;
    scores[u + quads_min(1, last)] = s1;
    scores[u + quads_min(2, last)] = s2;
    scores[u + last] = s3;
  }
}

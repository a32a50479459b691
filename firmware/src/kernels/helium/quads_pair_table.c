#include "quads_helium.h"

/* Bits above the pair belong to another channel. */
void quads_pair_table(const quads_linear_t *w, quads_pairs_t *pairs) {
  if (w->bits == 8) {
    return;
  }
  const size_t indices = (size_t)1 << w->bits;
  const uint8_t *const centroids = (const uint8_t *)w->centroids;
  uint16_t *pair = pairs->pair;

  for (size_t high = 0; high < QUADS_PAIRS / indices; high++) {
    const uint16_t shifted = (uint16_t)(centroids[high % indices] << 8);
    for (size_t low = 0; low < indices; low += 8) {
      const mve_pred16_t p = vctp16q((uint32_t)(indices - low));
      const uint16x8_t first = vldrbq_z_u16(centroids + low, p);
      vstrhq_p_u16(pair + low, vaddq_n_u16(first, shifted), p);
    }
    pair += indices;
  }
}

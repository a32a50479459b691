#include "kernels/dsp/quads_dsp_linear.h"

/* Pairs of 2-bit indices take 4 bits, of 3-bit ones 6, of 4-bit ones a byte; 8-bit ones are looked
 * up singly. The lower index is the lower half. */
void quads_dsp_pairs(const quads_linear_t *w, uint32_t *table) {
  const size_t n = (size_t)1 << w->bits;

  if (w->bits == 4) {
    quads_dsp_pairs_4(w->centroids, table);
    return;
  }
  if (w->bits == 8) {
    return;
  }
  for (size_t low = 0; low < n; low++) {
    const int32_t half = w->centroids[low];
    uint32_t *entry = table + low;
    for (size_t high = 0; high < n; high += 4) {
      const int8_t *c = w->centroids + high;
      entry[0] = quads_dsp_pair(half, c[0]);
      entry[n] = quads_dsp_pair(half, c[1]);
      entry[2 * n] = quads_dsp_pair(half, c[2]);
      entry[3 * n] = quads_dsp_pair(half, c[3]);
      entry += 4 * n;
    }
  }
}

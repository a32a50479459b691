#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

void quads_mean_pool(const int32_t *sums, size_t d_model, int32_t multiplier, int16_t *pooled) {
  for (size_t i = 0; i < d_model; i++) {
    pooled[i] = quads_sat_pooled(quads_requantize(quads_shift_left(sums[i], 8), multiplier));
  }
}

#include "kernels/quads_kernels.h"
#include "quads_math.h"

/* Ascending order makes the in-place use right: residual[i] ends at byte 2i + 1, x[i] is byte
 * n + i of the same memory, and i < n. */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual) {
  for (size_t i = 0; i < n; i++) {
    residual[i] = quads_sat16(gelu[x[i] + 128] + multiplier * positions[i]);
  }
}

#include "kernels/quads_kernels.h"
#include "quads_math.h"

/* Ascending order makes the in-place use right: residual[i] ends at byte 2i + 1, x[i] is byte
 * n + i of the same memory, and i < n. */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual) {
  const int16_t *const middle = gelu + 128;
  for (size_t i = 0; i < n; i += 4) {
    residual[0] = quads_sat16(middle[x[0]] + multiplier * positions[0]);
    residual[1] = quads_sat16(middle[x[1]] + multiplier * positions[1]);
    residual[2] = quads_sat16(middle[x[2]] + multiplier * positions[2]);
    residual[3] = quads_sat16(middle[x[3]] + multiplier * positions[3]);
    x += 4;
    positions += 4;
    residual += 4;
  }
}

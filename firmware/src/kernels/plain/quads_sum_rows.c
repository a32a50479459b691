#include "kernels/quads_kernels.h"

void quads_sum_rows(const int8_t *y, size_t rows, size_t d_model, int32_t *sums) {
  for (size_t t = 0; t < rows; t++) {
    for (size_t i = 0; i < d_model; i++) {
      sums[i] += *y++; /* |sum| <= 2047 * 128 */
    }
  }
}

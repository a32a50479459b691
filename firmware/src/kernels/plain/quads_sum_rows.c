#include "kernels/quads_kernels.h"

void quads_sum_rows(const int8_t *y, size_t rows, size_t d_model, int32_t *sums) {
  for (size_t i = 0; i < d_model; i += 4, y += 4, sums += 4) {
    const int8_t *column = y;
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3]; /* |sum| <= 2047 * 128 */

    for (size_t t = 0; t < rows; t++, column += d_model) {
      s0 += column[0];
      s1 += column[1];
      s2 += column[2];
      s3 += column[3];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
  }
}

#include "kernels/quads_kernels.h"
#include "quads_math.h"

/* floor(a / b), b > 0 */
static int32_t floor_divide(int32_t a, int32_t b) {
  return a / b - (a % b < 0);
}

static int32_t row_mean(const int16_t *x, size_t d_model) {
  const int32_t d = (int32_t)d_model;
  int32_t sum = 0; /* |sum| <= 1280 * 2^15 */
  for (size_t i = 0; i < d_model; i++) {
    sum += x[i];
  }
  return floor_divide(2 * sum + d, 2 * d);
}

void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y) {
  const int32_t half = (int32_t)(UINT32_C(1) << (norm->shift - 1));

  for (size_t t = 0; t < rows; t++, x += d_model, y += d_model) {
    const int32_t mean = row_mean(x, d_model);
    uint64_t squares = norm->epsilon; /* below 2^52 */
    for (size_t i = 0; i < d_model; i++) {
      const int32_t c = x[i] - mean;
      squares += (uint64_t)((int64_t)c * c);
    }

    /* normalize to 2^30 <= v < 2^32 by an even shift n, so that its root shifts by n / 2 */
    const uint32_t high = (uint32_t)(squares >> 32);
    const uint32_t length =
        high ? 32 + quads_bit_length(high) : quads_bit_length((uint32_t)squares);
    int32_t n = 32 - (int32_t)length;
    n -= n & 1;
    const uint32_t v = (uint32_t)(n >= 0 ? squares << n : squares >> -n);
    const int32_t inverse = (int32_t)((sqrt_d / quads_isqrt(v)) << 2);
    const uint32_t p = (uint32_t)(14 + n / 2);

    for (size_t i = 0; i < d_model; i++) {
      const int32_t c = x[i] - mean; /* |c| << p is below 2^30 */
      const int32_t h = quads_requantize(quads_shift_left(c, p), inverse);
      y[i] = quads_sat8((h * norm->gamma[i] + norm->beta[i] + half) >> norm->shift);
    }
  }
}

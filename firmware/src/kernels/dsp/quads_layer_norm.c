/* LayerNorm in two passes over a row: sum and sum of squares, whose centred form
 * sum c^2 = sum x^2 - mean (2 sum x - d mean) is exact in 64 bits, then the normalization. */
#include "kernels/dsp/quads_dsp.h"
#include "kernels/quads_kernels.h"
#include "quads_math.h"

/* floor(a / b), b > 0 */
static int32_t floor_divide(int32_t a, int32_t b) {
  return a / b - (a % b < 0);
}

/* floor(sqrt(v)) for 2^30 <= v: a line within 13 %, and Newton's steps to the root or one above. */
static uint32_t square_root(uint32_t v) {
  uint32_t root = (v >> 17) + 24576;
  root = (root + v / root) >> 1;
  root = (root + v / root) >> 1;
  root = (root + v / root) >> 1;
  return root - (v / root < root);
}

static quads_row_constants_t row_constants(const int16_t *x, size_t d_model,
                                           const quads_norm_t *norm, uint32_t sqrt_d) {
  const int32_t d = (int32_t)d_model;
  int32_t sum;                                                /* |sum| <= 1280 * 2^15 */
  const int64_t square = quads_row_moments(x, d_model, &sum); /* below 2^41 */
  const int32_t mean = floor_divide(2 * sum + d, 2 * d);
  const int64_t centred = square - (int64_t)mean * (2 * sum - d * mean);
  const uint64_t squares = (uint64_t)centred + norm->epsilon;

  /* normalize to 2^30 <= v < 2^32 by an even shift n, so that its root shifts by n / 2 */
  const uint32_t high = (uint32_t)(squares >> 32);
  int32_t n = high ? __builtin_clz(high) - 32 : __builtin_clz((uint32_t)squares);
  n -= n & 1;
  const uint32_t v = (uint32_t)(n >= 0 ? squares << n : squares >> -n);
  const uint32_t power = UINT32_C(1) << (14 + n / 2);
  const quads_row_constants_t constants = {
      .power = (int32_t)power,
      .offset = (int32_t)((uint32_t)-mean * power),
      .inverse = (int32_t)((sqrt_d / square_root(v)) << 2),
      .rounding = (int32_t)(UINT32_C(1) << (32 - norm->shift)),
  };
  return constants;
}

/* Shift 1, whose rounding multiplier is no int32. */
static void normalize_halves(const int16_t *x, size_t d_model, const quads_norm_t *norm,
                             const quads_row_constants_t *constants, int8_t *y) {
  for (size_t i = 0; i < d_model; i++) {
    const uint32_t c = (uint32_t)x[i] * (uint32_t)constants->power + (uint32_t)constants->offset;
    const int32_t h = quads_requantize((int32_t)c, constants->inverse);
    y[i] = quads_sat8((h * norm->gamma[i] + norm->beta[i] + 1) >> 1);
  }
}

void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y) {
  for (size_t t = 0; t < rows; t++, x += d_model, y += d_model) {
    const quads_row_constants_t constants = row_constants(x, d_model, norm, sqrt_d);
    if (norm->shift == 1) {
      normalize_halves(x, d_model, norm, &constants, y);
    } else {
      quads_normalize_row(x, norm->gamma, norm->beta, y, d_model, &constants);
    }
  }
}

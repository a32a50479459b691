#include "quads_helium.h"
#include "quads_math.h"

/* A row's mean and how to normalize it: h = RQ((x - mean) << shift, inverse). */
typedef struct {
  int32_t mean;
  uint32_t shift;
  int32_t inverse;
} row_t;

/* floor(a / b), b > 0 */
static int32_t floor_divide(int32_t a, int32_t b) {
  return a / b - (a % b < 0);
}

static row_t measure(const int16_t *x, size_t d_model, uint32_t epsilon, uint32_t sqrt_d) {
  const int32_t d = (int32_t)d_model;
  int32_t sum = 0;     /* |sum| <= 1280 * 2^15 */
  int64_t squares = 0; /* of x, then of x - mean: below 2^52 */
  row_t row;

  for (size_t i = 0; i < d_model; i += 8) {
    const int16x8_t v = vld1q_s16(x + i);
    sum = vaddvaq_s16(sum, v);
    squares = vmlaldavaq_s16(squares, v, v);
  }
  row.mean = floor_divide(2 * sum + d, 2 * d);
  /* sum (x - mean)^2 = sum x^2 - mean (2 sum x - d mean) */
  squares += (int64_t)epsilon - (int64_t)row.mean * (2 * (int64_t)sum - (int64_t)d * row.mean);

  /* normalize to 2^30 <= v < 2^32 by an even shift n, so that its root shifts by n / 2 */
  const uint32_t high = (uint32_t)((uint64_t)squares >> 32);
  const uint32_t length =
      high ? 32 + quads_bit_length(high) : quads_bit_length((uint32_t)squares);
  int32_t n = 32 - (int32_t)length;
  n -= n & 1;
  const uint32_t v = (uint32_t)(n >= 0 ? (uint64_t)squares << n : (uint64_t)squares >> -n);
  row.inverse = (int32_t)((sqrt_d / quads_isqrt(v)) << 2);
  row.shift = (uint32_t)(14 + n / 2);
  return row;
}

void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y) {
  for (size_t t = 0; t < rows; t++, x += d_model, y += d_model) {
    const row_t row = measure(x, d_model, norm->epsilon, sqrt_d);
    const int32x4_t one = vdupq_n_s32((int32_t)(UINT32_C(1) << row.shift));
    const int32_t offset = quads_shift_left(-row.mean, row.shift);
    const int32x4_t inverse = vdupq_n_s32(row.inverse);

    for (size_t i = 0; i < d_model; i += 4) {
      const int32x4_t c = vmlasq_n_s32(vldrhq_s32(x + i), one, offset); /* below 2^30 */
      const int32x4_t h = vmulq_s32(vrmulhq_s32(c, inverse), vldrhq_s32(norm->gamma + i));
      const int32x4_t sum = vaddq_s32(h, vld1q_s32(norm->beta + i));
      vstrbq_s32(y + i, quads_sat8_lanes(vrshlq_n_s32(sum, -(int32_t)norm->shift)));
    }
  }
}

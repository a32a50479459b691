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

/* floor(sqrt(v)), 2^30 <= v < 2^32: Newton's steps fall towards it from any greater start, here
 * the tangent at 2^32. */
static uint32_t root(uint32_t v) {
  uint32_t next = (v >> 17) + (UINT32_C(1) << 15);
  uint32_t found;
  do {
    found = next;
    next = (found + v / found) >> 1;
  } while (next < found);
  return found;
}

static uint32_t bit_length(uint64_t a) {
  return 64 - (uint32_t)__builtin_clzll(a); /* a > 0 */
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
  int32_t n = 32 - (int32_t)bit_length((uint64_t)squares); /* epsilon is at least 1 */
  n -= n & 1;
  const uint32_t v = (uint32_t)(n >= 0 ? (uint64_t)squares << n : (uint64_t)squares >> -n);
  row.inverse = (int32_t)((sqrt_d / root(v)) << 2);
  row.shift = (uint32_t)(14 + n / 2);
  return row;
}

void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y) {
  const int32_t shift = -(int32_t)norm->shift;

  for (size_t t = 0; t < rows; t++) {
    const row_t row = measure(x, d_model, norm->epsilon, sqrt_d);
    const int32x4_t one = vdupq_n_s32((int32_t)(UINT32_C(1) << row.shift));
    const int32_t offset = quads_shift_left(-row.mean, row.shift);
    const int32x4_t inverse = vdupq_n_s32(row.inverse);
    const int16_t *gamma = norm->gamma;
    const int32_t *beta = norm->beta;

    for (size_t vectors = d_model / 4; vectors > 0; vectors--) {
      const int32x4_t c = vmlasq_n_s32(vldrhq_s32(x), one, offset); /* below 2^30 */
      const int32x4_t h = vmulq_s32(vrmulhq_s32(c, inverse), vldrhq_s32(gamma));
      const int32x4_t sum = vrshlq_n_s32(vaddq_s32(h, vld1q_s32(beta)), shift);
      vstrbq_s32(y, quads_sat8_lanes(sum));
      x += 4;
      gamma += 4;
      beta += 4;
      y += 4;
    }
  }
}

/* The sum of squares comes from one pass: sum c^2 = sum x^2 - mean (2 sum x - d mean), all of it
 * exact in 64 bits. */
#include "../../quads_math.h"
#include "../quads_kernels.h"
#include "quads_dsp.h"

/* floor(a / b), b > 0 */
static int32_t floor_divide(int32_t a, int32_t b) {
  return a / b - (a % b < 0);
}

/* Constants of a row: y = sat8(RQ(RQ(x * power + offset, inverse) * gamma + beta, rounding)), where
 * x * power + offset is (x - mean) << p of docs/arithmetic.md, section 5. */
typedef struct {
  int32_t power, offset, inverse;
} row_t;

static row_t prepare(const int16_t *x, size_t d_model, uint32_t epsilon, uint32_t sqrt_d) {
  const int32_t d = (int32_t)d_model;
  int32_t sum = 0;    /* |sum| <= 1280 * 2^15 */
  int64_t square = 0; /* below 2^41 */
  for (const int16_t *const end = x + d_model; x != end; x += 8) {
    const uint32_t a = quads_load_word(x), b = quads_load_word(x + 2);
    const uint32_t c = quads_load_word(x + 4), e = quads_load_word(x + 6);
    sum = quads_smlad(a, QUADS_ONES, sum);
    square = quads_smlald(a, a, square);
    sum = quads_smlad(b, QUADS_ONES, sum);
    square = quads_smlald(b, b, square);
    sum = quads_smlad(c, QUADS_ONES, sum);
    square = quads_smlald(c, c, square);
    sum = quads_smlad(e, QUADS_ONES, sum);
    square = quads_smlald(e, e, square);
  }
  const int32_t mean = floor_divide(2 * sum + d, 2 * d);
  const uint64_t squares = (uint64_t)(square - (int64_t)mean * (2 * sum - d * mean)) + epsilon;

  /* normalize to 2^30 <= v < 2^32 by an even shift n, so that its root shifts by n / 2 */
  const uint32_t high = (uint32_t)(squares >> 32);
  int32_t n = high ? __builtin_clz(high) - 32 : __builtin_clz((uint32_t)squares);
  n -= n & 1;
  const uint32_t v = (uint32_t)(n >= 0 ? squares << n : squares >> -n);
  const int32_t power = (int32_t)(UINT32_C(1) << (14 + n / 2));
  const row_t row = {
      .power = power,
      .offset = -mean * power,
      .inverse = (int32_t)((sqrt_d / quads_isqrt(v)) << 2),
  };
  return row;
}

/* (v + 2^(shift - 1)) >> shift is RQ(v, 2^(32 - shift)); only at shift 1 that is no int32. */
static inline int8_t normalized(int32_t x, const row_t *row, int32_t gamma, int32_t beta,
                                int32_t rounding) {
  const int32_t h = quads_smmulr(x * row->power + row->offset, row->inverse);
  return quads_sat8(quads_smmulr(h * gamma + beta, rounding));
}

void quads_layer_norm(const int16_t *x, size_t rows, size_t d_model, const quads_norm_t *norm,
                      uint32_t sqrt_d, int8_t *y) {
  const int16_t *const gamma_end = norm->gamma + d_model;
  const int32_t rounding = (int32_t)(UINT32_C(1) << (32 - norm->shift));

  for (size_t t = 0; t < rows; t++) {
    const row_t row = prepare(x, d_model, norm->epsilon, sqrt_d);
    const int32_t *beta = norm->beta;
    for (const int16_t *gamma = norm->gamma; gamma != gamma_end; gamma += 4) {
      y[0] = normalized(x[0], &row, gamma[0], beta[0], rounding);
      y[1] = normalized(x[1], &row, gamma[1], beta[1], rounding);
      y[2] = normalized(x[2], &row, gamma[2], beta[2], rounding);
      y[3] = normalized(x[3], &row, gamma[3], beta[3], rounding);
      beta += 4;
      x += 4;
      y += 4;
    }
  }
}

/* Windowed power spectrum in integers: the transform of fft.c, for cores without floating point.
 *
 * The spectrum carries 7 bits below one unit of the PCM. The window sums to 200, so that no
 * intermediate value of a single spectrum exceeds 2^15 * 200 * 2^7 < 2^29.7; row 0 holds two
 * spectra and stays below 2^30.7.
 */
#include "frontend_tables.h"
#include "stages.h"

#if QUADS_FRONTEND_FIXED

#define ROWS 8
#define COLUMNS 25

typedef struct {
  int32_t re, im;
} complex_t;

static inline complex_t add(complex_t a, complex_t b) {
  return (complex_t){a.re + b.re, a.im + b.im};
}

static inline complex_t subtract(complex_t a, complex_t b) {
  return (complex_t){a.re - b.re, a.im - b.im};
}

/* a * factor >> 15 for |factor| < 2^15 */
static inline int32_t scale(int32_t a, int32_t factor) {
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__) /* no long multiplication */
  return (a >> 16) * factor * 2 + ((a & 0xFFFF) * factor >> 15);
#else
  return (int32_t)((int64_t)a * factor >> 15);
#endif
}

static inline complex_t scale_both(int32_t factor, complex_t a) {
  return (complex_t){scale(a.re, factor), scale(a.im, factor)};
}

/* a (cos + i sin) */
static inline complex_t turn(complex_t a, int32_t cos, int32_t sin) {
  return (complex_t){scale(a.re, cos) - scale(a.im, sin), scale(a.re, sin) + scale(a.im, cos)};
}

/* a - i b and a + i b */
static inline complex_t turn_right(complex_t a, complex_t b) {
  return (complex_t){a.re + b.im, a.im - b.re};
}

static inline complex_t turn_left(complex_t a, complex_t b) {
  return (complex_t){a.re - b.im, a.im + b.re};
}

/* Sum and difference of the windowed samples n1 and n1 + 8 of a column: one 2-point DFT. */
static inline complex_t sample_pair(const int16_t *ring, const uint16_t *order,
                                    const uint16_t *window, int n1) {
  const int32_t first = ring[order[n1]] * window[n1] >> 8;
  const int32_t second = ring[order[n1 + 8]] * window[n1 + 8] >> 8;
  return (complex_t){first + second, first - second};
}

/* Even k1 of a column: an 8-point DFT of the sums of its pairs. */
static inline void even_rows(const complex_t p[8], complex_t x[ROWS][COLUMNS], int n2) {
  const int32_t s0 = p[0].re + p[4].re, d0 = p[0].re - p[4].re;
  const int32_t s1 = p[1].re + p[5].re, d1 = p[1].re - p[5].re;
  const int32_t s2 = p[2].re + p[6].re, d2 = p[2].re - p[6].re;
  const int32_t s3 = p[3].re + p[7].re, d3 = p[3].re - p[7].re;
  const int32_t even = s0 + s2, odd = s1 + s3;
  const int32_t minus = scale(d1 - d3, QUADS_FRONTEND_COS_45);
  const int32_t plus = scale(d1 + d3, QUADS_FRONTEND_COS_45);
  x[0][n2] = (complex_t){even + odd, even - odd};
  x[1][n2] = (complex_t){s0 - s2, s1 - s3};
  x[2][n2] = (complex_t){d0 + minus, d2 + plus};
  x[3][n2] = (complex_t){d0 - minus, d2 - plus};
}

/* Odd k1: z_j = (difference_j + i difference_{j+4}) exp(i pi j / 8), then a 4-point DFT. */
static inline void odd_rows(const complex_t pairs[8], complex_t x[ROWS][COLUMNS], int n2) {
  const complex_t z0 = {pairs[0].im, pairs[4].im};
  const complex_t z1 =
      turn((complex_t){pairs[1].im, pairs[5].im}, QUADS_FRONTEND_COS_22, QUADS_FRONTEND_SIN_22);
  const complex_t z2 = scale_both(
      QUADS_FRONTEND_COS_45, (complex_t){pairs[2].im - pairs[6].im, pairs[6].im + pairs[2].im});
  const complex_t z3 =
      turn((complex_t){pairs[3].im, pairs[7].im}, QUADS_FRONTEND_SIN_22, QUADS_FRONTEND_COS_22);
  const complex_t p = add(z0, z2), q = subtract(z0, z2);
  const complex_t r = add(z1, z3), t = subtract(z1, z3);
  x[4][n2] = add(p, r);
  x[5][n2] = subtract(p, r);
  x[6][n2] = turn_right(q, t);
  x[7][n2] = turn_left(q, t);
}

/* Window the frame and transform its columns; order and rotation as in fft.c. */
static void transform_columns(const int16_t *ring, uint16_t oldest, complex_t x[ROWS][COLUMNS]) {
  const uint16_t *const order_end = quads_frontend_order + QUADS_WINDOW_SAMPLES;
  const uint16_t *order = quads_frontend_order + oldest; /* [25][16] */
  const uint16_t *window = quads_frontend_window;        /* [25][16] */
  for (int n2 = 0; n2 < COLUMNS; n2++) {
    complex_t pairs[8];
    for (int n1 = 0; n1 < 8; n1++) pairs[n1] = sample_pair(ring, order, window, n1);
    window += 16;
    order += 16;
    if (order == order_end) order = quads_frontend_order;
    even_rows(pairs, x, n2);
    odd_rows(pairs, x, n2);
  }
}

/* 5-point DFT of x[0], x[stride], ..., x[4 stride] into y, which may be x. */
static void dft5(const complex_t *x, int stride, complex_t y[5]) {
  const complex_t x0 = x[0], x1 = x[stride], x2 = x[2 * stride];
  const complex_t x3 = x[3 * stride], x4 = x[4 * stride];
  const complex_t a = add(x1, x4), b = subtract(x1, x4);
  const complex_t c = add(x2, x3), d = subtract(x2, x3);
  const complex_t total = add(a, c);
  const complex_t mean = {x0.re - (total.re >> 2), x0.im - (total.im >> 2)};
  const complex_t swing = scale_both(QUADS_FRONTEND_ROOT5_4, subtract(a, c));
  const complex_t p = add(mean, swing), q = subtract(mean, swing);
  const complex_t u =
      add(scale_both(QUADS_FRONTEND_SIN_72, b), scale_both(QUADS_FRONTEND_SIN_144, d));
  const complex_t v =
      subtract(scale_both(QUADS_FRONTEND_SIN_144, b), scale_both(QUADS_FRONTEND_SIN_72, d));
  y[0] = add(x0, total);
  y[1] = turn_right(p, u);
  y[2] = turn_right(q, v);
  y[3] = turn_left(q, v);
  y[4] = turn_left(p, u);
}

/* 25-point DFT of a row: 5-point DFTs with stride 5, the twiddles, 5-point DFTs of neighbours. */
static void transform_row(complex_t row[COLUMNS]) {
  const int16_t *w = quads_frontend_twiddles; /* [4][4][2] */
  for (int column = 0; column < 5; column++) {
    complex_t y[5];
    dft5(row + column, 5, y);
    row[column] = y[0];
    for (int k = 1; k < 5; k++) {
      row[column + 5 * k] = y[k];
      if (column > 0) {
        row[column + 5 * k] = turn(y[k], w[0], w[1]);
        w += 2;
      }
    }
  }
  for (int at = 0; at < COLUMNS; at += 5) dft5(row + at, 1, row + at);
}

/* Square what is left of re and im after dropping 5 bits at a time down to 15. */
static quads_power_t square(int32_t re, int32_t im) {
  uint32_t steps = 0;
  while (((re ^ (re >> 31)) | (im ^ (im >> 31))) >> 15) {
    re >>= 5;
    im >>= 5;
    steps++;
  }
  return (((uint32_t)(re * re) + (uint32_t)(im * im)) & ~3u) | steps;
}

void quads_frontend_power(const int16_t *ring, uint16_t oldest, quads_power_t *power) {
  complex_t x[ROWS][COLUMNS];
  transform_columns(ring, oldest, x);
  for (int row = 0; row < ROWS; row++) transform_row(x[row]);
  for (int row = 1; row < ROWS; row++) {
    const uint8_t *bins = quads_frontend_bins[row - 1];
    for (int at = 0; at < COLUMNS; at++) power[bins[at]] = square(x[row][at].re, x[row][at].im);
  }
  /* row 0 is the transform z of two real sequences: (z[k] +- conj z[-k]) / 2 */
  for (int k = 0; k < COLUMNS / 2 + 1; k++) {
    const uint8_t *place = quads_frontend_real_bins[k]; /* place, mirror, bin, bin */
    const complex_t a = x[0][place[0]], b = x[0][place[1]];
    power[place[2]] = square((a.re + b.re) >> 1, (a.im - b.im) >> 1);
    power[place[3]] = square((a.im + b.im) >> 1, (a.re - b.re) >> 1);
  }
}

#endif

/* Windowed power spectrum by a prime-factor transform, 400 = 16 x 25 real samples.
 *
 * Sample n = (25 n1 + 16 n2) mod 400 goes to row n1, column n2. Real 16-point DFTs down the columns
 * give the spectra of 16 sequences of 25; since row 16 - k1 is the conjugate of row k1, eight
 * complex rows carry them all. 25-point DFTs along the rows, as 5 x 5 with twiddles, then give X[k]
 * at row k mod 16, column k mod 25.
 */
#include "frontend_tables.h"
#include "stages.h"

#if !QUADS_FRONTEND_FIXED

#define ROWS 8
#define COLUMNS 25

typedef struct {
  float re, im;
} complex_t;

static inline complex_t add(complex_t a, complex_t b) {
  return (complex_t){a.re + b.re, a.im + b.im};
}

static inline complex_t subtract(complex_t a, complex_t b) {
  return (complex_t){a.re - b.re, a.im - b.im};
}

static inline complex_t scale(float factor, complex_t a) {
  return (complex_t){factor * a.re, factor * a.im};
}

static inline complex_t multiply(complex_t a, const float *w) {
  return (complex_t){a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

/* a - i b and a + i b */
static inline complex_t turn_right(complex_t a, complex_t b) {
  return (complex_t){a.re + b.im, a.im - b.re};
}

static inline complex_t turn_left(complex_t a, complex_t b) {
  return (complex_t){a.re - b.im, a.im + b.re};
}

/* Sum and difference of the windowed samples n1 and n1 + 8 of a column: one 2-point DFT. */
static inline complex_t sample_pair(const int16_t *ring, const uint16_t *order, const float *window,
                                    int n1) {
  const float first = (float)ring[order[n1]] * window[n1];
  const float second = (float)ring[order[n1 + 8]] * window[n1 + 8];
  return (complex_t){first + second, first - second};
}

/* Window the frame and transform its columns. Rows are stored in the order k1 = 0 and 8 (two real
 * sequences as one complex), 12, 14, 6, 15, 7, 3, 11: the member of each conjugate pair that needs
 * no negation. A frame that starts at ring[16 j] is the same matrix with its columns rotated by j,
 * hence no shifting: the order of samples is read from row j on. */
static void transform_columns(const int16_t *ring, uint16_t oldest, complex_t x[ROWS][COLUMNS]) {
  const float c22 = QUADS_FRONTEND_COS_22;
  const float s22 = QUADS_FRONTEND_SIN_22;
  const float c45 = QUADS_FRONTEND_COS_45;
  const uint16_t *const order_end = quads_frontend_order + QUADS_WINDOW_SAMPLES;
  const uint16_t *order = quads_frontend_order + oldest; /* [25][16] */
  const float *window = quads_frontend_window;           /* [25][16] */
  for (int n2 = 0; n2 < COLUMNS; n2++) {
    const complex_t p0 = sample_pair(ring, order, window, 0);
    const complex_t p1 = sample_pair(ring, order, window, 1);
    const complex_t p2 = sample_pair(ring, order, window, 2);
    const complex_t p3 = sample_pair(ring, order, window, 3);
    const complex_t p4 = sample_pair(ring, order, window, 4);
    const complex_t p5 = sample_pair(ring, order, window, 5);
    const complex_t p6 = sample_pair(ring, order, window, 6);
    const complex_t p7 = sample_pair(ring, order, window, 7);
    window += 16;
    order += 16;
    if (order == order_end) order = quads_frontend_order;

    /* Even k1: an 8-point DFT of the sums. */
    const float s0 = p0.re + p4.re, d0 = p0.re - p4.re;
    const float s1 = p1.re + p5.re, d1 = p1.re - p5.re;
    const float s2 = p2.re + p6.re, d2 = p2.re - p6.re;
    const float s3 = p3.re + p7.re, d3 = p3.re - p7.re;
    const float even = s0 + s2, odd = s1 + s3;
    x[0][n2] = (complex_t){even + odd, even - odd};
    x[1][n2] = (complex_t){s0 - s2, s1 - s3};
    const float minus = c45 * (d1 - d3), plus = c45 * (d1 + d3);
    x[2][n2] = (complex_t){d0 + minus, d2 + plus};
    x[3][n2] = (complex_t){d0 - minus, d2 - plus};

    /* Odd k1: z_j = (difference_j + i difference_{j+4}) exp(i pi j / 8), then a 4-point DFT. */
    const complex_t z0 = {p0.im, p4.im};
    const complex_t z1 = {p1.im * c22 - p5.im * s22, p5.im * c22 + p1.im * s22};
    const complex_t z2 = {c45 * (p2.im - p6.im), c45 * (p6.im + p2.im)};
    const complex_t z3 = {p3.im * s22 - p7.im * c22, p7.im * s22 + p3.im * c22};
    const complex_t p = add(z0, z2), q = subtract(z0, z2);
    const complex_t r = add(z1, z3), t = subtract(z1, z3);
    x[4][n2] = add(p, r);
    x[5][n2] = subtract(p, r);
    x[6][n2] = turn_right(q, t);
    x[7][n2] = turn_left(q, t);
  }
}

/* 5-point DFT of x[0], x[stride], ..., x[4 stride] into y, which may be x (the cosines of 72 and
 * 144 degrees are -1/4 +- sqrt(5)/4). */
static inline void dft5(const complex_t *x, int stride, complex_t y[5]) {
  const complex_t x0 = x[0], x1 = x[stride], x2 = x[2 * stride];
  const complex_t x3 = x[3 * stride], x4 = x[4 * stride];
  const complex_t a = add(x1, x4), b = subtract(x1, x4);
  const complex_t c = add(x2, x3), d = subtract(x2, x3);
  const complex_t total = add(a, c);
  const complex_t mean = subtract(x0, scale(0.25f, total));
  const complex_t swing = scale(QUADS_FRONTEND_ROOT5_4, subtract(a, c));
  const complex_t p = add(mean, swing), q = subtract(mean, swing);
  const complex_t u = add(scale(QUADS_FRONTEND_SIN_72, b), scale(QUADS_FRONTEND_SIN_144, d));
  const complex_t v = subtract(scale(QUADS_FRONTEND_SIN_144, b), scale(QUADS_FRONTEND_SIN_72, d));
  y[0] = add(x0, total);
  y[1] = turn_right(p, u);
  y[2] = turn_right(q, v);
  y[3] = turn_left(q, v);
  y[4] = turn_left(p, u);
}

/* First half of a row's 25-point DFT: 5-point DFTs with stride 5 and the twiddles. */
static void transform_row(complex_t row[COLUMNS]) {
  const float *w = quads_frontend_twiddles; /* [4][4][2] */
  for (int column = 0; column < 5; column++) {
    complex_t y[5];
    dft5(row + column, 5, y);
    row[column] = y[0];
    if (column == 0) {
      row[5] = y[1];
      row[10] = y[2];
      row[15] = y[3];
      row[20] = y[4];
    } else {
      row[column + 5] = multiply(y[1], w);
      row[column + 10] = multiply(y[2], w + 2);
      row[column + 15] = multiply(y[3], w + 4);
      row[column + 20] = multiply(y[4], w + 6);
      w += 8;
    }
  }
}

static inline float squared_magnitude(float re, float im) {
  return re * re + im * im;
}

/* Second half for the complex rows: five neighbours each, squared and put in their bins. */
static void complex_row_power(const complex_t row[COLUMNS], const uint8_t *bins,
                              quads_power_t *power) {
  for (int at = 0; at < COLUMNS; at += 5) {
    complex_t y[5];
    dft5(row + at, 1, y);
    power[bins[at]] = squared_magnitude(y[0].re, y[0].im);
    power[bins[at + 1]] = squared_magnitude(y[1].re, y[1].im);
    power[bins[at + 2]] = squared_magnitude(y[2].re, y[2].im);
    power[bins[at + 3]] = squared_magnitude(y[3].re, y[3].im);
    power[bins[at + 4]] = squared_magnitude(y[4].re, y[4].im);
  }
}

/* Second half for row 0, the transform z of two real sequences: (z[k] +- conj z[-k]) / 2. */
static void real_rows_power(complex_t row[COLUMNS], quads_power_t *power) {
  for (int at = 0; at < COLUMNS; at += 5) {
    dft5(row + at, 1, row + at);
  }
  for (int k = 0; k < COLUMNS / 2 + 1; k++) {
    const uint8_t *place = quads_frontend_real_bins[k]; /* place, mirror, bin, bin */
    const complex_t a = row[place[0]], b = row[place[1]];
    power[place[2]] = 0.25f * squared_magnitude(a.re + b.re, a.im - b.im);
    power[place[3]] = 0.25f * squared_magnitude(a.im + b.im, a.re - b.re);
  }
}

void quads_frontend_power(const int16_t *ring, uint16_t oldest, quads_power_t *power) {
  complex_t x[ROWS][COLUMNS];
  transform_columns(ring, oldest, x);
  for (int row = 0; row < ROWS; row++) transform_row(x[row]);
  real_rows_power(x[0], power);
  for (int row = 1; row < ROWS; row++) {
    complex_row_power(x[row], quads_frontend_bins[row - 1], power);
  }
}

#endif

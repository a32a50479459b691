#include "quads_helium.h"
#include "quads_math.h"

/* Two channels of four rows; a lane of `residual` holds both channels of a row. */
static inline int32x4_t sum_pair(const int32_t *sums, int32x4_t m0, int32x4_t m1,
                                 int32x4_t residual) {
  const int16x8_t old = vreinterpretq_s16_s32(residual);
  const int32x4_t a = vrmulhq_s32(vld1q_s32(sums), m0); /* |a|, |b| <= 2^30 */
  const int32x4_t b = vrmulhq_s32(vld1q_s32(sums + QUADS_SUM_ROWS), m1);
  return vreinterpretq_s32_s16(
      quads_narrow_s32(vaddq_s32(vmovlbq_s16(old), a), vaddq_s32(vmovltq_s16(old), b)));
}

/* Two channels of up to QUADS_SUM_ROWS rows. */
static void add_pair(const int32_t *sums, size_t rows, int32_t multiplier_0, int32_t multiplier_1,
                     int16_t *residual, size_t n_out) {
  const int32x4_t m0 = vdupq_n_s32(multiplier_0);
  const int32x4_t m1 = vdupq_n_s32(multiplier_1);
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 2), (uint32_t)n_out);
  int32_t *pairs = (int32_t *)(void *)residual; /* [rows][n_out / 2] */

  for (size_t groups = rows / 4; groups > 0; groups--) {
    const int32x4_t old = vldrwq_gather_offset_s32(pairs, offsets);
    vstrwq_scatter_offset_s32(pairs, offsets, sum_pair(sums, m0, m1, old));
    sums += 4;
    pairs += 2 * n_out;
  }
  if (rows % 4 != 0) {
    const mve_pred16_t p = vctp32q((uint32_t)(rows % 4));
    const int32x4_t old = vldrwq_gather_offset_z_s32(pairs, offsets, p);
    vstrwq_scatter_offset_p_s32(pairs, offsets, sum_pair(sums, m0, m1, old), p);
  }
}

static void many_rows(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                      const quads_linear_work_t *work) {
  const size_t step = w->per_channel;
  quads_dot_t dot = {.tile = work->tile,
                     .x_stride = w->n_in,
                     .length = w->n_in,
                     .sums = work->sums,
                     .sums_stride = QUADS_SUM_ROWS,
                     .n_pairs = QUADS_TILE_CHANNELS / 2};

  for (size_t n = 0; n < w->n_out; n += QUADS_TILE_CHANNELS) {
    const int32_t *const m = w->multiplier + n * step;
    quads_decode_tile(w, n, work->pairs, work->tile);
    dot.start = w->bias + n;
    for (size_t t = 0; t < rows; t += dot.rows) {
      int16_t *const y = residual + t * w->n_out + n;
      dot.x = x + t * w->n_in;
      dot.rows = quads_sum_rows_now(rows - t);
      quads_dot_2x4_s8(&dot);
      add_pair(dot.sums, dot.rows, m[0], m[step], y, w->n_out);
      add_pair(dot.sums + 2 * QUADS_SUM_ROWS, dot.rows, m[2 * step], m[3 * step], y + 2, w->n_out);
    }
  }
}

/* One row, QUADS_SUMS channels at a time. */
static void one_row(const int8_t *x, const quads_linear_t *w, int16_t *residual,
                    const quads_linear_work_t *work) {
  const int32_t *const multiplier = w->multiplier;
  const size_t per_channel = w->per_channel;

  for (size_t n = 0; n < w->n_out; n += QUADS_SUMS) {
    const size_t channels = quads_min(w->n_out - n, QUADS_SUMS);
    quads_dot_row(w, n, channels, x, work);
    for (size_t c = 0; c < channels; c += 4) {
      const int32x4_t m = quads_multipliers(multiplier, per_channel, n + c);
      const int32x4_t sum =
          vaddq_s32(vldrhq_s32(residual), vrmulhq_s32(vld1q_s32(work->sums + c), m));
      vstrhq_s32(residual, vreinterpretq_s32_s16(vqmovnbq_s32(vreinterpretq_s16_s32(sum), sum)));
      residual += 4;
    }
  }
}

void quads_linear_add_s16(const int8_t *x, size_t rows, const quads_linear_t *w, int16_t *residual,
                          void *workspace) {
  const quads_linear_work_t work = quads_linear_work(workspace);

  if (rows == 0) {
    return;
  }
  quads_pair_table(w, work.pairs);
  if (rows > QUADS_FEW_ROWS) {
    many_rows(x, rows, w, residual, &work);
    return;
  }
  for (size_t t = 0; t < rows; t++) {
    one_row(x + t * w->n_in, w, residual + t * w->n_out, &work);
  }
}

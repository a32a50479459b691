#include "quads_helium.h"
#include "quads_math.h"

/* Four rows of two channels, interleaved; the second one's sums follow the first one's. */
static inline int16x8_t requantize_pair(const int32_t *sums, int32x4_t m0, int32x4_t m1) {
  const int32x4_t c0 = vrmulhq_s32(vld1q_s32(sums), m0);
  const int32x4_t c1 = vrmulhq_s32(vld1q_s32(sums + 2 * QUADS_SUM_ROWS), m1);
  return quads_narrow_s32(c0, c1);
}

/* A tile's channels of up to QUADS_SUM_ROWS rows: four rows are the lanes of a vector, the channels
 * their bytes. */
static void put_tile(const int32_t *sums, size_t rows, const int32_t *multiplier, size_t step,
                     int8_t *y, size_t y_stride) {
  const int32x4_t m0 = vdupq_n_s32(multiplier[0]);
  const int32x4_t m1 = vdupq_n_s32(multiplier[step]);
  const int32x4_t m2 = vdupq_n_s32(multiplier[2 * step]);
  const int32x4_t m3 = vdupq_n_s32(multiplier[3 * step]);
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)y_stride);
  uint32_t *at = (uint32_t *)(void *)y;

  for (size_t groups = rows / 4; groups > 0; groups--) {
    const int16x8_t even = requantize_pair(sums, m0, m2);
    const int16x8_t odd = requantize_pair(sums + QUADS_SUM_ROWS, m1, m3);
    const int8x16_t tile = quads_narrow_s16(even, odd);
    vstrwq_scatter_offset_u32(at, offsets, vreinterpretq_u32_s8(tile));
    sums += 4;
    at += y_stride;
  }
  if (rows % 4 != 0) {
    const int16x8_t even = requantize_pair(sums, m0, m2);
    const int16x8_t odd = requantize_pair(sums + QUADS_SUM_ROWS, m1, m3);
    const int8x16_t tile = quads_narrow_s16(even, odd);
    vstrwq_scatter_offset_p_u32(at, offsets, vreinterpretq_u32_s8(tile),
                                vctp32q((uint32_t)(rows % 4)));
  }
}

static void many_rows(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                      size_t first_out, size_t n_out, int8_t *y, size_t y_stride,
                      const quads_linear_work_t *work) {
  const size_t step = w->per_channel;
  quads_dot_t dot = {.tile = work->tile,
                     .x_stride = x_stride,
                     .length = w->n_in,
                     .sums = work->sums,
                     .sums_stride = QUADS_SUM_ROWS,
                     .n_pairs = QUADS_TILE_CHANNELS / 2};

  for (size_t n = 0; n < n_out; n += QUADS_TILE_CHANNELS) {
    quads_decode_tile(w, first_out + n, work->pairs, work->tile);
    dot.start = w->bias + first_out + n;
    for (size_t t = 0; t < rows; t += dot.rows) {
      dot.x = x + t * x_stride;
      dot.rows = quads_sum_rows_now(rows - t);
      quads_dot_2x4_s8(&dot);
      put_tile(dot.sums, dot.rows, w->multiplier + (first_out + n) * step, step,
               y + t * y_stride + n, y_stride);
    }
  }
}

/* One row, QUADS_SUMS channels at a time. */
static void one_row(const int8_t *x, const quads_linear_t *w, size_t first_out, size_t n_out,
                    int8_t *y, const quads_linear_work_t *work) {
  const size_t end = first_out + n_out;
  const int32_t *const multiplier = w->multiplier;
  const size_t per_channel = w->per_channel;

  for (size_t n = first_out / QUADS_GROUP_ROWS * QUADS_GROUP_ROWS; n < end; n += QUADS_SUMS) {
    const size_t channels = quads_min(end - n, QUADS_SUMS);
    quads_dot_row(w, n, channels, x, work);
    for (size_t c = n < first_out ? first_out - n : 0; c < channels; c += 4) {
      const int32x4_t m = quads_multipliers(multiplier, per_channel, n + c);
      vstrbq_s32(y, quads_sat8_lanes(vrmulhq_s32(vld1q_s32(work->sums + c), m)));
      y += 4;
    }
  }
}

void quads_linear_s8(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                     size_t first_out, size_t n_out, int8_t *y, size_t y_stride, void *workspace) {
  const quads_linear_work_t work = quads_linear_work(workspace);

  if (rows == 0) {
    return;
  }
  quads_pair_table(w, work.pairs);
  if (rows > QUADS_FEW_ROWS) {
    many_rows(x, x_stride, rows, w, first_out, n_out, y, y_stride, &work);
    return;
  }
  for (size_t t = 0; t < rows; t++) {
    one_row(x + t * x_stride, w, first_out, n_out, y + t * y_stride, &work);
  }
}

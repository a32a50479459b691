#include "quads_helium.h"
#include "quads_math.h"

/* Four rows of a channel. */
static inline int32x4_t requantize(const int32_t *sums, int32x4_t multiplier) {
  return quads_sat8_lanes(vrmulhq_s32(vld1q_s32(sums), multiplier));
}

/* Two channels of up to QUADS_SUM_ROWS rows. */
static void requantize_pair(const int32_t *sums, size_t rows, int32_t multiplier_0,
                            int32_t multiplier_1, int8_t *y, size_t y_stride) {
  const int32x4_t m0 = vdupq_n_s32(multiplier_0);
  const int32x4_t m1 = vdupq_n_s32(multiplier_1);
  const uint32x4_t first = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)y_stride);
  const uint32x4_t second = vaddq_n_u32(first, 1);

  for (size_t groups = rows / 4; groups > 0; groups--) {
    vstrbq_scatter_offset_s32(y, first, requantize(sums, m0));
    vstrbq_scatter_offset_s32(y, second, requantize(sums + QUADS_SUM_ROWS, m1));
    sums += 4;
    y += 4 * y_stride;
  }
  if (rows % 4 != 0) {
    const mve_pred16_t p = vctp32q((uint32_t)(rows % 4));
    vstrbq_scatter_offset_p_s32(y, first, requantize(sums, m0), p);
    vstrbq_scatter_offset_p_s32(y, second, requantize(sums + QUADS_SUM_ROWS, m1), p);
  }
}

static void many_rows(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                      size_t first_out, size_t n_out, int8_t *y, size_t y_stride,
                      const quads_linear_work_t *work) {
  const size_t padded = quads_padded(w->n_in);
  const size_t step = w->per_channel;
  quads_dot_t dot = {
      .x_stride = x_stride, .length = w->n_in, .sums = work->sums, .sums_stride = QUADS_SUM_ROWS};

  for (size_t n = 0; n < n_out; n += 2) {
    const size_t channel = first_out + n;
    const int32_t *const multiplier = w->multiplier + channel * step;
    if (n % QUADS_TILE_CHANNELS == 0) {
      quads_decode_tile(w, channel, work->pairs, work->tile);
    }
    dot.tile = work->tile + n % QUADS_TILE_CHANNELS * padded;
    dot.start[0] = w->bias[channel];
    dot.start[1] = w->bias[channel + 1];
    for (size_t t = 0; t < rows; t += dot.rows) {
      dot.x = x + t * x_stride;
      dot.rows = quads_sum_rows_now(rows - t);
      quads_dot_2x4_s8(&dot);
      requantize_pair(dot.sums, dot.rows, multiplier[0], multiplier[step], y + t * y_stride + n,
                      y_stride);
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
      vstrbq_s32(y, requantize(work->sums + c, quads_multipliers(multiplier, per_channel, n + c)));
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

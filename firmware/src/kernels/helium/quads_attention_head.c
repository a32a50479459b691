#include "quads_helium.h"
#include "quads_math.h"

/* round(8192 * 2^(-i / 64)) */
static const uint16_t exp_table[QUADS_EXP_STEPS] = QUADS_EXP_TABLE;

enum {
  HALVINGS = 14, /* make any exponential zero */
  EXP_STEP_BITS = 6,
};

_Static_assert(QUADS_EXP_STEPS == 1 << EXP_STEP_BITS, "steps per halving");

typedef struct {
  int8_t *value;      /* [d_head][tokens], transposed, zeros behind n_tokens */
  int16_t *exps;      /* [tokens / 8][2][8]: two queries */
  int32_t *sums;      /* [2][sums_stride]: scores, then outputs */
  int8_t *query;      /* [padded d_head / 16][2][16], zeros behind d_head */
  size_t tokens;      /* n_tokens filled up to a multiple of 8 */
  size_t sums_stride; /* the larger of tokens and d_head */
} work_t;

static work_t divide(void *workspace, size_t n_tokens, size_t d_head) {
  const size_t tokens = (n_tokens + 7) / 8 * 8;
  work_t work = {.tokens = tokens, .sums_stride = tokens > d_head ? tokens : d_head};
  work.sums = workspace;
  work.exps = (int16_t *)(void *)(work.sums + 2 * work.sums_stride);
  work.value = (int8_t *)(work.exps + 2 * tokens);
  work.query = work.value + d_head * tokens;
  return work;
}

static void transpose(const int8_t *value, size_t n_tokens, size_t d_head, const work_t *work) {
  const uint16x8_t offsets = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)d_head);

  for (size_t i = 0; i < d_head; i++) {
    int8_t *const row = work->value + i * work->tokens;
    for (size_t u = 0; u < n_tokens; u += 8) {
      const mve_pred16_t p = vctp16q((uint32_t)(n_tokens - u));
      const int8_t *const from = value + u * d_head + i;
      vstrbq_s16(row + u, vldrbq_gather_offset_z_s16(from, offsets, p));
    }
  }
}

/* Two queries, interleaved by blocks. */
static void load_queries(const int8_t *first, const int8_t *second, size_t d_head, int8_t *tile) {
  for (size_t i = 0; i < d_head; i += QUADS_BLOCK) {
    const mve_pred16_t p = vctp8q((uint32_t)(d_head - i));
    vst1q_s8(tile + 2 * i, vldrbq_z_s8(first + i, p));
    vst1q_s8(tile + 2 * i + QUADS_BLOCK, vldrbq_z_s8(second + i, p));
  }
}

/* What turns scores into powers of two. */
typedef struct {
  int32_t max; /* 16 times the greatest score */
  int32x4_t multiplier;
} softmax_t;

static int32_t greatest(const int32_t *scores, size_t n_tokens) {
  int32_t max = scores[0];

  for (size_t vectors = n_tokens / 4; vectors > 0; vectors--) {
    max = vmaxvq_s32(max, vld1q_s32(scores));
    scores += 4;
  }
  return vmaxvq_p_s32(max, vld1q_s32(scores), vctp32q((uint32_t)(n_tokens % 4)));
}

/* Eight exponentials, 1.0 = 8192. */
static inline uint16x8_t exps_of(const int32_t *scores, const softmax_t *softmax) {
  const int32x4_t minus_16 = vdupq_n_s32(-16);
  const int32x4x2_t s = vld2q_s32(scores);
  const int32x4_t even =
      vrmulhq_s32(vmlasq_n_s32(s.val[0], minus_16, softmax->max), softmax->multiplier);
  const int32x4_t odd =
      vrmulhq_s32(vmlasq_n_s32(s.val[1], minus_16, softmax->max), softmax->multiplier);
  const int16x8_t z =
      vminq_s16(quads_narrow_s32(even, odd), vdupq_n_s16(HALVINGS * QUADS_EXP_STEPS));
  const uint16x8_t at = vandq_u16(vreinterpretq_u16_s16(z), vdupq_n_u16(QUADS_EXP_STEPS - 1));
  const int16x8_t halvings = vnegq_s16(vshrq_n_s16(z, EXP_STEP_BITS));
  return vshlq_u16(vldrhq_gather_shifted_offset_u16(exp_table, at), halvings);
}

/* Powers of two of the scores less their maximum; returns their sum (section 6).
 * scores: int32 [n_tokens], readable to a multiple of 8; exps: int16, eights 16 apart */
static uint32_t softmax_exps(const int32_t *scores, size_t n_tokens, int32_t multiplier,
                             int16_t *exps) {
  const softmax_t softmax = {quads_shift_left(greatest(scores, n_tokens), 4),
                             vdupq_n_s32(multiplier)};
  uint32_t sum = 0; /* 2^13 <= sum < 2^24 */

  for (size_t vectors = n_tokens / 8; vectors > 0; vectors--) {
    const uint16x8_t e = exps_of(scores, &softmax);
    sum = vaddvaq_u16(sum, e);
    vst1q_s16(exps, vreinterpretq_s16_u16(e));
    scores += 8;
    exps += 16;
  }
  if (n_tokens % 8 != 0) {
    const mve_pred16_t p = vctp16q((uint32_t)(n_tokens % 8));
    const uint16x8_t e = vpselq_u16(exps_of(scores, &softmax), vdupq_n_u16(0), p);
    sum = vaddvaq_u16(sum, e);
    vst1q_s16(exps, vreinterpretq_s16_u16(e));
  }
  return sum;
}

/* out = sat8(RQ(sums, multiplier / sum)) (section 6). sums: int32 [d_head]; out: int8 [d_head] */
static void put_values(const int32_t *sums, uint32_t sum, size_t d_head, int32_t multiplier,
                       int8_t *out) {
  const uint32_t n = (uint32_t)__builtin_clz(sum);
  const uint32_t reciprocal = UINT32_MAX / ((sum << n) >> 16); /* 2^16 <= r < 2^17 */
  const int32_t m = (int32_t)(((uint64_t)(uint32_t)multiplier * reciprocal) >> (28 - n));
  const int32x4_t lanes = vdupq_n_s32(m);

  for (size_t i = 0; i < d_head; i += 4) {
    vstrbq_s32(out + i, quads_sat8_lanes(vrmulhq_s32(vld1q_s32(sums + i), lanes)));
  }
}

/* Two queries at a time, products in both directions four at a time. */
void quads_attention_head(int8_t *query, size_t stride, const int8_t *key, const int8_t *value,
                          size_t n_tokens, size_t d_head, int32_t score_multiplier,
                          int32_t value_multiplier, void *workspace) {
  const work_t work = divide(workspace, n_tokens, d_head);
  int32_t *const second_sums = work.sums + work.sums_stride;
  static const int32_t zeros[2] = {0};
  const quads_dot_t scores = {.tile = work.query, /* |score| <= d_head * 2^14 */
                              .x = key,
                              .x_stride = d_head,
                              .rows = n_tokens,
                              .length = d_head,
                              .sums = work.sums,
                              .sums_stride = work.sums_stride,
                              .start = zeros,
                              .n_pairs = 1};
  const quads_dot_t values = {.tile = work.exps, /* |value| <= 2047 * 8192 * 128 < 2^31 */
                              .x = work.value,
                              .x_stride = work.tokens,
                              .rows = d_head,
                              .length = work.tokens,
                              .sums = work.sums,
                              .sums_stride = work.sums_stride,
                              .start = zeros,
                              .n_pairs = 1};

  transpose(value, n_tokens, d_head, &work);
  for (size_t t = 0; t < n_tokens; t += 2) {
    int8_t *const first = query + t * stride;
    int8_t *const second = t + 1 < n_tokens ? first + stride : first; /* the last one twice */
    load_queries(first, second, d_head, work.query);
    quads_dot_2x4_s8(&scores);
    const uint32_t first_sum = softmax_exps(work.sums, n_tokens, score_multiplier, work.exps);
    const uint32_t second_sum =
        softmax_exps(second_sums, n_tokens, score_multiplier, work.exps + 8);
    quads_dot_2x4_s16(&values);
    put_values(work.sums, first_sum, d_head, value_multiplier, first);
    put_values(second_sums, second_sum, d_head, value_multiplier, second);
  }
}

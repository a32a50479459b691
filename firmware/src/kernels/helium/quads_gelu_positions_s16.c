#include "quads_helium.h"

static inline int32x4_t sum(int32x4_t x, const int16_t *gelu, int32x4_t positions,
                            int32_t multiplier) {
  const uint32x4_t at = vreinterpretq_u32_s32(vaddq_n_s32(x, 128));
  const int32x4_t y =
      vmlaq_n_s32(vldrhq_gather_shifted_offset_s32(gelu, at), positions, multiplier);
  return vmaxq_s32(vminq_s32(y, vdupq_n_s32(INT16_MAX)), vdupq_n_s32(INT16_MIN));
}

/* In place: element i's four end at byte 2i + 7 of residual, and the next x is byte n + i + 4. */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual) {
  for (size_t vectors = n / 4; vectors > 0; vectors--) {
    vstrhq_s32(residual, sum(vldrbq_s32(x), gelu, vldrbq_s32(positions), multiplier));
    x += 4;
    positions += 4;
    residual += 4;
  }
  const mve_pred16_t p = vctp32q((uint32_t)(n % 4));
  const int32x4_t last = sum(vldrbq_z_s32(x, p), gelu, vldrbq_z_s32(positions, p), multiplier);
  vstrhq_p_s32(residual, last, p);
}

#include "quads_helium.h"

/* In place: residual[i .. i + 3] ends at byte 2i + 7, the next x read is byte n + i + 4. */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual) {
  for (size_t i = 0; i < n; i += 4) {
    const mve_pred16_t p = vctp32q((uint32_t)(n - i));
    const int32x4_t at = vaddq_n_s32(vldrbq_z_s32(x + i, p), 128);
    const int32x4_t gelus = vldrhq_gather_shifted_offset_s32(gelu, vreinterpretq_u32_s32(at));
    const int32x4_t sum = vmlaq_n_s32(gelus, vldrbq_z_s32(positions + i, p), multiplier);
    const int16x8_t narrow = vqmovnbq_s32(vreinterpretq_s16_s32(sum), sum);
    vstrhq_p_s32(residual + i, vreinterpretq_s32_s16(narrow), p);
  }
}

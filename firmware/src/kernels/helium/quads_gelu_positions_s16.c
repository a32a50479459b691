#include "quads_helium.h"

/* In place: element i's four end at byte 2i + 7 of residual, and the next x is byte n + i + 4. */
void quads_gelu_positions_s16(const int8_t *x, size_t n, const int16_t *gelu,
                              const int8_t *positions, int32_t multiplier, int16_t *residual) {
  for (size_t vectors = n / 4; vectors > 0; vectors--) {
    const uint32x4_t at = vreinterpretq_u32_s32(vaddq_n_s32(vldrbq_s32(x), 128));
    const int32x4_t sum =
        vmlaq_n_s32(vldrhq_gather_shifted_offset_s32(gelu, at), vldrbq_s32(positions), multiplier);
    const int32x4_t low = vminq_s32(sum, vdupq_n_s32(INT16_MAX));
    vstrhq_s32(residual, vmaxq_s32(low, vdupq_n_s32(INT16_MIN)));
    x += 4;
    positions += 4;
    residual += 4;
  }
}

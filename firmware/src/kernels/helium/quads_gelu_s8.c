#include "quads_helium.h"

static inline int8x16_t look_up(int8x16_t x, const int8_t *gelu) {
  return vldrbq_gather_offset_s8(gelu, vaddq_n_u8(vreinterpretq_u8_s8(x), 128));
}

void quads_gelu_s8(int8_t *x, size_t n, const int8_t *gelu) {
  for (size_t vectors = n / 16; vectors > 0; vectors--) {
    vst1q_s8(x, look_up(vld1q_s8(x), gelu));
    x += 16;
  }
  const mve_pred16_t p = vctp8q((uint32_t)(n % 16));
  vstrbq_p_s8(x, look_up(vldrbq_z_s8(x, p), gelu), p);
}

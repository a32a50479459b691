#include "quads_helium.h"

void quads_gelu_s8(int8_t *x, size_t n, const int8_t *gelu) {
  for (size_t i = 0; i < n; i += 16) {
    const mve_pred16_t p = vctp8q((uint32_t)(n - i));
    const uint8x16_t at = vaddq_n_u8(vreinterpretq_u8_s8(vldrbq_z_s8(x + i, p)), 128);
    vstrbq_p_s8(x + i, vldrbq_gather_offset_s8(gelu, at), p);
  }
}

#include "frontend_tables.h"
#include "stages.h"

#if QUADS_FRONTEND_FIXED

/* 20 log10 by the position of the highest bit and 32 linear pieces per octave, plus each band's
 * offset, one half and 128, so that dropping 16 bits rounds and 0 .. 255 are the int8 range. */
void quads_frontend_log(const quads_energy_t *energy, int8_t *mel) {
  for (int band = 0; band < QUADS_FRONTEND_N_MELS; band++) {
    const uint32_t high = (uint32_t)(energy[band] >> 32), low = (uint32_t)energy[band];
    uint32_t mantissa = high ? high : low;
    int32_t exponent = high ? 63 : 31;
    if (mantissa == 0) {
      mel[band] = -128;
      continue;
    }
    uint32_t left = 0;
    for (uint32_t step = 16; step > 0; step >>= 1) {
      if (mantissa >> (32 - step) == 0) {
        mantissa <<= step;
        left += step;
      }
    }
    if (high) mantissa |= low >> 1 >> (31 - left);
    exponent -= (int32_t)left;

    const uint32_t *step = quads_frontend_log_steps + (mantissa >> 26 & 31);
    const uint32_t piece = step[0] + ((step[1] - step[0]) * (mantissa >> 16 & 1023) >> 10);
    const int32_t level = quads_frontend_offsets[band] + (int32_t)piece +
                          exponent * (int32_t)QUADS_FRONTEND_LOG_PER_OCTAVE;
    int32_t biased = level >> 16;
    biased = biased < 0 ? 0 : biased > 255 ? 255 : biased;
    mel[band] = (int8_t)(biased - 128);
  }
}

#endif

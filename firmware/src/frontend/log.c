#include <string.h>

#include "frontend_tables.h"
#include "stages.h"

#if !QUADS_FRONTEND_FIXED

/* 20 log10(energy) + 72, rounded half up: energy = mantissa * 2^exponent with the mantissa in
 * [1, 2), whose logarithm is a polynomial. Its constant term also holds the exponent's bias, the
 * offset 72, one half and 128, so that truncation rounds and 0 .. 255 are the int8 range. Whisper's
 * floor of 1e-10 needs no step of its own: it is level -128, where lower energies saturate. */
void quads_frontend_log(const quads_energy_t *energy, int8_t *mel) {
  for (int band = 0; band < QUADS_FRONTEND_N_MELS; band++) {
    uint32_t bits;
    memcpy(&bits, &energy[band], sizeof bits);
    const float exponent = (float)(int32_t)(bits >> 23);
    bits = (bits & 0x007FFFFFu) | 0x3F800000u;
    float mantissa;
    memcpy(&mantissa, &bits, sizeof mantissa);

    float level = QUADS_FRONTEND_LOG_4;
    level = level * mantissa + QUADS_FRONTEND_LOG_3;
    level = level * mantissa + QUADS_FRONTEND_LOG_2;
    level = level * mantissa + QUADS_FRONTEND_LOG_1;
    level = level * mantissa + QUADS_FRONTEND_LOG_0;
    level = level + exponent * QUADS_FRONTEND_LOG_PER_OCTAVE;

    int32_t biased = (int32_t)level;
    biased = biased < 0 ? 0 : biased > 255 ? 255 : biased;
    mel[band] = (int8_t)(biased - 128);
  }
}

#endif

#include "frontend_tables.h"
#include "stages.h"

#if !QUADS_FRONTEND_FIXED

/* One pass over the bins: each lies on the falling edge of one band and the rising edge of the
 * next. Every band sums in ascending frequency; adding its first product to zero is exact. */
void quads_frontend_mel(const quads_power_t *power, quads_energy_t *energy) {
  const float *bin = power + 1;               /* bin 0 has no weight */
  const float *slope = quads_frontend_slopes; /* [199][2] falling, rising */
  const uint8_t *segment = quads_frontend_segments;
  float rising = 0.0f;
  for (unsigned n = *segment++; n > 0; n--) {
    rising += *bin++ * slope[1];
    slope += 2;
  }
  for (int band = 0; band < QUADS_FRONTEND_N_MELS; band++) {
    float falling = rising;
    rising = 0.0f;
    for (unsigned n = *segment++; n > 0; n--) {
      falling += *bin * slope[0];
      rising += *bin++ * slope[1];
      slope += 2;
    }
    energy[band] = falling;
  }
}

#endif

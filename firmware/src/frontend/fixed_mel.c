#include "frontend_tables.h"
#include "stages.h"

#if QUADS_FRONTEND_FIXED

/* part << (10 * steps), steps at most 3 */
static inline uint64_t widen(uint32_t part, uint32_t steps) {
  const uint32_t shift = 10 * steps;
  return (uint64_t)(part >> 1 >> (31 - shift)) << 32 | part << shift;
}

/* One pass over the bins, each shared between the band that falls and the one that rises. The
 * bands' areas are in the logarithm's offsets. All bins together are below 2^62 (Parseval). */
void quads_frontend_mel(const quads_power_t *power, quads_energy_t *energy) {
  const quads_power_t *bin = power + 1; /* bin 0 has no weight */
  const uint16_t *slope = quads_frontend_slopes;
  const uint8_t *segment = quads_frontend_segments;
  uint64_t falling = 0;
  for (int band = -1; band < QUADS_FRONTEND_N_MELS; band++) {
    uint64_t rising = 0;
    for (unsigned n = *segment++; n > 0; n--, bin++, slope++) {
      const uint32_t m = *bin & ~3u, steps = *bin & 3;
      const uint32_t rise = (m >> 16) * *slope + ((m & 0xFFFF) * *slope >> 16);
      rising += widen(rise, steps);
      falling += widen(m - rise, steps);
    }
    if (band >= 0) energy[band] = falling;
    falling = rising;
  }
}

#endif

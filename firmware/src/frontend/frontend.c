/* PCM -> ring of 400 samples -> power spectrum -> mel bands -> logarithm -> int8 frame.
 *
 * Deepest stack, in quads_frontend_power: 2.8 KB at 80 mels, 3.0 KB at 128.
 */
#include "frontend_tables.h"
#include "stages.h"

/* The ring is never shifted. Frames start at multiples of the hop in it, and the transform's
 * sample order takes any start that is a multiple of 16 (fft.c). */
_Static_assert(QUADS_HOP_SAMPLES % 16 == 0 && QUADS_WINDOW_SAMPLES % 16 == 0, "ring positions");

void quads_frontend_restart(quads_frontend_t *frontend) {
  for (int i = 0; i < QUADS_WINDOW_SAMPLES; i++) frontend->ring[i] = 0;
  frontend->next = QUADS_WINDOW_SAMPLES / 2;
  frontend->missing = QUADS_WINDOW_SAMPLES / 2;
}

/* Copy n samples, at most up to the end of the ring. */
static void append(quads_frontend_t *frontend, const int16_t *pcm, uint16_t n) {
  int16_t *ring = frontend->ring + frontend->next;
  for (uint16_t i = 0; i < n; i++) ring[i] = pcm[i];
  frontend->next = (uint16_t)(frontend->next + n);
  if (frontend->next == QUADS_WINDOW_SAMPLES) frontend->next = 0;
  frontend->missing = (uint16_t)(frontend->missing - n);
}

int quads_frontend_process(quads_frontend_t *frontend, const int16_t *pcm, size_t n_samples,
                           size_t *consumed, int8_t *mel) {
  quads_power_t power[QUADS_FRONTEND_BINS];
  quads_energy_t energy[QUADS_FRONTEND_N_MELS];
  size_t taken = 0;
  while (taken < n_samples && frontend->missing > 0) {
    uint16_t n = (uint16_t)(QUADS_WINDOW_SAMPLES - frontend->next);
    if (n > frontend->missing) n = frontend->missing;
    if (n > n_samples - taken) n = (uint16_t)(n_samples - taken);
    append(frontend, pcm + taken, n);
    taken += n;
  }
  *consumed = taken;
  if (frontend->missing > 0) return 0;
  frontend->missing = QUADS_HOP_SAMPLES;

  quads_frontend_power(frontend->ring, frontend->next, power);
  quads_frontend_mel(power, energy);
  quads_frontend_log(energy, mel);
  return 1;
}

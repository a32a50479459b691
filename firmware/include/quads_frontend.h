/* quads_frontend.h - streaming log-mel: 16 kHz PCM in, int8 frames out (docs/arithmetic.md, 1).
 *
 * quads_frontend_process consumes what it can, says how much, and returns 1 when a frame is
 * ready, 0 when it needs more samples. Features do not depend on how the samples were chunked.
 */
#ifndef QUADS_FRONTEND_H
#define QUADS_FRONTEND_H

#include <stddef.h>
#include <stdint.h>

#define QUADS_SAMPLE_RATE 16000
#define QUADS_WINDOW_SAMPLES 400
#define QUADS_HOP_SAMPLES 160

typedef struct {
  int16_t ring[QUADS_WINDOW_SAMPLES]; /* the newest samples */
  uint16_t next;                      /* where the next sample goes: the oldest one */
  uint16_t missing;                   /* samples until the next frame is complete */
} quads_frontend_t;

/* Begin a stream: the samples before it are zero. */
void quads_frontend_restart(quads_frontend_t *frontend);

/* Feed up to n_samples; *consumed says how many were taken. Returns 1 and fills mel
 * (int8 [n_mels] of the generated tables) when a frame is complete, else 0. */
int quads_frontend_process(quads_frontend_t *frontend, const int16_t *pcm, size_t n_samples,
                           size_t *consumed, int8_t *mel);

#endif

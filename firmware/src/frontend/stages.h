/* stages.h - the stages of the log-mel frontend; frontend.c puts them in a row.
 *
 * All arithmetic is float32 in a fixed order, so that every compiler and core makes the same bytes
 * as quads_mcu/audio/frontend.py. Subnormal numbers may be flushed to zero: they are far below the
 * lowest level. Compile with -ffp-contract=off and without -ffast-math.
 */
#ifndef QUADS_FRONTEND_STAGES_H
#define QUADS_FRONTEND_STAGES_H

#include <float.h>
#include <stdint.h>

#include "quads_frontend.h"

#if defined(__FAST_MATH__)
#error "the frontend needs exact float32: compile without -ffast-math"
#endif
#if FLT_EVAL_METHOD != 0
#error "the frontend needs exact float32: on x86-32 compile with -msse2 -mfpmath=sse"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define QUADS_FRONTEND_BINS (QUADS_WINDOW_SAMPLES / 2 + 1)

/* Window and transform: ring int16 [400] with the frame's first sample at ring[oldest], a multiple
 * of 16, to power [201]. 1.7 KB of stack. */
void quads_frontend_power(const int16_t *ring, uint16_t oldest, float *power);

/* Band energies: power [201] to energy [n_mels]. */
void quads_frontend_mel(const float *power, float *energy);

/* Levels: energy [n_mels], not negative and below 1e9, to int8 mel [n_mels]. */
void quads_frontend_log(const float *energy, int8_t *mel);

#endif

/* stages.h - the stages of the log-mel frontend; frontend.c puts them in a row.
 *
 * QUADS_FRONTEND_FIXED, in the generated tables, says which arithmetic the model was made for:
 * float32 in a fixed order (fft.c, mel.c, log.c) or integers (fixed_fft.c, fixed_mel.c,
 * fixed_log.c). Either way every compiler and core makes the same bytes as quads_mcu/audio/
 * frontend.py or fixed_frontend.py. For float32, compile with -ffp-contract=off and without
 * -ffast-math; subnormal numbers may be flushed to zero: they are far below the lowest level.
 */
#ifndef QUADS_FRONTEND_STAGES_H
#define QUADS_FRONTEND_STAGES_H

#include <float.h>
#include <stdint.h>

#include "frontend_tables.h"
#include "quads_frontend.h"

#if QUADS_FRONTEND_FIXED
/* (power & ~3) << 10 * (power & 3), in units of 2^-14 of a squared unit of the PCM. */
typedef uint32_t quads_power_t;
typedef uint64_t quads_energy_t;
#else
typedef float quads_power_t;
typedef float quads_energy_t;
#endif

#if !QUADS_FRONTEND_FIXED && defined(__FAST_MATH__)
#error "the frontend needs exact float32: compile without -ffast-math"
#endif
#if !QUADS_FRONTEND_FIXED && FLT_EVAL_METHOD != 0
#error "the frontend needs exact float32: on x86-32 compile with -msse2 -mfpmath=sse"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define QUADS_FRONTEND_BINS (QUADS_WINDOW_SAMPLES / 2 + 1)

/* Window and transform: ring int16 [400] with the frame's first sample at ring[oldest], a multiple
 * of 16, to power [201]. 1.7 KB of stack. */
void quads_frontend_power(const int16_t *ring, uint16_t oldest, quads_power_t *power);

/* Band energies: power [201] to energy [n_mels]. */
void quads_frontend_mel(const quads_power_t *power, quads_energy_t *energy);

/* Levels: energy [n_mels] to int8 mel [n_mels]; floats not negative and below 1e9. */
void quads_frontend_log(const quads_energy_t *energy, int8_t *mel);

#endif

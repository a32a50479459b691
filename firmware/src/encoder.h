/* encoder.h - an inference in two parts, for a window that fills while its front is computed. */
#ifndef QUADS_ENCODER_H
#define QUADS_ENCODER_H

#include "quads.h"

/* The front: residual rows first .. first + n_tokens - 1. Token t reads mel rows 2t - 2 .. 2t + 2
 * of the window, where there are such. Returns 0 or QUADS_ERROR_STOPPED. */
int quads_encode_front(const quads_t *q, size_t first, size_t n_tokens,
                       const quads_observer_t *observer);

/* The rest, from residual rows to logits, int32 [n_classes]; the rows are used up. Returns 0, or
 * QUADS_ERROR_STOPPED with the logits unchanged. */
int quads_encode(const quads_t *q, int32_t *logits, const quads_observer_t *observer);

#endif

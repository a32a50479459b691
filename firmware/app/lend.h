/* lend.h - the server's arena, for work between two requests of the host. */
#ifndef QUADS_LEND_H
#define QUADS_LEND_H

#include "quads.h"

/* Return the model in use, or NULL when there is none, and the arena. What the host had sent of a
 * window is lost: its next requests are answered by "not ready" until it begins one. */
const quads_model_t *app_lend(void **memory, size_t *n_bytes);

#endif

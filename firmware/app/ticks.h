/* ticks.h - ticks spent by place and stage: before the encoder layers, in each, after them. */
#ifndef QUADS_TICKS_H
#define QUADS_TICKS_H

#include "quads.h"

/* n_layers + 2 rows. Without its length here, so that no code depends on a model's layers. */
extern uint64_t ticks_spent[][QUADS_STAGE_COUNT];

#endif

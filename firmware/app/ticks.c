#include "ticks.h"

#include "update.h"

uint64_t ticks_spent[QUADS_MAX_LAYERS + 2][QUADS_STAGE_COUNT];

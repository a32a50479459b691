#include "ticks.h"

#include "model.h"

uint64_t ticks_spent[QUADS_MODEL_LAYERS + 2][QUADS_STAGE_COUNT];

#include "result.h"

#include "update.h"

int32_t result_logits[QUADS_MAX_CLASSES];
uint16_t result_answers[QUADS_MAX_SLOTS];

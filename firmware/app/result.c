#include "result.h"

#include "model.h"

int32_t result_logits[QUADS_MODEL_CLASSES];
uint16_t result_answers[QUADS_MODEL_SLOTS];

/* result.h - the last inference: arrays of the model's size, defined apart from the application so
 * that its code is the same for every model.
 */
#ifndef QUADS_RESULT_H
#define QUADS_RESULT_H

#include <stdint.h>

extern int32_t result_logits[];   /* [n_classes] */
extern uint16_t result_answers[]; /* [n_slots] */

#endif

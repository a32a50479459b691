/* image_check.h - what a model from an image must keep to besides its sizes. */
#ifndef QUADS_IMAGE_CHECK_H
#define QUADS_IMAGE_CHECK_H

#include "quads.h"

/* Whether every tensor of the plan lies in the arena, and on top of no other that is needed at the
 * same time. The model's sizes are possible ones. */
int quads_image_plan_fits(const quads_model_t *model);

/* Whether all constants keep to the bounds of docs/arithmetic.md, so that no sum leaves int32. The
 * weights' share of a sum is bounded by the largest centroid, without decoding them. */
int quads_image_bounds_kept(const quads_model_t *model);

#endif

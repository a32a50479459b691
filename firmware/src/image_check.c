#include "image_check.h"

#include "kernels/quads_kernels.h"
#include "quads_math.h"

/* --- the arena plan --- */

#define N_TENSORS 18u
#define INPUT_MAX 128

/* Steps of the encoder (STEPS in quads_mcu/export/planner.py); which of them need a tensor. */
enum {
  CONVOLUTIONS = 1,
  PROJECTIONS = 2,
  PRODUCTS = 4,
  OUTPUT = 8,
  FEED_FORWARD = 16,
  POOL = 32,
  HEAD = 64,
  ALL = 127,
};

typedef struct {
  uint32_t offset;
  uint32_t steps;
  size_t n_bytes;
} place_t;

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* As _tensors of planner.py. With the sizes that a model can have no product leaves 32 bits. */
static void list_places(const quads_model_t *m, place_t places[N_TENSORS]) {
  const quads_plan_t *p = &m->plan;
  const size_t d = m->d_model, t = m->n_tokens, d_head = d / m->n_heads;
  const size_t conv = p->conv_block, projection = p->projection_block;
  const size_t hidden = p->feed_forward_block;
  const size_t conv_work =
      larger(quads_linear_bytes(2 * conv, m->conv1.n_in), quads_linear_bytes(conv, m->conv2.n_in));
  const size_t hidden_work =
      larger(quads_linear_bytes(hidden, d), quads_linear_bytes(hidden, 4 * d));
  const size_t pooled = m->pool_query == NULL ? 1 : m->n_slots;
  const size_t pool_rows = m->pool_query == NULL ? p->pool_block : t;
  const size_t pool_work = m->pool_query == NULL ? 4 * d : quads_attention_pool_bytes(t);
  const place_t found[N_TENSORS] = {
      {p->mel, ALL, ((size_t)m->n_frames + 2) * m->n_mels},
      {p->residual, ALL, 2 * t * d},
      {p->conv, CONVOLUTIONS, (2 * conv + 1) * d},
      {p->conv_workspace, CONVOLUTIONS, conv_work},
      {p->normalized, PROJECTIONS, projection * d},
      {p->projection_workspace, PROJECTIONS, quads_linear_bytes(projection, d)},
      {p->attention, PROJECTIONS | PRODUCTS | OUTPUT, t * d},
      {p->key, PROJECTIONS | PRODUCTS, t * d_head},
      {p->value, PROJECTIONS | PRODUCTS, t * d_head},
      {p->attention_workspace, PRODUCTS, quads_attention_bytes(t, d_head, d)},
      {p->output_workspace, OUTPUT, quads_linear_bytes(p->output_block, d)},
      {p->feed_forward_normalized, FEED_FORWARD, hidden * d},
      {p->hidden, FEED_FORWARD, hidden * 4 * d},
      {p->feed_forward_workspace, FEED_FORWARD, hidden_work},
      {p->pool_normalized, POOL, pool_rows * d},
      {p->pool_workspace, POOL, pool_work},
      {p->pooled, POOL | HEAD, 2 * pooled * d},
      {p->head_workspace, HEAD, quads_head_bytes(d)},
  };
  for (size_t i = 0; i < N_TENSORS; i++) {
    places[i] = found[i];
  }
}

static int block_is_possible(uint16_t block, uint16_t n_tokens) {
  return block >= 1 && block <= n_tokens;
}

static int apart(const place_t *a, const place_t *b) {
  return (a->steps & b->steps) == 0 || a->offset + a->n_bytes <= b->offset ||
         b->offset + b->n_bytes <= a->offset;
}

int quads_image_plan_fits(const quads_model_t *model) {
  const quads_plan_t *p = &model->plan;
  const uint16_t t = model->n_tokens;
  place_t places[N_TENSORS];

  if (!block_is_possible(p->conv_block, t) || !block_is_possible(p->projection_block, t) ||
      !block_is_possible(p->output_block, t) || !block_is_possible(p->feed_forward_block, t) ||
      !block_is_possible(p->pool_block, t)) {
    return 0;
  }
  list_places(model, places);
  for (size_t i = 0; i < N_TENSORS; i++) {
    const place_t *place = &places[i];
    if (place->offset % 8 != 0 || place->offset > p->arena_bytes ||
        place->n_bytes > p->arena_bytes - place->offset) {
      return 0;
    }
    for (size_t k = 0; k < i; k++) {
      if (!apart(place, &places[k])) {
        return 0;
      }
    }
  }
  return 1;
}

/* --- bounds of the arithmetic --- */

static uint32_t magnitude(int32_t a) {
  return a < 0 ? 0u - (uint32_t)a : (uint32_t)a;
}

/* |bias| + n_in * max |centroid| * input_max < 2^31 (section 2); n_in <= 5120, input_max <= 8191.
 */
static int linear_kept(const quads_linear_t *w, uint32_t input_max) {
  const size_t n_multipliers = w->multiplier == NULL ? 0 : w->per_channel ? w->n_out : 1;
  uint64_t centroid_max = 0;

  for (size_t i = 0; i < (size_t)1 << w->bits; i++) {
    centroid_max = larger((size_t)centroid_max, magnitude(w->centroids[i]));
  }
  const uint64_t weights_max = centroid_max * w->n_in * input_max;
  for (size_t i = 0; i < w->n_out; i++) {
    if (weights_max + magnitude(w->bias[i]) > INT32_MAX) {
      return 0;
    }
  }
  for (size_t i = 0; i < n_multipliers; i++) {
    if (w->multiplier[i] < 0) {
      return 0;
    }
  }
  return 1;
}

/* h gamma + beta + 2^(shift - 1) < 2^31, |h| <= (ceil(sqrt(d)) + 1) 2^10 (section 5). */
static int norm_kept(const quads_norm_t *norm, uint16_t d_model) {
  const uint32_t root = quads_isqrt(d_model);
  const uint64_t h_max = (uint64_t)(root + (root * root < d_model) + 1) << 10;

  if (norm->shift < 1 || norm->shift > 30 || norm->epsilon < 1) {
    return 0;
  }
  for (size_t i = 0; i < d_model; i++) {
    const uint64_t sum = h_max * magnitude(norm->gamma[i]) + magnitude(norm->beta[i]);
    if (sum + ((uint64_t)1 << (norm->shift - 1)) > INT32_MAX) {
      return 0;
    }
  }
  return 1;
}

static int layer_kept(const quads_layer_t *layer, uint16_t d_model) {
  return layer->score_multiplier >= 0 && layer->value_multiplier >= 1 &&
         layer->value_multiplier < 1 << 24 && norm_kept(&layer->attention_norm, d_model) &&
         norm_kept(&layer->feed_forward_norm, d_model) && linear_kept(&layer->query, INPUT_MAX) &&
         linear_kept(&layer->key, INPUT_MAX) && linear_kept(&layer->value, INPUT_MAX) &&
         linear_kept(&layer->output, INPUT_MAX) && linear_kept(&layer->feed_forward_1, INPUT_MAX) &&
         linear_kept(&layer->feed_forward_2, INPUT_MAX);
}

/* root = floor(sqrt(d_model) * 2^26), that is root^2 <= d_model * 2^52 < (root + 1)^2 */
static int root_is_right(uint16_t d_model, uint32_t root) {
  const uint64_t square = (uint64_t)d_model << 52;
  const uint64_t below = (uint64_t)root * root;
  return below <= square && square - below <= 2 * (uint64_t)root;
}

int quads_image_bounds_kept(const quads_model_t *model) {
  if (model->unknown_class < -1 || model->unknown_class >= (int32_t)model->slots[0].n_labels ||
      model->position_multiplier < 0 || model->position_multiplier > INT16_MAX ||
      model->pool_multiplier < 1 || model->pool_score_multiplier < 0 ||
      (model->pool_query != NULL && model->pool_multiplier >= 1 << 24) ||
      !root_is_right(model->d_model, model->sqrt_d)) {
    return 0;
  }
  for (size_t i = 0; i < model->n_layers; i++) {
    if (!layer_kept(&model->layers[i], model->d_model)) {
      return 0;
    }
  }
  return norm_kept(&model->norm, model->d_model) && linear_kept(&model->conv1, INPUT_MAX) &&
         linear_kept(&model->conv2, INPUT_MAX) && linear_kept(&model->head, QUADS_POOLED_MAX);
}

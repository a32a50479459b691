/* The encoder of docs/arithmetic.md, section 8.
 *
 * The residual stream is whole; everything else passes in blocks of rows or one head at a time, so
 * that the arena stays small. Weights are decoded anew for each block, which the block's rows pay
 * for. */
#include <string.h>

#include "kernels/quads_kernels.h"
#include "quads.h"
#include "quads_math.h"

/* A model and its tensors in the arena. */
typedef struct {
  const quads_model_t *model;
  const quads_observer_t *observer;
  const quads_plan_t *plan;
  uint8_t *arena;
  size_t d_model, d_head, n_tokens;
  const int8_t *mel; /* [1 + n_frames + 1][n_mels] */
  int16_t *residual; /* [n_tokens][d_model] */
  int8_t *conv;      /* [2 * conv_block + 1][d_model] */
  int8_t *attention; /* [n_tokens][d_model] */
  int8_t *key;       /* [n_tokens][d_head] */
  int8_t *value;     /* [n_tokens][d_head] */
  int8_t *hidden;    /* [feed_forward_block][4 * d_model] */
  int32_t *sums;     /* [d_model] */
  int16_t *pooled;   /* [d_model] */
} run_t;

static run_t bind_tensors(const quads_t *q, const quads_observer_t *observer) {
  const quads_model_t *model = q->model;
  const quads_plan_t *plan = &model->plan;
  uint8_t *arena = q->arena;
  const run_t run = {
      .model = model,
      .observer = observer,
      .plan = plan,
      .arena = arena,
      .d_model = model->d_model,
      .d_head = model->d_model / model->n_heads,
      .n_tokens = model->n_tokens,
      .mel = (const int8_t *)(arena + plan->mel),
      .residual = (int16_t *)(void *)(arena + plan->residual),
      .conv = (int8_t *)(arena + plan->conv),
      .attention = (int8_t *)(arena + plan->attention),
      .key = (int8_t *)(arena + plan->key),
      .value = (int8_t *)(arena + plan->value),
      .hidden = (int8_t *)(arena + plan->hidden),
      .sums = (int32_t *)(void *)(arena + plan->sums),
      .pooled = (int16_t *)(void *)(arena + plan->pooled),
  };
  return run;
}

static void enter(const run_t *run, uint8_t stage) {
  if (run->observer != NULL) {
    run->observer->enter(run->observer->context, stage);
  }
}

/* LayerNorm of residual's rows t .. t + rows - 1, written to `offset` in the arena. */
static const int8_t *layer_norm(const run_t *run, const quads_norm_t *norm, size_t t, size_t rows,
                                uint32_t offset) {
  int8_t *normalized = (int8_t *)(run->arena + offset);

  enter(run, QUADS_STAGE_NORMS);
  quads_layer_norm(run->residual + t * run->d_model, rows, run->d_model, norm, run->model->sqrt_d,
                   normalized);
  return normalized;
}

/* residual = positions + GELU16(conv2(GELU(conv1(mel))))
 *
 * A convolution is a linear layer over rows that overlap: three neighbours are contiguous. A block
 * of n tokens needs conv1's rows 2t - 1 .. 2(t + n) - 1, the first of which the block before made.
 */
static void convolutions(const run_t *run) {
  const quads_model_t *m = run->model;
  const size_t d = run->d_model;
  const size_t block = run->plan->conv_block;
  void *workspace = run->arena + run->plan->conv_workspace;

  enter(run, QUADS_STAGE_CONVOLUTIONS);
  memset(run->conv, m->conv1_gelu_zero_point, d);
  for (size_t t = 0; t < run->n_tokens; t += block) {
    const size_t n = quads_min(block, run->n_tokens - t);
    int16_t *residual = run->residual + t * d;
    int8_t *preactivation = (int8_t *)residual + n * d; /* the upper half of the same memory */

    quads_linear_s8(run->mel + 2 * t * m->n_mels, m->n_mels, 2 * n, &m->conv1, 0, d, run->conv + d,
                    d, workspace);
    quads_gelu_s8(run->conv + d, 2 * n * d, m->conv1_gelu);
    quads_linear_s8(run->conv, 2 * d, n, &m->conv2, 0, d, preactivation, d, workspace);
    quads_gelu_positions_s16(preactivation, n * d, m->conv2_gelu, m->positions + t * d,
                             m->position_multiplier, residual);
    memcpy(run->conv, run->conv + 2 * n * d, d);
  }
}

/* Queries, keys and values of one head; the queries go where the head's outputs will be. */
static void project(const run_t *run, const quads_layer_t *layer, size_t head) {
  const size_t d = run->d_model;
  const size_t d_head = run->d_head;
  const size_t first = head * d_head;
  const size_t block = run->plan->projection_block;
  void *workspace = run->arena + run->plan->projection_workspace;

  for (size_t t = 0; t < run->n_tokens; t += block) {
    const size_t rows = quads_min(block, run->n_tokens - t);
    const int8_t *x = layer_norm(run, &layer->attention_norm, t, rows, run->plan->normalized);
    enter(run, QUADS_STAGE_PROJECTIONS);
    quads_linear_s8(x, d, rows, &layer->query, first, d_head, run->attention + t * d + first, d,
                    workspace);
    quads_linear_s8(x, d, rows, &layer->key, first, d_head, run->key + t * d_head, d_head,
                    workspace);
    quads_linear_s8(x, d, rows, &layer->value, first, d_head, run->value + t * d_head, d_head,
                    workspace);
  }
}

/* softmax(query key' / sqrt(d_head)) value; each output takes its query's place. */
static void attend(const run_t *run, const quads_layer_t *layer, size_t head) {
  enter(run, QUADS_STAGE_ATTENTION);
  quads_attention_head(run->attention + head * run->d_head, run->d_model, run->key, run->value,
                       run->n_tokens, run->d_head, layer->score_multiplier, layer->value_multiplier,
                       run->arena + run->plan->attention_workspace);
}

/* residual += output(attention(LayerNorm(residual))) */
static void self_attention(const run_t *run, const quads_layer_t *layer) {
  const size_t d = run->d_model;
  const size_t block = run->plan->output_block;

  for (size_t head = 0; head < run->model->n_heads; head++) {
    project(run, layer, head);
    attend(run, layer, head);
  }
  enter(run, QUADS_STAGE_PROJECTIONS);
  for (size_t t = 0; t < run->n_tokens; t += block) {
    quads_linear_add_s16(run->attention + t * d, quads_min(block, run->n_tokens - t),
                         &layer->output, run->residual + t * d,
                         run->arena + run->plan->output_workspace);
  }
}

/* residual += feed_forward_2(GELU(feed_forward_1(LayerNorm(residual)))) */
static void feed_forward(const run_t *run, const quads_layer_t *layer) {
  const size_t d = run->d_model;
  const size_t block = run->plan->feed_forward_block;
  void *workspace = run->arena + run->plan->feed_forward_workspace;

  for (size_t t = 0; t < run->n_tokens; t += block) {
    const size_t rows = quads_min(block, run->n_tokens - t);
    const int8_t *x =
        layer_norm(run, &layer->feed_forward_norm, t, rows, run->plan->feed_forward_normalized);
    enter(run, QUADS_STAGE_FEED_FORWARD);
    quads_linear_s8(x, d, rows, &layer->feed_forward_1, 0, 4 * d, run->hidden, 4 * d, workspace);
    quads_gelu_s8(run->hidden, rows * 4 * d, layer->gelu);
    quads_linear_add_s16(run->hidden, rows, &layer->feed_forward_2, run->residual + t * d,
                         workspace);
  }
}

/* logits = head(mean_pool(LayerNorm(residual))) */
static void classify(const run_t *run, int32_t *logits) {
  const quads_model_t *m = run->model;

  const size_t block = run->plan->pool_block;

  memset(run->sums, 0, run->d_model * sizeof run->sums[0]);
  for (size_t t = 0; t < run->n_tokens; t += block) {
    const size_t rows = quads_min(block, run->n_tokens - t);
    const int8_t *x = layer_norm(run, &m->norm, t, rows, run->plan->pool_normalized);
    enter(run, QUADS_STAGE_HEAD);
    quads_sum_rows(x, rows, run->d_model, run->sums);
  }
  quads_mean_pool(run->sums, run->d_model, m->pool_multiplier, run->pooled);
  quads_head(run->pooled, &m->head, logits, run->arena + run->plan->head_workspace);
}

int quads_infer(quads_t *q, int32_t *logits, const quads_observer_t *observer) {
  if (q == NULL || logits == NULL || (observer != NULL && observer->enter == NULL)) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (q->model == NULL || !q->closed) {
    return QUADS_ERROR_STATE;
  }
  const run_t run = bind_tensors(q, observer);

  convolutions(&run);
  for (size_t i = 0; i < q->model->n_layers; i++) {
    self_attention(&run, &q->model->layers[i]);
    feed_forward(&run, &q->model->layers[i]);
  }
  classify(&run, logits);
  enter(&run, QUADS_STAGE_END);
  return QUADS_OK;
}

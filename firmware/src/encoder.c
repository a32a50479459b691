/* The encoder of docs/arithmetic.md, section 8.
 *
 * The residual stream is whole; everything else passes in blocks of rows or one head at a time, so
 * that the arena stays small. Weights are decoded anew for each block, which the block's rows pay
 * for. */
#include "encoder.h"

#include <string.h>

#include "kernels/quads_kernels.h"
#include "quads.h"
#include "quads_math.h"

/* A model and its tensors in the arena. */
typedef struct {
  const quads_model_t *model;
  const quads_observer_t *observer;
  int stopped; /* the observer wants no more */
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
  int16_t *pooled;   /* [d_model], or [n_slots][d_model] */
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
      .pooled = (int16_t *)(void *)(arena + plan->pooled),
  };
  return run;
}

static void enter(const run_t *run, uint8_t stage) {
  if (run->observer != NULL) {
    run->observer->enter(run->observer->context, stage);
  }
}

/* Between two kernels: let the observer do something else. Returns nonzero when it says stop. */
static int poll(run_t *run) {
  if (!run->stopped && run->observer != NULL && run->observer->poll != NULL) {
    run->stopped = run->observer->poll(run->observer->context);
  }
  return run->stopped;
}

static void enter_layer(const run_t *run, size_t layer) {
  if (run->observer != NULL && run->observer->layer != NULL) {
    run->observer->layer(run->observer->context, (uint16_t)layer);
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

/* Rows first .. first + n_tokens - 1 of residual = positions + GELU16(conv2(GELU(conv1(mel))))
 *
 * A convolution is a linear layer over rows that overlap: three neighbours are contiguous. A block
 * of n tokens needs conv1's rows 2t - 1 .. 2(t + n) - 1, the first of which the block before made.
 */
static void convolutions(run_t *run, size_t first, size_t n_tokens) {
  const quads_model_t *m = run->model;
  const size_t d = run->d_model;
  const size_t end = first + n_tokens;
  const size_t block = run->plan->conv_block;
  void *workspace = run->arena + run->plan->conv_workspace;

  enter(run, QUADS_STAGE_CONVOLUTIONS);
  if (first == 0) {
    memset(run->conv, m->conv1_gelu_zero_point, d);
  } else {
    quads_linear_s8(run->mel + (2 * first - 1) * m->n_mels, m->n_mels, 1, &m->conv1, 0, d,
                    run->conv, d, workspace);
    quads_gelu_s8(run->conv, d, m->conv1_gelu);
  }
  for (size_t t = first; t < end && !poll(run); t += block) {
    const size_t n = quads_min(block, end - t);
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
static void project(run_t *run, const quads_layer_t *layer, size_t head) {
  const size_t d = run->d_model;
  const size_t d_head = run->d_head;
  const size_t first = head * d_head;
  const size_t block = run->plan->projection_block;
  void *workspace = run->arena + run->plan->projection_workspace;

  for (size_t t = 0; t < run->n_tokens && !poll(run); t += block) {
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
static void attend(run_t *run, const quads_layer_t *layer, size_t head) {
  if (poll(run)) {
    return;
  }
  enter(run, QUADS_STAGE_ATTENTION);
  quads_attention_head(run->attention + head * run->d_head, run->d_model, run->key, run->value,
                       run->n_tokens, run->d_head, layer->score_multiplier, layer->value_multiplier,
                       run->arena + run->plan->attention_workspace);
}

/* residual += output(attention(LayerNorm(residual))) */
static void self_attention(run_t *run, const quads_layer_t *layer) {
  const size_t d = run->d_model;
  const size_t block = run->plan->output_block;

  for (size_t head = 0; head < run->model->n_heads; head++) {
    project(run, layer, head);
    attend(run, layer, head);
  }
  enter(run, QUADS_STAGE_PROJECTIONS);
  for (size_t t = 0; t < run->n_tokens && !poll(run); t += block) {
    quads_linear_add_s16(run->attention + t * d, quads_min(block, run->n_tokens - t),
                         &layer->output, run->residual + t * d,
                         run->arena + run->plan->output_workspace);
  }
}

/* residual += feed_forward_2(GELU(feed_forward_1(LayerNorm(residual)))) */
static void feed_forward(run_t *run, const quads_layer_t *layer) {
  const size_t d = run->d_model;
  const size_t block = run->plan->feed_forward_block;
  void *workspace = run->arena + run->plan->feed_forward_workspace;

  for (size_t t = 0; t < run->n_tokens && !poll(run); t += block) {
    const size_t rows = quads_min(block, run->n_tokens - t);
    const int8_t *x =
        layer_norm(run, &layer->feed_forward_norm, t, rows, run->plan->feed_forward_normalized);
    enter(run, QUADS_STAGE_FEED_FORWARD);
    quads_linear_s8(x, d, rows, &layer->feed_forward_1, 0, 4 * d, run->hidden, 4 * d, workspace);
    quads_gelu_s8(run->hidden, rows * 4 * d, layer->gelu);
    if (poll(run)) {
      return;
    }
    quads_linear_add_s16(run->hidden, rows, &layer->feed_forward_2, run->residual + t * d,
                         workspace);
  }
}

/* pooled = mean_pool(LayerNorm(residual)) */
static void pool_mean(run_t *run) {
  const quads_model_t *m = run->model;
  const size_t block = run->plan->pool_block;
  int32_t *sums = (int32_t *)(void *)(run->arena + run->plan->pool_workspace);

  memset(sums, 0, run->d_model * sizeof sums[0]);
  for (size_t t = 0; t < run->n_tokens && !poll(run); t += block) {
    const size_t rows = quads_min(block, run->n_tokens - t);
    const int8_t *x = layer_norm(run, &m->norm, t, rows, run->plan->pool_normalized);
    enter(run, QUADS_STAGE_HEAD);
    quads_sum_rows(x, rows, run->d_model, sums);
  }
  if (!run->stopped) {
    quads_mean_pool(sums, run->d_model, m->pool_multiplier, run->pooled);
  }
}

/* pooled[slot] = softmax(query[slot] LayerNorm(residual)') LayerNorm(residual) */
static void pool_by_attention(run_t *run) {
  const quads_model_t *m = run->model;
  const size_t d = run->d_model;
  const size_t block = run->plan->pool_block;
  const int8_t *x = (const int8_t *)(run->arena + run->plan->pool_normalized);

  for (size_t t = 0; t < run->n_tokens && !poll(run); t += block) {
    const size_t rows = quads_min(block, run->n_tokens - t);
    layer_norm(run, &m->norm, t, rows, run->plan->pool_normalized + (uint32_t)(t * d));
  }
  enter(run, QUADS_STAGE_HEAD);
  for (size_t s = 0; s < m->n_slots && !poll(run); s++) {
    quads_attention_pool(m->pool_query + s * d, x, run->n_tokens, d, m->pool_score_multiplier,
                         m->pool_multiplier, run->pooled + s * d,
                         run->arena + run->plan->pool_workspace);
  }
}

/* logits = head(pool(LayerNorm(residual))) */
static void classify(run_t *run, int32_t *logits) {
  const quads_model_t *m = run->model;
  void *workspace = run->arena + run->plan->head_workspace;

  if (m->pool_query == NULL) {
    pool_mean(run);
  } else {
    pool_by_attention(run);
  }
  if (run->stopped) {
    return;
  }
  if (m->pool_query == NULL) {
    quads_head(run->pooled, &m->head, 0, m->n_classes, logits, workspace);
    return;
  }
  for (size_t s = 0; s < m->n_slots; s++) {
    const quads_slot_t *slot = &m->slots[s];
    quads_head(run->pooled + s * run->d_model, &m->head, slot->first, slot->n_labels,
               logits + slot->first, workspace);
  }
}

int quads_encode_front(const quads_t *q, size_t first, size_t n_tokens,
                       const quads_observer_t *observer) {
  run_t run = bind_tensors(q, observer);

  convolutions(&run, first, n_tokens);
  return run.stopped ? QUADS_ERROR_STOPPED : QUADS_OK;
}

int quads_encode(const quads_t *q, int32_t *logits, const quads_observer_t *observer) {
  run_t run = bind_tensors(q, observer);

  for (size_t i = 0; i < q->model->n_layers && !run.stopped; i++) {
    enter_layer(&run, i);
    self_attention(&run, &q->model->layers[i]);
    feed_forward(&run, &q->model->layers[i]);
  }
  if (!run.stopped) {
    enter_layer(&run, q->model->n_layers);
    classify(&run, logits);
  }
  enter(&run, QUADS_STAGE_END);
  return run.stopped ? QUADS_ERROR_STOPPED : QUADS_OK;
}

int quads_infer(quads_t *q, int32_t *logits, const quads_observer_t *observer) {
  if (q == NULL || logits == NULL || (observer != NULL && observer->enter == NULL)) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (q->model == NULL || !q->closed) {
    return QUADS_ERROR_STATE;
  }
  const int error = quads_encode_front(q, 0, q->model->n_tokens, observer);
  return error != QUADS_OK ? error : quads_encode(q, logits, observer);
}

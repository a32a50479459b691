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
  size_t d_model, d_head, n_tokens, token_block;
  const int8_t *mel;  /* [1 + n_frames + 1][n_mels] */
  int16_t *residual;  /* [n_tokens][d_model] */
  int8_t *conv;       /* [2 * conv_block + 1][d_model] */
  int8_t *normalized; /* [token_block][d_model] */
  int8_t *attention;  /* [n_tokens][d_model] */
  int8_t *key;        /* [n_tokens][d_head] */
  int8_t *value;      /* [n_tokens][d_head] */
  int32_t *scores;    /* [n_tokens] */
  int16_t *exps;      /* [n_tokens] */
  int8_t *hidden;     /* [token_block][4 * d_model] */
  int32_t *sums;      /* [d_model] */
  int16_t *pooled;    /* [d_model] */
  int8_t *tile;       /* [largest n_in][QUADS_TILE_ROWS] */
} run_t;

static run_t bind_tensors(const quads_t *q, const quads_observer_t *observer) {
  const quads_model_t *model = q->model;
  const quads_plan_t *plan = &model->plan;
  uint8_t *arena = q->arena;
  const run_t run = {
      .model = model,
      .observer = observer,
      .d_model = model->d_model,
      .d_head = model->d_model / model->n_heads,
      .n_tokens = model->n_tokens,
      .token_block = plan->token_block,
      .mel = (const int8_t *)(arena + plan->mel),
      .residual = (int16_t *)(void *)(arena + plan->residual),
      .conv = (int8_t *)(arena + plan->conv),
      .normalized = (int8_t *)(arena + plan->normalized),
      .attention = (int8_t *)(arena + plan->attention),
      .key = (int8_t *)(arena + plan->key),
      .value = (int8_t *)(arena + plan->value),
      .scores = (int32_t *)(void *)(arena + plan->scores),
      .exps = (int16_t *)(void *)(arena + plan->exps),
      .hidden = (int8_t *)(arena + plan->hidden),
      .sums = (int32_t *)(void *)(arena + plan->sums),
      .pooled = (int16_t *)(void *)(arena + plan->pooled),
      .tile = (int8_t *)(arena + plan->tile),
  };
  return run;
}

static void enter(const run_t *run, uint8_t stage) {
  if (run->observer != NULL) {
    run->observer->enter(run->observer->context, stage);
  }
}

static void enter_layer(const run_t *run, size_t layer) {
  if (run->observer != NULL && run->observer->layer != NULL) {
    run->observer->layer(run->observer->context, (uint16_t)layer);
  }
}

/* Tokens of the block that begins at token t. */
static size_t block_rows(const run_t *run, size_t t) {
  return quads_min(run->token_block, run->n_tokens - t);
}

/* normalized = LayerNorm(residual), rows t .. t + rows - 1 */
static void layer_norm(const run_t *run, const quads_norm_t *norm, size_t t, size_t rows) {
  enter(run, QUADS_STAGE_NORMS);
  quads_layer_norm(run->residual + t * run->d_model, rows, run->d_model, norm, run->model->sqrt_d,
                   run->normalized);
}

/* residual = positions + GELU16(conv2(GELU(conv1(mel))))
 *
 * A convolution is a linear layer over rows that overlap: three neighbours are contiguous. A block
 * of n tokens needs conv1's rows 2t - 1 .. 2(t + n) - 1, the first of which the block before made.
 */
static void convolutions(const run_t *run) {
  const quads_model_t *m = run->model;
  const size_t d = run->d_model;
  const size_t block = m->plan.conv_block;

  enter(run, QUADS_STAGE_CONVOLUTIONS);
  memset(run->conv, m->conv1_gelu_zero_point, d);
  for (size_t t = 0; t < run->n_tokens; t += block) {
    const size_t n = quads_min(block, run->n_tokens - t);
    int16_t *residual = run->residual + t * d;
    int8_t *preactivation = (int8_t *)residual + n * d; /* the upper half of the same memory */

    quads_linear_s8(run->mel + 2 * t * m->n_mels, m->n_mels, 2 * n, &m->conv1, 0, d, run->conv + d,
                    d, run->tile);
    quads_gelu_s8(run->conv + d, 2 * n * d, m->conv1_gelu);
    quads_linear_s8(run->conv, 2 * d, n, &m->conv2, 0, d, preactivation, d, run->tile);
    quads_gelu_positions_s16(preactivation, n * d, m->conv2_gelu, m->positions + t * d,
                             m->position_multiplier, residual);
    memcpy(run->conv, run->conv + 2 * n * d, d);
  }
}

/* Queries, keys and values of one head; the queries go where the head's outputs will be. */
static void project(const run_t *run, const quads_layer_t *layer, size_t head) {
  const size_t d = run->d_model;
  const size_t first = head * run->d_head;

  for (size_t t = 0; t < run->n_tokens; t += run->token_block) {
    const size_t rows = block_rows(run, t);
    layer_norm(run, &layer->attention_norm, t, rows);
    enter(run, QUADS_STAGE_PROJECTIONS);
    quads_linear_s8(run->normalized, d, rows, &layer->query, first, run->d_head,
                    run->attention + t * d + first, d, run->tile);
    quads_linear_s8(run->normalized, d, rows, &layer->key, first, run->d_head,
                    run->key + t * run->d_head, run->d_head, run->tile);
    quads_linear_s8(run->normalized, d, rows, &layer->value, first, run->d_head,
                    run->value + t * run->d_head, run->d_head, run->tile);
  }
}

/* softmax(query key' / sqrt(d_head)) value; each output takes its query's place. */
static void attend(const run_t *run, const quads_layer_t *layer, size_t head) {
  enter(run, QUADS_STAGE_ATTENTION);
  for (size_t t = 0; t < run->n_tokens; t++) {
    int8_t *row = run->attention + t * run->d_model + head * run->d_head;
    quads_attention_scores(row, run->key, run->n_tokens, run->d_head, run->scores);
    const uint32_t sum =
        quads_softmax_exps(run->scores, run->n_tokens, layer->score_multiplier, run->exps);
    quads_attention_values(run->exps, sum, run->value, run->n_tokens, run->d_head,
                           layer->value_multiplier, row);
  }
}

/* residual += output(attention(LayerNorm(residual))) */
static void self_attention(const run_t *run, const quads_layer_t *layer) {
  for (size_t head = 0; head < run->model->n_heads; head++) {
    project(run, layer, head);
    attend(run, layer, head);
  }
  enter(run, QUADS_STAGE_PROJECTIONS);
  quads_linear_add_s16(run->attention, run->n_tokens, &layer->output, run->residual, run->tile);
}

/* residual += feed_forward_2(GELU(feed_forward_1(LayerNorm(residual)))) */
static void feed_forward(const run_t *run, const quads_layer_t *layer) {
  const size_t d = run->d_model;

  for (size_t t = 0; t < run->n_tokens; t += run->token_block) {
    const size_t rows = block_rows(run, t);
    layer_norm(run, &layer->feed_forward_norm, t, rows);
    enter(run, QUADS_STAGE_FEED_FORWARD);
    quads_linear_s8(run->normalized, d, rows, &layer->feed_forward_1, 0, 4 * d, run->hidden, 4 * d,
                    run->tile);
    quads_gelu_s8(run->hidden, rows * 4 * d, layer->gelu);
    quads_linear_add_s16(run->hidden, rows, &layer->feed_forward_2, run->residual + t * d,
                         run->tile);
  }
}

/* logits = head(mean_pool(LayerNorm(residual))) */
static void classify(const run_t *run, int32_t *logits) {
  const quads_model_t *m = run->model;

  memset(run->sums, 0, run->d_model * sizeof run->sums[0]);
  for (size_t t = 0; t < run->n_tokens; t += run->token_block) {
    const size_t rows = block_rows(run, t);
    layer_norm(run, &m->norm, t, rows);
    enter(run, QUADS_STAGE_HEAD);
    quads_sum_rows(run->normalized, rows, run->d_model, run->sums);
  }
  quads_mean_pool(run->sums, run->d_model, m->pool_multiplier, run->pooled);
  quads_head(run->pooled, &m->head, logits, run->tile);
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
    enter_layer(&run, i);
    self_attention(&run, &q->model->layers[i]);
    feed_forward(&run, &q->model->layers[i]);
  }
  enter_layer(&run, q->model->n_layers);
  classify(&run, logits);
  enter(&run, QUADS_STAGE_END);
  return QUADS_OK;
}

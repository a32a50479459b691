#include "kernels/esp/quads_esp.h"

typedef struct {
  int8_t *query;
  size_t stride;
  const int8_t *key, *value;
  size_t n_tokens, d_head;
  int32_t score_multiplier, value_multiplier;
} head_t;

/* Scores and exponentials of one query, each beginning on a multiple of 8. */
static size_t scores_of(size_t n_tokens) {
  return (n_tokens + 1) / 2 * 2;
}

/* As in plain/quads_attention_head.c: one query at a time. */
static void queries(const void *context, size_t first, size_t end, void *workspace) {
  const head_t *head = context;
  int32_t *scores = workspace;
  int16_t *exps = (int16_t *)(void *)(scores + scores_of(head->n_tokens));

  for (size_t t = first; t < end; t++) {
    int8_t *query = head->query + t * head->stride;
    quads_attention_scores(query, head->key, head->n_tokens, head->d_head, scores);
    const uint32_t sum = quads_softmax_exps(scores, head->n_tokens, head->score_multiplier, exps);
    quads_attention_values(exps, sum, head->value, head->n_tokens, head->d_head,
                           head->value_multiplier, query);
  }
}

void quads_attention_head(int8_t *query, size_t stride, const int8_t *key, const int8_t *value,
                          size_t n_tokens, size_t d_head, int32_t score_multiplier,
                          int32_t value_multiplier, void *workspace) {
  const head_t head = {
      .query = query,
      .stride = stride,
      .key = key,
      .value = value,
      .n_tokens = n_tokens,
      .d_head = d_head,
      .score_multiplier = score_multiplier,
      .value_multiplier = value_multiplier,
  };
  const size_t row_bytes = scores_of(n_tokens) * sizeof(int32_t);
  quads_esp_split(queries, &head, n_tokens, 1, 2 * n_tokens * n_tokens * d_head, workspace,
                  row_bytes + (n_tokens + 3) / 4 * 4 * sizeof(int16_t));
}

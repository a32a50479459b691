/* quads.h - spoken intents on a microcontroller: the one public header and its manual.
 *
 * Feed 16 kHz PCM in chunks of any size, close the window, infer:
 *
 *     static _Alignas(8) uint8_t arena[QUADS_MODEL_ARENA_BYTES];
 *     quads_t q;
 *     int32_t logits[QUADS_MODEL_CLASSES];
 *     uint16_t answers[QUADS_MODEL_SLOTS];
 *
 *     quads_init(&q, &quads_model, arena, sizeof arena);
 *     while (samples remain) quads_push(&q, pcm, n_samples);
 *     quads_close(&q);
 *     quads_infer(&q, logits, NULL);
 *     if (quads_decide(&quads_model, logits, answers) == QUADS_ACCEPTED)
 *       puts(quads_model.slots[0].labels[answers[0]]);
 *     quads_restart(&q);                       // ready for the next utterance
 *
 * The caller owns the state (quads_t), the arena and the logits; nothing here allocates, recurses,
 * keeps a global or calls a math library. Every function returns 0 or a negative quads_status_t
 * and leaves its outputs untouched on error. Integer semantics: docs/arithmetic.md.
 */
#ifndef QUADS_H
#define QUADS_H

#include <stddef.h>
#include <stdint.h>

#include "quads_format.h"
#include "quads_frontend.h"

#if QUADS_FORMAT_VERSION != 3
#error "this runtime runs models of format version 3; export the model again"
#endif

typedef enum {
  QUADS_OK = 0,
  QUADS_ERROR_ARGUMENT = -1, /* a null pointer or an impossible size */
  QUADS_ERROR_ARENA = -2,    /* arena too small or not 8-byte aligned */
  QUADS_ERROR_MODEL = -3,    /* model of another format version */
  QUADS_ERROR_STATE = -4,    /* call out of order, e.g. infer before close */
  QUADS_ERROR_STOPPED = -5,  /* the observer's poll ended the inference */
} quads_status_t;

/* Weights [n_out][n_in] as packed codebook indices; layout: docs/arithmetic.md, section 9. */
typedef struct {
  const uint8_t *indices;    /* [n_out][n_in * bits / 8], or as the build's kernels want them */
  const int8_t *centroids;   /* [1 << bits] */
  const int32_t *bias;       /* [n_out], the input's zero point folded in */
  const int32_t *multiplier; /* [n_out] or [1]; NULL for the head */
  uint16_t n_out;
  uint16_t n_in;
  uint8_t bits;        /* 2, 3, 4 or 8 */
  uint8_t per_channel; /* 1: multiplier has n_out entries */
} quads_linear_t;

typedef struct {
  const int16_t *gamma; /* [d_model] */
  const int32_t *beta;  /* [d_model] */
  uint32_t epsilon;
  uint8_t shift;
} quads_norm_t;

typedef struct {
  quads_norm_t attention_norm;
  quads_linear_t query, key, value;
  int32_t score_multiplier;
  int32_t value_multiplier;
  quads_linear_t output;
  quads_norm_t feed_forward_norm;
  quads_linear_t feed_forward_1;
  const int8_t *gelu; /* [256], int8 pre-activation + 128 -> int8 */
  quads_linear_t feed_forward_2;
} quads_layer_t;

/* Where each tensor lies in the arena, bytes from its start; computed by the exporter. Tensors that
 * are never needed at the same time share memory. A workspace is what the kernels of its step use
 * inside a call. */
typedef struct {
  uint32_t mel;      /* int8  [1 + n_frames + 1][n_mels], a padding row at either end */
  uint32_t residual; /* int16 [n_tokens][d_model] */
  uint32_t conv;     /* int8  [2 * conv_block + 1][d_model] */
  uint32_t conv_workspace;
  uint32_t normalized; /* int8  [projection_block][d_model] */
  uint32_t projection_workspace;
  uint32_t attention; /* int8  [n_tokens][d_model]; queries, then outputs, a head's columns */
  uint32_t key;       /* int8  [n_tokens][d_head] */
  uint32_t value;     /* int8  [n_tokens][d_head] */
  uint32_t attention_workspace;
  uint32_t output_workspace;
  uint32_t feed_forward_normalized; /* int8  [feed_forward_block][d_model] */
  uint32_t hidden;                  /* int8  [feed_forward_block][4 * d_model] */
  uint32_t feed_forward_workspace;
  uint32_t pool_normalized; /* int8  [pool_block][d_model]; attention pools: [n_tokens][d_model] */
  uint32_t pool_workspace;  /* int32 [d_model] sums, or the workspace of quads_attention_pool */
  uint32_t pooled;          /* int16 [d_model]; attention pools: [n_slots][d_model] */
  uint32_t head_workspace;
  uint32_t arena_bytes; /* size of the whole arena */
  uint16_t conv_block;  /* tokens at a time, by step of the encoder */
  uint16_t projection_block;
  uint16_t output_block;
  uint16_t feed_forward_block;
  uint16_t pool_block;
} quads_plan_t;

/* One question to an utterance; its logits are first .. first + n_labels - 1. */
typedef struct {
  const char *name;
  const char *const *labels; /* [n_labels], UTF-8 */
  uint16_t first;
  uint16_t n_labels;
} quads_slot_t;

typedef struct {
  uint32_t format_version;   /* QUADS_FORMAT_VERSION of the exporter */
  uint8_t hash[32];          /* SHA-256 of the packed model */
  const char *const *labels; /* [n_classes], UTF-8 */
  const quads_slot_t *slots; /* [n_slots]; a model of plain intents has one */
  uint16_t n_slots;
  int16_t unknown_class;    /* label of slots[0] for what is no command; -1: there is none */
  int32_t reject_threshold; /* least score of an accepted command */
  uint16_t n_mels, n_frames, n_tokens, d_model, n_heads, n_layers, n_classes;
  quads_linear_t conv1;
  const int8_t *conv1_gelu; /* [256] */
  int8_t conv1_gelu_zero_point;
  quads_linear_t conv2;
  const int16_t *conv2_gelu; /* [256], residual scale */
  const int8_t *positions;   /* [n_tokens][d_model] */
  int32_t position_multiplier;
  const quads_layer_t *layers; /* [n_layers] */
  quads_norm_t norm;
  uint32_t sqrt_d; /* floor(sqrt(d_model) * 2^26) */
  int32_t pool_multiplier;
  int32_t pool_score_multiplier;
  const int8_t *pool_query; /* [n_slots][d_model], an attention pool per slot; NULL: one mean */
  quads_linear_t head;
  quads_plan_t plan;
} quads_model_t;

/* The model of this build, defined by the generated model_data.c. */
extern const quads_model_t quads_model;

typedef struct {
  const quads_model_t *model;
  uint8_t *arena;
  quads_frontend_t frontend;
  uint32_t frame; /* mel frames in the window so far */
  uint8_t closed; /* the window is complete and clamped */
} quads_t;

/* `enter` is called when the encoder enters a stage and, with QUADS_STAGE_END, when it is done;
 * `layer`, if not NULL, before each encoder layer and, with n_layers, behind the last one;
 * `poll`, if not NULL, between two slices of the work: anything but 0 ends it. */
typedef struct {
  void (*enter)(void *context, uint8_t stage);
  void *context;
  void (*layer)(void *context, uint16_t layer);
  int (*poll)(void *context);
} quads_observer_t;

/* Prepare `q` for `model`. The arena must be 8-byte aligned, at least plan.arena_bytes long, and
 * stay untouched by the caller until q is no longer used. */
int quads_init(quads_t *q, const quads_model_t *model, void *arena, size_t arena_bytes);

/* Begin a new window. */
int quads_restart(quads_t *q);

/* Feed n_samples of PCM (any number, 0 included). Samples beyond the window are ignored. */
int quads_push(quads_t *q, const int16_t *pcm, size_t n_samples);

/* End of audio: fill the window with silence and apply Whisper's clamp. Idempotent. */
int quads_close(quads_t *q);

/* Put int8 log-mel features in instead of PCM: `mel` is [n_frames][n_mels], already clamped. */
int quads_set_features(quads_t *q, const int8_t *mel);

/* The closed window's features, int8 [n_frames][n_mels], or NULL before quads_close. */
const int8_t *quads_features(const quads_t *q);

/* Run the encoder. logits: int32 [n_classes]. The features stay, so this can be repeated. */
int quads_infer(quads_t *q, int32_t *logits, const quads_observer_t *observer);

/* Index of the greatest logit; the lowest one on ties. */
uint16_t quads_argmax(const int32_t *logits, uint16_t n_classes);

typedef enum { QUADS_REJECTED = 0, QUADS_ACCEPTED = 1 } quads_decision_t;

/* What logits [n_classes] say: the label of every slot, answers [n_slots], never the unknown one,
 * and whether the utterance is a command at all (docs/arithmetic.md, section 7). Returns a
 * quads_decision_t, or QUADS_ERROR_ARGUMENT for a null pointer. */
int quads_decide(const quads_model_t *model, const int32_t *logits, uint16_t *answers);

#endif

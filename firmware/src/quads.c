#include "quads.h"

#include <string.h>

#include "quads_math.h"

#define SILENCE_SAMPLES 64

static int8_t *mel_row(const quads_t *q, size_t row) {
  return (int8_t *)(q->arena + q->model->plan.mel) + row * q->model->n_mels;
}

int quads_init(quads_t *q, const quads_model_t *model, void *arena, size_t arena_bytes) {
  if (q == NULL || model == NULL || arena == NULL) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (model->format_version != QUADS_FORMAT_VERSION) {
    return QUADS_ERROR_MODEL;
  }
  if (arena_bytes < model->plan.arena_bytes || (uintptr_t)arena % 8 != 0) {
    return QUADS_ERROR_ARENA;
  }
  q->model = model;
  q->arena = arena;
  return quads_restart(q);
}

int quads_restart(quads_t *q) {
  if (q == NULL) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (q->model == NULL) {
    return QUADS_ERROR_STATE;
  }
  quads_frontend_restart(&q->frontend);
  q->frame = 0;
  q->closed = 0;
  memset(mel_row(q, 0), QUADS_MEL_ZERO_POINT, q->model->n_mels);
  memset(mel_row(q, 1 + (size_t)q->model->n_frames), QUADS_MEL_ZERO_POINT, q->model->n_mels);
  return QUADS_OK;
}

int quads_push(quads_t *q, const int16_t *pcm, size_t n_samples) {
  if (q == NULL || (pcm == NULL && n_samples > 0)) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (q->model == NULL || q->closed) {
    return QUADS_ERROR_STATE;
  }
  while (n_samples > 0 && q->frame < q->model->n_frames) {
    size_t consumed = 0;
    if (quads_frontend_process(&q->frontend, pcm, n_samples, &consumed, mel_row(q, 1 + q->frame))) {
      q->frame++;
    }
    pcm += consumed;
    n_samples -= consumed;
  }
  return QUADS_OK;
}

/* q = max(q, q_max - 160): Whisper's clamp to 8 decades below the window's maximum. */
static void clamp_window(const quads_t *q) {
  int8_t *mel = mel_row(q, 1);
  const size_t n = (size_t)q->model->n_frames * q->model->n_mels;
  int32_t max = -128;
  for (size_t i = 0; i < n; i++) {
    max = mel[i] > max ? mel[i] : max;
  }
  const int32_t floor = max - QUADS_MEL_CLAMP;
  for (size_t i = 0; i < n; i++) {
    mel[i] = (int8_t)(mel[i] < floor ? floor : mel[i]);
  }
}

int quads_close(quads_t *q) {
  static const int16_t silence[SILENCE_SAMPLES] = {0};

  if (q == NULL) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (q->model == NULL) {
    return QUADS_ERROR_STATE;
  }
  if (q->closed) {
    return QUADS_OK;
  }
  /* After a window of zeros every frame that still holds a sample of the audio is complete. */
  for (size_t left = QUADS_WINDOW_SAMPLES; left > 0;) {
    const size_t n = quads_min(left, SILENCE_SAMPLES);
    (void)quads_push(q, silence, n);
    left -= n;
  }
  memset(mel_row(q, 1 + q->frame), -128, (q->model->n_frames - q->frame) * q->model->n_mels);
  q->frame = q->model->n_frames;
  clamp_window(q);
  q->closed = 1;
  return QUADS_OK;
}

int quads_set_features(quads_t *q, const int8_t *mel) {
  if (q == NULL || mel == NULL) {
    return QUADS_ERROR_ARGUMENT;
  }
  if (q->model == NULL) {
    return QUADS_ERROR_STATE;
  }
  memmove(mel_row(q, 1), mel, (size_t)q->model->n_frames * q->model->n_mels);
  q->frame = q->model->n_frames;
  q->closed = 1;
  return QUADS_OK;
}

const int8_t *quads_features(const quads_t *q) {
  return q != NULL && q->model != NULL && q->closed ? mel_row(q, 1) : NULL;
}

uint16_t quads_argmax(const int32_t *logits, uint16_t n_classes) {
  uint16_t best = 0;
  for (uint16_t i = 1; i < n_classes; i++) {
    if (logits[i] > logits[best]) {
      best = i;
    }
  }
  return best;
}

/* The first label with the greatest logit, but for `skip`; there are two labels at least. */
static uint16_t best_label(const int32_t *logits, uint16_t n_labels, int32_t skip) {
  uint16_t best = skip == 0 ? 1 : 0;
  for (uint16_t i = (uint16_t)(best + 1); i < n_labels; i++) {
    if (i != skip && logits[i] > logits[best]) {
      best = i;
    }
  }
  return best;
}

int quads_decide(const quads_model_t *model, const int32_t *logits, uint16_t *answers) {
  if (model == NULL || logits == NULL || answers == NULL) {
    return QUADS_ERROR_ARGUMENT;
  }
  const int32_t unknown = model->unknown_class;
  for (uint16_t s = 0; s < model->n_slots; s++) {
    const quads_slot_t *slot = &model->slots[s];
    answers[s] = best_label(logits + slot->first, slot->n_labels, s == 0 ? unknown : -1);
  }
  const int64_t score = (int64_t)logits[answers[0]] - (unknown >= 0 ? logits[unknown] : 0);
  return score < model->reject_threshold ? QUADS_REJECTED : QUADS_ACCEPTED;
}

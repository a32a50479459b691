/* Frames go into the ring and through the gate as they come in; the window in the arena is filled
 * from the ring, so that listening goes on while the encoder works. */
#include <string.h>

#include "encoder.h"
#include "quads_listen.h"
#include "quads_math.h"

_Static_assert(QUADS_HOP_SAMPLES == 5 << 5, "quads_listen_gap divides by it");

#define EARLY_TOKENS 4 /* front rows made at a time while speech comes in */
#define FRONT_ROWS 2   /* mel rows on either side of 2t that token t reads */

int quads_listen_init(quads_listen_t *listen, const quads_model_t *model, void *arena,
                      size_t arena_bytes, int8_t *ring, uint32_t ring_frames, int32_t *logits,
                      uint16_t *answers, const quads_gate_settings_t *settings) {
  if (listen == NULL || ring == NULL || logits == NULL || answers == NULL || settings == NULL) {
    return QUADS_ERROR_ARGUMENT;
  }
  memset(listen, 0, sizeof *listen);
  const int error = quads_init(&listen->quads, model, arena, arena_bytes);
  if (error != QUADS_OK) {
    return error;
  }
  if (ring_frames < (uint32_t)model->n_frames + settings->lead_frames ||
      settings->tail_frames == 0 || settings->tail_frames > settings->hangover_frames ||
      model->n_mels > QUADS_GATE_MAX_MELS) {
    return QUADS_ERROR_ARGUMENT;
  }
  listen->ring = ring;
  listen->stale = (uint8_t *)ring + (size_t)ring_frames * model->n_mels;
  listen->ring_frames = ring_frames;
  listen->logits = logits;
  listen->answers = answers;
  quads_gate_init(&listen->gate, settings, model->n_mels, model->n_frames);
  return QUADS_OK;
}

/* --- hearing ------------------------------------------------------------------------------ */

static int8_t *ring_row(const quads_listen_t *listen, uint32_t frame) {
  return listen->ring + (size_t)(frame % listen->ring_frames) * listen->quads.model->n_mels;
}

static quads_utterance_t *unconfirmed(quads_listen_t *listen) {
  quads_utterance_t *last = &listen->queue[listen->queued - (listen->queued > 0)];
  return listen->queued > 0 && !last->confirmed ? last : NULL;
}

/* Take back the utterance that is not over; an inference of it is stopped. */
static void withdraw(quads_listen_t *listen) {
  if (unconfirmed(listen) != NULL) {
    listen->queued--;
    listen->stop |= listen->queued == 0;
  }
}

static void propose(quads_listen_t *listen, uint32_t length) {
  if (listen->queued < QUADS_LISTEN_QUEUE) {
    listen->queue[listen->queued++] = (quads_utterance_t){
        .start = listen->gate.start,
        .length = (uint32_t)quads_min(length, listen->quads.model->n_frames),
        .end = listen->gate.end,
    };
  }
}

static void confirm(quads_listen_t *listen, uint32_t frame) {
  quads_utterance_t *utterance = unconfirmed(listen);
  listen->counters.utterances++;
  if (utterance == NULL) {
    listen->counters.utterances_lost++; /* the queue is full */
  } else {
    utterance->confirmed = 1;
    utterance->confirmed_at = frame;
  }
}

static void follow_gate(quads_listen_t *listen, quads_gate_signal_t signal, uint32_t frame) {
  const quads_gate_t *gate = &listen->gate;
  switch (signal) {
    case QUADS_GATE_NOTHING:
    case QUADS_GATE_OPENED:
      return;
    case QUADS_GATE_PAUSED:
      propose(listen, frame + 1 - gate->start);
      return;
    case QUADS_GATE_RESUMED:
      withdraw(listen);
      return;
    case QUADS_GATE_FULL:
      withdraw(listen);
      propose(listen, gate->n_frames);
      confirm(listen, frame);
      return;
    case QUADS_GATE_CLOSED:
      if (unconfirmed(listen) == NULL) {
        propose(listen, gate->end + gate->settings.tail_frames - gate->start);
      }
      confirm(listen, frame);
      return;
  }
}

void quads_listen_push(quads_listen_t *listen, const int16_t *pcm, size_t n_samples) {
  listen->samples += n_samples;
  while (n_samples > 0) {
    size_t consumed = 0;
    int8_t *row = ring_row(listen, listen->frame);
    if (quads_frontend_process(&listen->quads.frontend, pcm, n_samples, &consumed, row)) {
      const uint32_t frame = listen->frame++;
      listen->counters.frames++;
      follow_gate(listen, quads_gate_take(&listen->gate, row, frame, listen->oldest), frame);
    }
    pcm += consumed;
    n_samples -= consumed;
  }
}

const int8_t *quads_listen_frame(const quads_listen_t *listen, uint32_t frame) {
  return ring_row(listen, frame);
}

/* The first frame after the gap is centred on its first sample, like that of every stream. */
void quads_listen_gap(quads_listen_t *listen, uint32_t n_samples) {
  listen->samples += n_samples;
  listen->counters.gaps++;
  withdraw(listen);
  quads_gate_reset(&listen->gate);
  quads_frontend_restart(&listen->quads.frontend);
  /* samples / 160 in two digits: no 64-bit division, which small cores have no instruction for. */
  const uint32_t high = (uint32_t)(listen->samples >> 21);
  const uint32_t low = (uint32_t)(listen->samples >> 5) & 0xFFFFu;
  listen->frame = (high / 5 << 16) + ((high % 5 << 16 | low) / 5);
  listen->oldest = listen->frame;
}

/* --- the window --------------------------------------------------------------------------- */

static int8_t *window_row(const quads_listen_t *listen, uint32_t row) {
  const quads_model_t *model = listen->quads.model;
  return (int8_t *)(listen->quads.arena + model->plan.mel) + (1 + (size_t)row) * model->n_mels;
}

static void begin_window(quads_listen_t *listen, uint32_t start) {
  if (listen->window == start && listen->fed > 0) {
    return;
  }
  listen->window = start;
  listen->fed = 0;
  listen->front = 0;
  listen->loudest = -128;
}

/* Copy rows fed .. end - 1 from the ring. Returns 0, or -1 when they were overwritten. */
static int feed(quads_listen_t *listen, uint32_t end) {
  const size_t n_mels = listen->quads.model->n_mels;
  for (; listen->fed < end; listen->fed++) {
    const uint32_t frame = listen->window + listen->fed;
    if (listen->frame - frame > listen->ring_frames) {
      return -1;
    }
    const int8_t *from = ring_row(listen, frame);
    int8_t *to = window_row(listen, listen->fed);
    for (size_t i = 0; i < n_mels; i++) {
      to[i] = from[i];
      listen->loudest = from[i] > listen->loudest ? from[i] : listen->loudest;
    }
    listen->stale[listen->fed] = 0;
  }
  return 0;
}

/* q = max(q, q_max - 160) in rows first .. end - 1. A row that changes after a token was made of it
 * makes that token stale; the maximum only grows, so clamping again changes nothing else. */
static void clamp_rows(quads_listen_t *listen, uint32_t first, uint32_t end) {
  const size_t n_mels = listen->quads.model->n_mels;
  const int32_t floor = listen->loudest - QUADS_MEL_CLAMP;
  const uint32_t used = listen->front > 0 ? 2 * listen->front + FRONT_ROWS - 1 : 0;
  if (floor <= -128) {
    return;
  }
  for (uint32_t row = first; row < end; row++) {
    int8_t *mel = window_row(listen, row);
    for (size_t i = 0; i < n_mels; i++) {
      if (mel[i] < floor) {
        mel[i] = (int8_t)floor;
        listen->stale[row] |= row < used;
      }
    }
  }
}

/* While speech comes in: the next front rows whose frames are all there. */
static void make_early_tokens(quads_listen_t *listen) {
  const quads_model_t *model = listen->quads.model;
  const quads_gate_t *gate = &listen->gate;
  const uint32_t heard = listen->frame - gate->start;
  begin_window(listen, gate->start);
  listen->quads.closed = 0;
  const uint32_t end = (uint32_t)quads_min(heard, model->n_frames);
  if (feed(listen, (uint32_t)quads_min(end, 2 * (listen->front + EARLY_TOKENS) + FRONT_ROWS)) !=
      0) {
    return;
  }
  const uint32_t ready = listen->fed > FRONT_ROWS ? (listen->fed - FRONT_ROWS + 1) / 2 : 0;
  if (ready >= listen->front + EARLY_TOKENS) {
    const uint32_t first = listen->front;
    clamp_rows(listen, first > 0 ? 2 * first - FRONT_ROWS : 0,
               2 * (first + EARLY_TOKENS - 1) + FRONT_ROWS + 1);
    (void)quads_encode_front(&listen->quads, first, EARLY_TOKENS, NULL);
    listen->front += EARLY_TOKENS;
    listen->counters.tokens_early += EARLY_TOKENS;
  }
}

/* --- inference ---------------------------------------------------------------------------- */

static void enter_nothing(void *context, uint8_t stage) {
  (void)context;
  (void)stage;
}

static int poll(void *context) {
  quads_listen_t *listen = context;
  if (listen->poll != NULL) {
    listen->poll(listen->poll_context);
  }
  return listen->stop;
}

static int is_stale(const quads_listen_t *listen, uint32_t token) {
  const uint32_t last =
      (uint32_t)quads_min(2 * token + FRONT_ROWS, listen->quads.model->n_frames - 1);
  int stale = token >= listen->front;
  for (uint32_t row = token > 0 ? 2 * token - FRONT_ROWS : 0; row <= last && !stale; row++) {
    stale = listen->stale[row];
  }
  return stale;
}

/* Make the front rows that are missing or stale, a run of them at a time. */
static int complete_front(quads_listen_t *listen, const quads_observer_t *observer) {
  const uint32_t n_tokens = listen->quads.model->n_tokens;
  int error = QUADS_OK;
  for (uint32_t t = 0; t < n_tokens && error == QUADS_OK;) {
    uint32_t end = t;
    while (end < n_tokens && is_stale(listen, end)) {
      end++;
    }
    if (end > t) {
      error = quads_encode_front(&listen->quads, t, end - t, observer);
      listen->counters.tokens_late += end - t;
    }
    t = end + 1;
  }
  return error;
}

/* The window of the utterance: its frames, then silence, clamped. */
static int close_window(quads_listen_t *listen, const quads_utterance_t *utterance) {
  const quads_model_t *model = listen->quads.model;
  if (listen->fed > utterance->length) {
    listen->fed = 0; /* early rows went past its end: the queue was full when it paused */
  }
  begin_window(listen, utterance->start);
  if (feed(listen, utterance->length) != 0) {
    return -1;
  }
  const uint32_t rows = model->n_frames;
  memset(window_row(listen, listen->fed), -128, (size_t)(rows - listen->fed) * model->n_mels);
  memset(listen->stale + listen->fed, 1, rows - listen->fed);
  clamp_rows(listen, 0, rows);
  listen->quads.closed = 1;
  return 0;
}

/* Infer the first utterance of the queue. Returns 0, or -1 when its frames are gone. */
static int infer(quads_listen_t *listen) {
  const quads_observer_t observer = {.enter = enter_nothing, .context = listen, .poll = poll};
  listen->stop = 0;
  if (close_window(listen, &listen->queue[0]) != 0) {
    return -1;
  }
  listen->counters.inferences++;
  int error = complete_front(listen, &observer);
  listen->front = 0; /* the encoder uses the rows up */
  if (error == QUADS_OK) {
    error = quads_encode(&listen->quads, listen->logits, &observer);
  }
  if (error == QUADS_OK && !listen->stop) {
    listen->queue[0].inferred = 1;
  } else {
    listen->counters.inferences_stopped++;
  }
  return 0;
}

/* The event of the queue's first utterance; `gone`: its frames were, before it was inferred. */
static void report(quads_listen_t *listen, int gone, quads_listen_event_t *event) {
  const quads_utterance_t *utterance = &listen->queue[0];
  quads_heard_t kind = QUADS_HEARD_LOST;
  if (!gone) {
    const int decision = quads_decide(listen->quads.model, listen->logits, listen->answers);
    kind = decision == QUADS_ACCEPTED ? QUADS_HEARD_COMMAND : QUADS_HEARD_REJECTED;
  }
  *event = (quads_listen_event_t){
      .kind = kind,
      .start = utterance->start,
      .length = utterance->length,
      .end = utterance->end,
      .confirmed = utterance->confirmed_at,
      .answered = listen->frame,
  };
  listen->counters.utterances_lost += (uint32_t)gone;
  listen->queued--;
  memmove(listen->queue, listen->queue + 1, listen->queued * sizeof listen->queue[0]);
}

int quads_listen_run(quads_listen_t *listen, void (*poll_audio)(void *context), void *context,
                     quads_listen_event_t *event) {
  if (listen->queued == 0) {
    if (quads_gate_is_open(&listen->gate)) {
      make_early_tokens(listen);
    }
    return 0;
  }
  listen->poll = poll_audio;
  listen->poll_context = context;
  const int gone = !listen->queue[0].inferred && infer(listen) != 0;
  if (listen->queued == 0 || !listen->queue[0].confirmed || (!gone && !listen->queue[0].inferred)) {
    return 0;
  }
  report(listen, gone, event);
  return 1;
}

/* quads_listen.h - continuous listening: a stream of audio in, one event per utterance out.
 *
 *     static _Alignas(8) uint8_t arena[QUADS_MODEL_ARENA_BYTES];
 *     static int8_t ring[RING_BYTES];               // QUADS_LISTEN_RING_BYTES(RING_FRAMES, ...)
 *     static int32_t logits[QUADS_MODEL_CLASSES];
 *     static uint16_t answers[QUADS_MODEL_SLOTS];
 *     static quads_listen_t listen;
 *     quads_listen_event_t event;
 *
 *     static void hear(void *context) {             // drains the microphone
 *       while ((n = microphone(pcm, capacity)) > 0) quads_listen_push(&listen, pcm, n);
 *     }
 *
 *     quads_listen_init(&listen, &quads_model, arena, sizeof arena, ring, RING_FRAMES, logits,
 *                       answers, &settings);
 *     for (;;) {
 *       hear(NULL);
 *       while (quads_listen_run(&listen, hear, NULL, &event)) act_on(&event);
 *     }
 *
 * Every 10 ms frame goes into the ring and through the gate, which says when speech begins and
 * ends. quads_listen_run infers, and calls `hear` between the slices of that work, so that no audio
 * is lost meanwhile. What is heard does not depend on how the samples were chunked nor on when
 * quads_listen_run is called; docs/listening.md says what the gate does and what the limits are.
 * The caller owns all memory; nothing here allocates.
 */
#ifndef QUADS_LISTEN_H
#define QUADS_LISTEN_H

#include "quads.h"
#include "quads_gate.h"

/* Utterances that may wait for the encoder. */
#define QUADS_LISTEN_QUEUE 4

/* Bytes of the ring: n_ring_frames frames and one mark for each frame of the window. The ring must
 * hold the window and what is heard while an inference runs. */
#define QUADS_LISTEN_RING_BYTES(n_ring_frames, n_frames, n_mels) \
  ((size_t)(n_ring_frames) * (n_mels) + (n_frames))

typedef enum {
  QUADS_HEARD_COMMAND,  /* `answers` say which */
  QUADS_HEARD_REJECTED, /* an utterance that the model's threshold refuses; `answers` are a guess */
  QUADS_HEARD_LOST,     /* an utterance that could not be inferred: the ring was overwritten */
} quads_heard_t;

/* Times are frame numbers: frame f stands for the 10 ms from sample 160 f on. */
typedef struct {
  quads_heard_t kind;
  uint32_t start;     /* first frame of the window */
  uint32_t length;    /* frames of audio in it; the rest of the window is silence */
  uint32_t end;       /* the speech ended before this frame */
  uint32_t confirmed; /* the frame that made the end certain */
  uint32_t answered;  /* frames heard when the event was made */
} quads_listen_event_t;

typedef struct {
  uint32_t frames;             /* heard so far */
  uint32_t utterances;         /* confirmed so far */
  uint32_t utterances_lost;    /* of those, never inferred */
  uint32_t inferences;         /* begun */
  uint32_t inferences_stopped; /* begun in a pause that was not the end */
  uint32_t gaps;               /* calls of quads_listen_gap */
  uint32_t tokens_early;       /* front rows of windows that were made as frames came in */
  uint32_t tokens_late;        /* and those made after the pause began */
} quads_listen_counters_t;

typedef struct {
  uint32_t start, length, end, confirmed_at;
  uint8_t confirmed, inferred;
} quads_utterance_t;

typedef struct {
  quads_t quads;
  quads_gate_t gate;
  quads_listen_counters_t counters;
  int8_t *ring;      /* [ring_frames][n_mels] */
  uint8_t *stale;    /* [n_frames], behind the ring: a token was made of this row, and it changed */
  int32_t *logits;   /* [n_classes] */
  uint16_t *answers; /* [n_slots] */
  uint32_t ring_frames;
  uint64_t samples; /* since the stream began, lost ones included */
  uint32_t frame;   /* number of the next frame */
  uint32_t oldest;  /* first frame since the last gap */
  quads_utterance_t queue[QUADS_LISTEN_QUEUE];
  uint8_t queued;
  uint8_t stop; /* the inference under way is in vain */
  /* The window in the arena. */
  uint32_t window; /* its first frame */
  uint32_t fed;    /* frames in it */
  uint32_t front;  /* tokens whose front rows are made */
  int32_t loudest;
  void (*poll)(void *context);
  void *poll_context;
} quads_listen_t;

/* Prepare to listen. ring: QUADS_LISTEN_RING_BYTES; ring_frames: at least n_frames + lead_frames;
 * logits: [n_classes]; answers: [n_slots]. Returns 0 or a negative quads_status_t. */
int quads_listen_init(quads_listen_t *listen, const quads_model_t *model, void *arena,
                      size_t arena_bytes, int8_t *ring, uint32_t ring_frames, int32_t *logits,
                      uint16_t *answers, const quads_gate_settings_t *settings);

/* Hear n_samples (any number). Work: the frontend and the gate, once per 160 samples. */
void quads_listen_push(quads_listen_t *listen, const int16_t *pcm, size_t n_samples);

/* Say that n_samples were lost here. The utterance under way is dropped, listening starts anew; no
 * window ever reaches across a gap. */
void quads_listen_gap(quads_listen_t *listen, uint32_t n_samples);

/* Frame number `frame`, int8 [n_mels], one of the newest ring_frames. */
const int8_t *quads_listen_frame(const quads_listen_t *listen, uint32_t frame);

/* Do what is to be done: an inference, or a slice of the encoder's front for the frames that came
 * in. `poll` may call quads_listen_push and quads_listen_gap and nothing else of this header; NULL:
 * none. Returns 1 and fills `event` when there is one; features, logits and answers of the
 * utterance stay until the next call. */
int quads_listen_run(quads_listen_t *listen, void (*poll)(void *context), void *context,
                     quads_listen_event_t *event);

#endif

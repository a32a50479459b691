/* quads_gate.h - voice activity from int8 mel frames: says when an utterance begins and ends.
 *
 * Integers only; docs/listening.md has the formulas, quads_mcu/export/listener.py the twin.
 */
#ifndef QUADS_GATE_H
#define QUADS_GATE_H

#include <stdint.h>

#define QUADS_GATE_MAX_MELS 128

typedef struct {
  uint8_t gate_lsb;     /* a band counts when it is this far above its noise floor, 0.5 dB each */
  uint16_t lead_frames; /* before the first loud frame that belong to the utterance */
  uint16_t tail_frames; /* after its last loud frame; then the answer may be prepared */
  uint16_t hangover_frames; /* without a loud one that end it; at least tail_frames. A short burst
                               ends after half as many again. */
} quads_gate_settings_t;

typedef enum {
  QUADS_GATE_NOTHING,
  QUADS_GATE_OPENED,  /* an utterance began */
  QUADS_GATE_PAUSED,  /* its tail is complete: it may be over */
  QUADS_GATE_RESUMED, /* it was not */
  QUADS_GATE_CLOSED,  /* it was */
  QUADS_GATE_FULL,    /* it fills the window; nothing more is heard until a pause of 3/2 tails */
} quads_gate_signal_t;

typedef struct {
  quads_gate_settings_t settings;
  uint16_t n_mels, n_frames;          /* n_frames: of the window */
  int16_t level[QUADS_GATE_MAX_MELS]; /* of each band, smoothed, 1/64 LSB */
  int16_t floor[QUADS_GATE_MAX_MELS]; /* its noise floor, 1/64 LSB */
  uint16_t warming;                   /* frames until the floors move slowly; 0: they do */
  uint16_t run;                       /* loud frames in a row, counted until they open the gate */
  uint16_t quiet;                     /* quiet frames in a row */
  uint16_t loud;                      /* loud frames of the utterance, counted until it is long */
  uint8_t state;
  int32_t peak;   /* loudness of the utterance's loudest frame */
  uint32_t start; /* first frame of the utterance */
  uint32_t end;   /* one past its last loud frame */
} quads_gate_t;

void quads_gate_init(quads_gate_t *gate, const quads_gate_settings_t *settings, uint16_t n_mels,
                     uint16_t n_frames);

/* Whether an utterance is under way that the window has room for. */
int quads_gate_is_open(const quads_gate_t *gate);

/* Forget the utterance under way; the floors stay. */
void quads_gate_reset(quads_gate_t *gate);

/* Take frame number `frame`, int8 [n_mels]. `oldest`: first frame that may belong to an utterance.
 */
quads_gate_signal_t quads_gate_take(quads_gate_t *gate, const int8_t *mel, uint32_t frame,
                                    uint32_t oldest);

#endif

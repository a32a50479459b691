#include "quads_gate.h"
#include "quads_math.h"

/* Floors follow the 33rd percentile of their band: a rise of 1/8 LSB per frame is 6 dB/s. */
#define FLOOR_ONE 64
#define FLOOR_UP 8
#define FLOOR_DOWN 16
#define FLOOR_LEAST (-80 * FLOOR_ONE) /* below it is silence, not noise */
#define WARM_FRAMES 100
#define WARM_FACTOR 16

#define LOUD_LSB 2     /* mean excess of a loud frame */
#define ONSET_FRAMES 6 /* loud ones in a row that open the gate */
#define PEAK_SHIFT 3   /* inside an utterance loud is also relative to its peak */

enum { CLOSED, OPEN, FULL, UNUSED };

void quads_gate_init(quads_gate_t *gate, const quads_gate_settings_t *settings, uint16_t n_mels,
                     uint16_t n_frames) {
  gate->settings = *settings;
  gate->n_mels = n_mels;
  gate->n_frames = n_frames;
  gate->state = UNUSED;
  gate->warming = WARM_FRAMES;
  gate->run = 0;
}

int quads_gate_is_open(const quads_gate_t *gate) {
  return gate->state == OPEN;
}

void quads_gate_reset(quads_gate_t *gate) {
  gate->run = 0;
  if (gate->state != UNUSED) {
    gate->state = CLOSED;
  }
}

static int32_t at_least_silence(int32_t level) {
  return level > FLOOR_LEAST ? level : FLOOR_LEAST;
}

/* Sum over the bands of what exceeds floor and gate; the floors move towards the frame. */
static int32_t loudness(quads_gate_t *gate, const int8_t *mel) {
  const int32_t factor = gate->warming > 0 ? WARM_FACTOR : 1;
  const int32_t margin = gate->settings.gate_lsb;
  int32_t sum = 0; /* at most 128 * 255 */
  for (uint16_t band = 0; band < gate->n_mels; band++) {
    const int32_t level = mel[band];
    const int32_t floor = gate->floor[band];
    const int32_t excess = level - (floor >> 6) - margin;
    sum += excess > 0 ? excess : 0;
    const int32_t step = level * FLOOR_ONE > floor ? FLOOR_UP * factor : -FLOOR_DOWN * factor;
    gate->floor[band] = (int16_t)at_least_silence(floor + step);
  }
  gate->warming = (uint16_t)(gate->warming - (gate->warming > 0));
  return sum;
}

static quads_gate_signal_t wait_for_speech(quads_gate_t *gate, int32_t sum, int loud,
                                           uint32_t frame, uint32_t oldest) {
  gate->run = (uint16_t)(loud ? gate->run + 1 : 0);
  if (gate->run < ONSET_FRAMES) {
    return QUADS_GATE_NOTHING;
  }
  const uint32_t first = frame + 1 - ONSET_FRAMES;
  gate->start = first - (uint32_t)quads_min(first - oldest, gate->settings.lead_frames);
  gate->end = frame + 1;
  gate->peak = sum;
  gate->quiet = 0;
  gate->state = OPEN;
  return QUADS_GATE_OPENED;
}

static quads_gate_signal_t follow_speech(quads_gate_t *gate, int loud, uint32_t frame) {
  const quads_gate_settings_t *settings = &gate->settings;
  const int resumed = loud && gate->quiet >= settings->tail_frames;
  if (loud) {
    gate->quiet = 0;
    gate->end = frame + 1;
  } else {
    gate->quiet++;
  }
  if (gate->quiet < settings->tail_frames && frame + 1 - gate->start >= gate->n_frames) {
    gate->state = FULL;
    return QUADS_GATE_FULL;
  }
  if (gate->quiet == settings->hangover_frames) {
    quads_gate_reset(gate);
    return QUADS_GATE_CLOSED;
  }
  if (gate->quiet == settings->tail_frames) {
    return QUADS_GATE_PAUSED;
  }
  return resumed ? QUADS_GATE_RESUMED : QUADS_GATE_NOTHING;
}

quads_gate_signal_t quads_gate_take(quads_gate_t *gate, const int8_t *mel, uint32_t frame,
                                    uint32_t oldest) {
  if (gate->state == UNUSED) {
    for (uint16_t band = 0; band < gate->n_mels; band++) {
      gate->floor[band] = (int16_t)at_least_silence(mel[band] * FLOOR_ONE);
    }
    gate->state = CLOSED;
  }
  const int32_t sum = loudness(gate, mel);
  int loud = sum >= LOUD_LSB * gate->n_mels;
  if (gate->state == CLOSED) {
    return wait_for_speech(gate, sum, loud, frame, oldest);
  }
  gate->peak = sum > gate->peak ? sum : gate->peak;
  loud = loud && sum >= gate->peak >> PEAK_SHIFT;
  if (gate->state == OPEN) {
    return follow_speech(gate, loud, frame);
  }
  gate->quiet = (uint16_t)(loud ? 0 : gate->quiet + 1);
  if (gate->quiet == gate->settings.tail_frames) {
    quads_gate_reset(gate);
  }
  return QUADS_GATE_NOTHING;
}

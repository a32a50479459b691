#include "quads_gate.h"
#include "quads_math.h"

/* Floors follow the median of their band: 1/8 LSB per frame is 6 dB/s. */
#define LEVEL_ONE 64
#define LEVEL_LEAST (-80 * LEVEL_ONE) /* below it is silence, not noise */
#define SMOOTH_SHIFT 1                /* a level moves half the way to its frame */
#define FLOOR_STEP 8
#define WARM_FRAMES 100
#define WARM_FACTOR 16

#define LOUD_LSB 1      /* mean excess of a loud frame */
#define ONSET_FRAMES 6  /* loud ones in a row that open the gate */
#define RESUME_FRAMES 4 /* loud ones in a row that end a pause */
#define PEAK_SHIFT 4    /* inside an utterance loud is also relative to its peak */
#define SHORT_FRAMES 10 /* with fewer loud ones, the rest of a word is waited for longer */

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
  return level > LEVEL_LEAST ? level : LEVEL_LEAST;
}

static int32_t half_more(int32_t frames) {
  return frames + frames / 2;
}

/* Sum over the bands of what exceeds floor and gate; levels and floors move towards the frame. */
static int32_t loudness(quads_gate_t *gate, const int8_t *mel) {
  const int32_t factor = gate->warming > 0 ? WARM_FACTOR : 1;
  const int32_t margin = gate->settings.gate_lsb;
  int32_t sum = 0; /* at most 128 * 255 */
  for (uint16_t band = 0; band < gate->n_mels; band++) {
    const int32_t now = at_least_silence(mel[band] * LEVEL_ONE);
    const int32_t level = gate->level[band] + ((now - gate->level[band]) >> SMOOTH_SHIFT);
    const int32_t floor = gate->floor[band];
    const int32_t excess = (level >> 6) - (floor >> 6) - margin;
    const int32_t step = level > floor ? FLOOR_STEP * factor : -FLOOR_STEP * factor;
    sum += excess > 0 ? excess : 0;
    gate->level[band] = (int16_t)level;
    gate->floor[band] = (int16_t)at_least_silence(floor + step);
  }
  gate->warming = (uint16_t)(gate->warming - (gate->warming > 0));
  return sum;
}

static void count_run(quads_gate_t *gate, int loud) {
  gate->run = (uint16_t)(loud ? quads_min(gate->run + 1, ONSET_FRAMES) : 0);
}

static quads_gate_signal_t wait_for_speech(quads_gate_t *gate, int32_t sum, int loud,
                                           uint32_t frame, uint32_t oldest) {
  count_run(gate, loud);
  if (gate->run < ONSET_FRAMES) {
    return QUADS_GATE_NOTHING;
  }
  const uint32_t first = frame + 1 - ONSET_FRAMES;
  gate->start = first - (uint32_t)quads_min(first - oldest, gate->settings.lead_frames);
  gate->end = frame + 1;
  gate->peak = sum;
  gate->quiet = 0;
  gate->loud = ONSET_FRAMES;
  gate->state = OPEN;
  return QUADS_GATE_OPENED;
}

static quads_gate_signal_t follow_speech(quads_gate_t *gate, int loud, uint32_t frame) {
  const quads_gate_settings_t *settings = &gate->settings;
  const int32_t hangover = settings->hangover_frames;
  const int resumed = loud && gate->quiet >= settings->tail_frames;
  if (loud) {
    gate->quiet = 0;
    gate->end = frame + 1;
    gate->loud = (uint16_t)(gate->loud + (gate->loud < SHORT_FRAMES));
  } else {
    gate->quiet++;
  }
  if (gate->quiet < settings->tail_frames && frame + 1 - gate->start >= gate->n_frames) {
    gate->state = FULL;
    return QUADS_GATE_FULL;
  }
  if (gate->quiet == (gate->loud < SHORT_FRAMES ? half_more(hangover) : hangover)) {
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
      gate->level[band] = (int16_t)at_least_silence(mel[band] * LEVEL_ONE);
      gate->floor[band] = gate->level[band];
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
  count_run(gate, loud);
  loud = loud && (gate->quiet < gate->settings.tail_frames || gate->run >= RESUME_FRAMES);
  if (gate->state == OPEN) {
    return follow_speech(gate, loud, frame);
  }
  gate->quiet = (uint16_t)(loud ? 0 : gate->quiet + 1);
  if (gate->quiet == half_more(gate->settings.tail_frames)) {
    quads_gate_reset(gate);
  }
  return QUADS_GATE_NOTHING;
}

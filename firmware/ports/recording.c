/* A recording in place of a microphone.
 *
 * Time is what quads_port_ticks counts: executed instructions on an emulated board. Waiting takes
 * no work, so it moves this clock forward instead of burning instructions, and reading the file
 * takes no time at all: a microphone's samples come by DMA. */
#include "quads_port.h"

#define SAMPLE_RATE_HZ 16000u
#define STALL_PER_S 50u /* a wait over 1/50 s is a stall */

static quads_port_recording_t source;
static uint32_t taken;      /* samples read or lost */
static uint32_t offered;    /* without pace: samples that may be read */
static uint32_t made_at;    /* last value of made() */
static uint64_t time_ticks; /* since the start, waits included */
static uint64_t working_ticks;
static uint32_t ticks_seen; /* by quads_port_ticks */
static uint32_t stalls;
static uint32_t random_state;

static void advance(void) {
  const uint32_t now = quads_port_ticks();
  time_ticks += (uint32_t)(now - ticks_seen);
  working_ticks += (uint32_t)(now - ticks_seen);
  ticks_seen = now;
}

static uint32_t samples_by_now(uint32_t rate_hz) {
  return (uint32_t)(time_ticks * rate_hz / source.ticks_per_s);
}

static uint32_t made(void) {
  const uint32_t samples = source.ticks_per_s == 0 ? offered : samples_by_now(source.rate_hz);
  made_at = samples < source.n_samples ? samples : source.n_samples;
  return made_at;
}

int quads_port_audio_start(const quads_port_recording_t *recording) {
  const uint32_t storage_bytes = quads_port_storage_bytes();
  if (recording == NULL || recording->rate_hz == 0 || recording->offset > storage_bytes ||
      recording->n_samples > (storage_bytes - recording->offset) / 2) {
    return -1;
  }
  source = *recording;
  taken = offered = made_at = stalls = 0;
  time_ticks = working_ticks = 0;
  random_state = recording->chunk_seed;
  ticks_seen = quads_port_ticks();
  return 0;
}

static size_t piece(size_t n) {
  if (source.chunk_seed != 0 && n > 0) {
    random_state = random_state * 1664525u + 1013904223u;
    n = 1 + (random_state >> 8) % n;
  }
  return n;
}

size_t quads_port_audio_read(int16_t *pcm, size_t capacity, uint32_t *lost) {
  advance();
  const uint32_t waiting = made() - taken;
  *lost = source.ticks_per_s != 0 && waiting > QUADS_PORT_AUDIO_SAMPLES
              ? waiting - QUADS_PORT_AUDIO_SAMPLES
              : 0;
  taken += *lost;
  const size_t n = piece(waiting - *lost < capacity ? waiting - *lost : capacity);
  uint8_t *bytes = (uint8_t *)pcm;
  if (n == 0 || quads_port_storage_read(source.offset + 2 * taken, bytes, 2 * n) != 0) {
    ticks_seen = quads_port_ticks();
    return 0;
  }
  for (size_t i = 0; i < n; i++) {
    pcm[i] = (int16_t)(bytes[2 * i] | ((uint32_t)bytes[2 * i + 1] << 8));
  }
  taken += (uint32_t)n;
  ticks_seen = quads_port_ticks();
  return n;
}

int quads_port_audio_wait(size_t n_samples) {
  advance();
  if (taken == source.n_samples) {
    return 0;
  }
  const uint32_t left = source.n_samples - taken;
  const uint32_t wanted = taken + (n_samples < left ? (uint32_t)n_samples : left);
  if (source.ticks_per_s == 0) {
    offered = wanted;
    return 1;
  }
  const uint64_t then =
      ((uint64_t)wanted * source.ticks_per_s + source.rate_hz - 1) / source.rate_hz;
  if (then > time_ticks) {
    stalls += then - time_ticks > source.ticks_per_s / STALL_PER_S;
    time_ticks = then;
  }
  ticks_seen = quads_port_ticks();
  return 1;
}

void quads_port_audio_state(quads_port_audio_t *state) {
  state->made = made_at;
  state->due = source.ticks_per_s == 0 ? made_at : samples_by_now(SAMPLE_RATE_HZ);
  state->stalls = stalls;
  state->working = working_ticks;
}

#include "chips/microphone.h"

#include "quads_port.h"

#define RING_SAMPLES QUADS_PORT_AUDIO_SAMPLES /* a power of two */
#define GAIN_SHIFT 14

static int16_t ring[RING_SAMPLES];
static volatile uint32_t put;   /* samples ever stored or lost; written by microphone_put */
static volatile uint32_t taken; /* samples ever read or lost; written by quads_port_audio_read */
static uint8_t started;

int16_t microphone_sample(int32_t word) {
  const int32_t loud = word >> GAIN_SHIFT;
  return (int16_t)(loud > INT16_MAX ? INT16_MAX : loud < INT16_MIN ? INT16_MIN : loud);
}

/* Overwrites the oldest samples when nobody reads; the reader sees how many from the counters. */
void microphone_put(const int16_t *pcm, size_t n_samples) {
  uint32_t at = put;
  for (size_t i = 0; i < n_samples; i++) {
    ring[at % RING_SAMPLES] = pcm[i];
    at++;
  }
  put = at;
}

int quads_port_audio_start(const quads_port_recording_t *recording) {
  if (recording != NULL || (!started && microphone_start() != 0)) {
    return -1;
  }
  started = 1;
  taken = put;
  return 0;
}

/* Half of the ring is left to samples that come in meanwhile. What was overwritten while it was
 * copied is copied again, as lost. */
size_t quads_port_audio_read(int16_t *pcm, size_t capacity, uint32_t *lost) {
  uint32_t start;
  size_t n;
  do {
    const uint32_t waiting = put - taken;
    *lost = waiting > RING_SAMPLES ? waiting - RING_SAMPLES / 2 : 0;
    start = taken + *lost;
    for (n = 0; n < capacity && start + (uint32_t)n != put; n++) {
      pcm[n] = ring[(start + n) % RING_SAMPLES];
    }
  } while (put - start > RING_SAMPLES);
  taken = start + (uint32_t)n;
  return n;
}

int quads_port_audio_wait(size_t n_samples) {
  while (put - taken < n_samples) {
    quads_port_idle();
  }
  return 1;
}

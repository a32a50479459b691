/* Test program for an emulated mps2-an386 (Cortex-M4F): reads int16 samples from the host's file
 * "pcm", writes the int8 frames to "mel" and, as "ticks", what timer 0 counted: uint32 in all,
 * then of each stage on its own. Semihosting through newlib's rdimon. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontend_tables.h"
#include "stages.h"

#define CPACR (*(volatile uint32_t *)0xE000ED88)
#define TIMER_CONTROL (*(volatile uint32_t *)0x40000000)
#define TIMER_VALUE (*(volatile uint32_t *)0x40000004)
#define TIMER_RELOAD (*(volatile uint32_t *)0x40000008)

#define MAX_SAMPLES 64000
#define MAX_FRAMES (MAX_SAMPLES / QUADS_HOP_SAMPLES + 1)

extern uint32_t stack_top;
extern void _start(void);
void reset(void);

void reset(void) {
  CPACR |= 0xFu << 20; /* floating point on */
  _start();
}

__attribute__((section(".vectors"), used)) static const struct {
  uint32_t *stack;
  void (*reset)(void);
} vectors = {&stack_top, reset};

static int16_t pcm[MAX_SAMPLES];
static int8_t mel[MAX_FRAMES * QUADS_FRONTEND_N_MELS];
static uint32_t ticks[4];

static uint32_t now(void) {
  return 0u - TIMER_VALUE; /* counts down */
}

static size_t run(size_t n_samples) {
  quads_frontend_t frontend;
  size_t at = 0, n_frames = 0;
  quads_frontend_restart(&frontend);
  const uint32_t begin = now();
  while (at < n_samples) {
    size_t consumed;
    n_frames += (size_t)quads_frontend_process(&frontend, pcm + at, n_samples - at, &consumed,
                                               mel + n_frames * QUADS_FRONTEND_N_MELS);
    at += consumed;
  }
  ticks[0] = now() - begin;
  return n_frames;
}

static void time_stages(size_t n_frames) {
  static quads_power_t power[QUADS_FRONTEND_BINS];
  static quads_energy_t energy[QUADS_FRONTEND_N_MELS];
  static int8_t levels[QUADS_FRONTEND_N_MELS];
  for (size_t frame = 0; frame < n_frames; frame++) {
    const uint32_t begin = now();
    quads_frontend_power(pcm, 160, power);
    const uint32_t after_power = now();
    quads_frontend_mel(power, energy);
    const uint32_t after_mel = now();
    quads_frontend_log(energy, levels);
    ticks[1] += after_power - begin;
    ticks[2] += after_mel - after_power;
    ticks[3] += now() - after_mel;
  }
}

static void save(const char *name, const void *data, size_t n_bytes) {
  FILE *file = fopen(name, "wb");
  if (file == NULL || fwrite(data, 1, n_bytes, file) != n_bytes || fclose(file) != 0) exit(1);
}

int main(void) {
  FILE *file = fopen("pcm", "rb");
  if (file == NULL) return 1;
  const size_t n_samples = fread(pcm, sizeof pcm[0], MAX_SAMPLES, file);
  TIMER_RELOAD = 0xFFFFFFFFu;
  TIMER_VALUE = 0xFFFFFFFFu;
  TIMER_CONTROL = 1;
  const size_t n_frames = run(n_samples);
  time_stages(n_frames);
  save("mel", mel, n_frames * QUADS_FRONTEND_N_MELS);
  save("ticks", ticks, sizeof ticks);
  return 0;
}

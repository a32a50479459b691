/* Listening while no host asks: the microphone's audio through quads_listen.h. What is heard is
 * printed on the link and given to the application. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/lend.h"
#include "app/result.h"
#include "listen_settings.h"
#include "model.h"
#include "quads_esp_idf.h"
#include "quads_listen.h"
#include "quads_port.h"

#define CHUNK_SAMPLES 256u
#define LINE_BYTES 96u
#define FRAMES_PER_S 100u

typedef enum { NOT_STARTED, LISTENING, UNABLE } phase_t;

#define RING_BYTES \
  QUADS_LISTEN_RING_BYTES(QUADS_LISTEN_RING_FRAMES, QUADS_MODEL_FRAMES, QUADS_MODEL_MELS)

/* From the heap: static data ends where the memory begins that starting the chip needs once; the
 * heap has that, too. With PSRAM, large blocks come from there. */
static int8_t *ring;
static quads_listen_t listener;
static const quads_model_t *model;
static phase_t phase;
static uint8_t printed;
static uint8_t told; /* why listening is impossible */

/* Text on the link is no frame; see quads_esp_stop_listening. */
static void print(const char *text) {
  printed = 1;
  quads_port_write((const uint8_t *)text, strlen(text));
}

static void hear(void *context) {
  static int16_t pcm[CHUNK_SAMPLES];
  uint32_t lost = 0;
  size_t n_samples;
  (void)context;
  while ((n_samples = quads_port_audio_read(pcm, CHUNK_SAMPLES, &lost)) > 0) {
    if (lost > 0) {
      quads_listen_gap(&listener, lost);
    }
    quads_listen_push(&listener, pcm, n_samples);
  }
}

static const char *start(void) {
  static const quads_gate_settings_t settings = QUADS_LISTEN_SETTINGS;
  void *arena;
  size_t arena_bytes;
  model = app_lend(&arena, &arena_bytes);
  if (model == NULL) {
    return "no valid model; send one with `quads-mcu flash --model-only`";
  }
  ring = ring == NULL ? malloc(RING_BYTES) : ring;
  if (ring == NULL) {
    return "no memory left to listen with; the test server works";
  }
  if (quads_port_audio_start(NULL) != 0) {
    return "the microphone cannot be opened; see `idf.py menuconfig`, menu QUADS";
  }
  if (quads_listen_init(&listener, model, arena, arena_bytes, ring, QUADS_LISTEN_RING_FRAMES,
                        result_logits, result_answers, &settings) != QUADS_OK) {
    return "the window of this model is longer than that of the model this project was made for";
  }
  return NULL;
}

static void report(const quads_listen_event_t *event, quads_on_command_t *on_command) {
  char line[LINE_BYTES];
  if (event->kind == QUADS_HEARD_LOST) {
    print("heard something, but had no time for it\r\n");
    return;
  }
  print(event->kind == QUADS_HEARD_COMMAND ? "heard:" : "not a command, perhaps:");
  for (uint16_t s = 0; s < model->n_slots; s++) {
    const quads_slot_t *slot = &model->slots[s];
    print(" ");
    print(slot->labels[result_answers[s]]);
  }
  const uint32_t wait_ms = (event->answered - event->end) * (1000u / FRAMES_PER_S);
  (void)snprintf(line, sizeof line, " (%lu ms of speech, answered %lu ms after its end)\r\n",
                 (unsigned long)(event->end - event->start) * (1000u / FRAMES_PER_S),
                 (unsigned long)wait_ms);
  print(line);
  if (event->kind == QUADS_HEARD_COMMAND && on_command != NULL) {
    on_command(model, result_answers);
  }
}

int quads_esp_listen(quads_on_command_t *on_command) {
  quads_listen_event_t event;
  if (phase == NOT_STARTED) {
    const char *problem = start();
    phase = problem == NULL ? LISTENING : UNABLE;
    if (problem == NULL || !told) {
      print(problem == NULL ? "listening" : problem);
      print("\r\n");
      told = problem != NULL;
    }
  }
  if (phase == UNABLE) {
    return 0;
  }
  hear(NULL);
  while (quads_listen_run(&listener, hear, NULL, &event)) {
    report(&event, on_command);
  }
  (void)quads_port_audio_wait(QUADS_HOP_SAMPLES);
  return 1;
}

void quads_esp_stop_listening(void) {
  const uint8_t end_of_frame = 0;
  phase = NOT_STARTED;
  if (printed) { /* or the text would be taken for the beginning of the answer */
    printed = 0;
    quads_port_write(&end_of_frame, 1);
  }
}

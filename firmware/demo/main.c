/* Hears all the time: writes what was said in words to the link and shows it on an LED. */
#include <string.h>

#include "../app/update.h"
#include "listen_settings.h"
#include "model.h"
#include "quads_listen.h"
#include "quads_port.h"

#define CHUNK_SAMPLES 256u

static const quads_gate_settings_t settings = QUADS_LISTEN_SETTINGS;
static _Alignas(8) uint8_t arena[QUADS_ARENA_BYTES];
static int8_t
    ring[QUADS_LISTEN_RING_BYTES(QUADS_LISTEN_RING_FRAMES, QUADS_MODEL_FRAMES, QUADS_MODEL_MELS)];
static quads_listen_t listener;
static int32_t logits[QUADS_MAX_CLASSES];
static uint16_t answers[QUADS_MAX_SLOTS];
static int16_t pcm[CHUNK_SAMPLES];

static void say(const char *text) {
  quads_port_write((const uint8_t *)text, strlen(text));
}

/* Drain the microphone. Called between two slices of any longer work. */
static void hear(void *context) {
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

static void say_answers(void) {
  for (uint16_t i = 0; i < running_model->n_slots; i++) {
    const quads_slot_t *slot = &running_model->slots[i];
    say(slot->name);
    say(": ");
    say(slot->labels[answers[i]]);
    say(i + 1 < running_model->n_slots ? ", " : "\r\n");
  }
}

static void report(quads_heard_t kind) {
  if (kind == QUADS_HEARD_COMMAND) {
    say_answers();
    quads_port_show(answers);
  } else if (kind == QUADS_HEARD_REJECTED) {
    say("no command\r\n");
  } else {
    say("lost: speech came faster than this board infers; pause longer between commands or "
        "export a smaller student\r\n");
  }
}

static void keep_model(void) {
}

static void wait_a_second(void) {
  const uint64_t ticks = 1000000000u * (uint64_t)quads_port_tick.denominator /
                         quads_port_tick.numerator; /* of ports of chips: nanoseconds */
  const uint32_t start = quads_port_ticks();
  while (quads_port_ticks() - start < ticks) {
    quads_port_idle();
  }
}

static const update_settings_t update_settings = {
    .limits = {.arena_bytes = sizeof arena, .n_frames = QUADS_MODEL_FRAMES},
    .max_payload_bytes = UINT16_MAX,
    .changed = keep_model,
};

int main(int argc, char **argv) {
  quads_listen_event_t event;
  const int unusable = quads_port_init(argc, argv);
  if (unusable != 0) {
    quads_port_exit(unusable);
  }
  update_start(&update_settings);
  while (running_model == NULL) {
    say("there is no valid model: send one to the server (quads-mcu flash --model-only)\r\n");
    wait_a_second();
  }
  while (quads_port_audio_start(NULL) != 0) {
    say("the microphone does not start: check its wiring and the pins named in README.md, then "
        "press reset\r\n");
    wait_a_second();
  }
  if (quads_listen_init(&listener, running_model, arena, sizeof arena, ring,
                        QUADS_LISTEN_RING_FRAMES, logits, answers, &settings) != QUADS_OK) {
    say("the model does not suit this runtime: export the project again\r\n");
    quads_port_exit(1);
  }
  say("listening\r\n");
  do {
    hear(NULL);
    while (quads_listen_run(&listener, hear, NULL, &event)) {
      report(event.kind);
    }
  } while (quads_port_audio_wait(QUADS_HOP_SAMPLES));
  say("the microphone has stopped: check its wiring, then press reset\r\n");
  quads_port_exit(1);
}

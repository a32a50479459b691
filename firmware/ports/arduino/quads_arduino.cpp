/* Link, ticks, LED and microphone through the Arduino API. */
#include "quads_arduino.h"

#define _Noreturn [[noreturn]]
extern "C" {
#include "quads_port.h"

int quads_demo_main(int argc, char **argv);
int quads_server_main(int argc, char **argv);
}

#ifdef ARDUINO_ARDUINO_NANO33BLE
#include <PDM.h>
#endif

#define BLINK_MS 100
#define GAIN_12_DB 64 /* of the nRF52840, 0.5 dB each, 40: none */
#define LONGEST_READ_BYTES 512

static quads_heard_function on_command;

extern "C" {

/* A microsecond. */
extern const quads_port_tick_t quads_port_tick = {1000, 1, QUADS_TICK_NANOSECONDS};

int quads_port_init(int, char **) {
  pinMode(QUADS_LED, OUTPUT);
  return 0;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  size_t n_bytes = 0;
  while (n_bytes < capacity && Serial.available() > 0) {
    bytes[n_bytes++] = static_cast<uint8_t>(Serial.read());
  }
  return n_bytes;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  Serial.write(bytes, n_bytes);
}

void quads_port_idle(void) {
  yield();
}

uint32_t quads_port_ticks(void) {
  return static_cast<uint32_t>(micros());
}

static void toggle_led(void) {
  static bool lit;
  lit = !lit;
  digitalWrite(QUADS_LED, lit ? HIGH : LOW);
}

void quads_port_show(const uint16_t *answers) {
  if (on_command != nullptr) {
    on_command(answers);
  } else {
    toggle_led();
  }
}

void quads_port_exit(int) {
  for (;;) {
    toggle_led();
    delay(BLINK_MS);
  }
}

#ifdef ARDUINO_ARDUINO_NANO33BLE

static void received(void) {
  static int16_t pcm[LONGEST_READ_BYTES / 2];
  while (PDM.available() > 0) {
    const int waiting = PDM.available();
    const int n_bytes = PDM.read(
        pcm, static_cast<size_t>(waiting < LONGEST_READ_BYTES ? waiting : LONGEST_READ_BYTES));
    if (n_bytes <= 0) {
      return;
    }
    microphone_put(pcm, static_cast<size_t>(n_bytes) / 2);
  }
}

int microphone_start(void) {
  PDM.onReceive(received);
  if (PDM.begin(1, 16000) != 1) {
    return -1;
  }
  PDM.setGain(GAIN_12_DB);
  return 0;
}

#else

__attribute__((weak)) int microphone_start(void) {
  return -1;
}

#endif

void quads_demo(quads_heard_function heard) {
  on_command = heard;
  (void)quads_demo_main(0, nullptr);
}

void quads_server(quads_heard_function heard) {
  on_command = heard;
  (void)quads_server_main(0, nullptr);
}
}

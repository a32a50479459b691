/* quads_arduino.h - spoken commands in a sketch.
 *
 *     #include <quads_arduino.h>
 *
 *     static void heard(const uint16_t *answers) {       // QUADS_MODEL_SLOTS of them
 *       if (answers[0] == QUADS_INTENT_YES) digitalWrite(QUADS_LED, HIGH);
 *     }
 *
 *     void loop() { quads_demo(heard); }
 *
 * Names of the answers are in model.h. The runtime itself, for sketches that bring their own audio,
 * is in quads.h (one utterance) and quads_listen.h (a stream). Serial must have been started.
 */
#ifndef QUADS_ARDUINO_H
#define QUADS_ARDUINO_H

#include <stdint.h>

#ifdef __cplusplus
#include <Arduino.h>

/* The LED; boards without one by that name, most of the ESP32 family, have it here or nowhere. */
#if !defined(QUADS_LED) && defined(LED_BUILTIN)
#define QUADS_LED LED_BUILTIN
#elif !defined(QUADS_LED)
#define QUADS_LED 2
#endif

extern "C" {
#endif

#include "listen_settings.h"
#include "model.h"
#include "quads.h"
#include "quads_listen.h"

/* Called for every command; NULL: QUADS_LED toggles. answers: [QUADS_MODEL_SLOTS] */
typedef void (*quads_heard_function)(const uint16_t *answers);

/* Hear the microphone for good, and write what was said to Serial. Never returns. */
void quads_demo(quads_heard_function heard);

/* Answer the requests of quads-mcu on Serial for good. Never returns. */
void quads_server(quads_heard_function heard);

/* Boards without a microphone that this library knows: define these two in the sketch, extern "C".
 * Start a microphone of 16 kHz, one channel; return 0, or -1 when there is none. */
int microphone_start(void);

/* Call this from the sketch with what the microphone brought. */
void microphone_put(const int16_t *pcm, size_t n_samples);

#ifdef __cplusplus
}
#endif

#endif

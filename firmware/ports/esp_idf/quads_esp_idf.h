/* quads_esp_idf.h - the firmware on chips of the ESP32 family, under ESP-IDF.
 *
 *     static void on_command(const quads_model_t *model, const uint16_t *answers) {
 *       puts(model->slots[0].labels[answers[0]]);
 *     }
 *
 *     void app_main(void) {
 *       quads_esp_run(on_command);
 *     }
 *
 * One task does everything: it answers the host's requests (quads-mcu test, model updates), and
 * listens to the microphone while no host has asked for a while. What it hears it also prints on
 * the port of the requests. Pins, port and microphone are set in `idf.py menuconfig`, menu QUADS.
 */
#ifndef QUADS_ESP_IDF_H
#define QUADS_ESP_IDF_H

#include <stdint.h>

#include "quads.h"

/* Called for every command heard. answers: [model->n_slots] */
typedef void quads_on_command_t(const quads_model_t *model, const uint16_t *answers);

/* Never returns. on_command: NULL for none. */
_Noreturn void quads_esp_run(quads_on_command_t *on_command);

/* --- between the files of this port --- */

/* Start the task that quads_on_other_core hands work to. Returns 0, or -1. */
int quads_esp_start_other_core(void);

/* Listen for a moment. Returns 0 when there is nothing to listen with. */
int quads_esp_listen(quads_on_command_t *on_command);

/* A host is asking: listening begins anew later. */
void quads_esp_stop_listening(void);

#endif

/* The part of pico-sdk 2.2.0 that firmware/ports/pico_sdk uses; prototypes as in pico/stdio.h,
 * hardware/timer.h, pico/platform.h and boards/pico.h. sdk.c defines them for an emulator. */
#ifndef PICO_STDLIB_H
#define PICO_STDLIB_H

#include <stdbool.h>
#include <stdint.h>

#include "hardware/gpio.h"

#define PICO_DEFAULT_LED_PIN 25
#define PICO_ERROR_TIMEOUT (-1)

bool stdio_init_all(void);
int getchar_timeout_us(uint32_t timeout_us);
int stdio_put_string(const char *s, int len, bool newline, bool cr_translation);
uint32_t time_us_32(void);
void busy_wait_us_32(uint32_t delay_us);

static inline void tight_loop_contents(void) {
}

#endif

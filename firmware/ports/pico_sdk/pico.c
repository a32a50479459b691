/* Link, ticks and LEDs on the pico-sdk: stdio over USB and UART0 at the same time. */
#include "hardware/gpio.h"
#include "pico/stdlib.h"
#include "quads_port.h"

#ifndef QUADS_LED_PINS
#ifndef PICO_DEFAULT_LED_PIN
#error \
    "this board has no LED on a GPIO (Pico W): name pins with LEDs as QUADS_LED_PINS in CMakeLists.txt"
#endif
#define QUADS_LED_PINS PICO_DEFAULT_LED_PIN
#endif

#define BLINK_US 100000u

static const uint8_t leds[] = {QUADS_LED_PINS};

/* A microsecond. */
const quads_port_tick_t quads_port_tick = {1000, 1, QUADS_TICK_NANOSECONDS};

int quads_port_init(int argc, char **argv) {
  (void)argc;
  (void)argv;
  stdio_init_all();
  for (size_t i = 0; i < sizeof leds; i++) {
    gpio_init(leds[i]);
    gpio_set_dir(leds[i], GPIO_OUT);
  }
  return 0;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  size_t n_bytes = 0;
  while (n_bytes < capacity) {
    const int byte = getchar_timeout_us(0);
    if (byte < 0) {
      break;
    }
    bytes[n_bytes++] = (uint8_t)byte;
  }
  return n_bytes;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  (void)stdio_put_string((const char *)bytes, (int)n_bytes, false, false);
}

void quads_port_idle(void) {
  tight_loop_contents();
}

uint32_t quads_port_ticks(void) {
  return time_us_32();
}

void quads_port_show(const uint16_t *answers) {
  gpio_xor_mask(1u << leds[answers[0] % sizeof leds]);
}

/* The first LED blinks fast. */
void quads_port_exit(int code) {
  (void)code;
  for (;;) {
    gpio_xor_mask(1u << leds[0]);
    busy_wait_us_32(BLINK_US);
  }
}

/* Link, ticks and LEDs on Zephyr: the UART that the board has chosen as its console (the console
 * itself is off), the LEDs with the aliases led0 to led3. */
#include <zephyr/device.h>
#include <zephyr/drivers/gpio.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>

#include "chips/receive_ring.h"
#include "quads_port.h"

#if !DT_NODE_EXISTS(DT_CHOSEN(zephyr_console))
#error "this board has no zephyr,console: choose a UART for it in an overlay of the application"
#endif
#if !DT_NODE_EXISTS(DT_ALIAS(led0))
#error "this board has no LED called led0: give it that alias in an overlay of the application"
#endif

#define BLINK_MS 100
#define IDLE_MS 10
#define PIECE_BYTES 16
#define NS_PER_S 1000000000u

static const struct device *const uart = DEVICE_DT_GET(DT_CHOSEN(zephyr_console));
static const struct gpio_dt_spec leds[] = {
    GPIO_DT_SPEC_GET(DT_ALIAS(led0), gpios),
#if DT_NODE_EXISTS(DT_ALIAS(led1))
    GPIO_DT_SPEC_GET(DT_ALIAS(led1), gpios),
#endif
#if DT_NODE_EXISTS(DT_ALIAS(led2))
    GPIO_DT_SPEC_GET(DT_ALIAS(led2), gpios),
#endif
#if DT_NODE_EXISTS(DT_ALIAS(led3))
    GPIO_DT_SPEC_GET(DT_ALIAS(led3), gpios),
#endif
};
#define N_LEDS (sizeof leds / sizeof leds[0])

K_SEM_DEFINE(quads_received, 0, 1);

const quads_port_tick_t quads_port_tick = {NS_PER_S, CONFIG_SYS_CLOCK_HW_CYCLES_PER_SEC,
                                           QUADS_TICK_NANOSECONDS};

static void received(const struct device *device, void *context) {
  uint8_t bytes[PIECE_BYTES];
  (void)context;
  (void)uart_irq_update(device);
  while (uart_irq_rx_ready(device) > 0) {
    const int n_bytes = uart_fifo_read(device, bytes, sizeof bytes);
    for (int i = 0; i < n_bytes; i++) {
      receive_ring_put(bytes[i]);
    }
    if (n_bytes <= 0) {
      break;
    }
  }
  k_sem_give(&quads_received);
}

/* Exit codes 1 and 2: README.md says what they mean. */
int quads_port_init(int argc, char **argv) {
  (void)argc;
  (void)argv;
  for (size_t i = 0; i < N_LEDS; i++) {
    if (!gpio_is_ready_dt(&leds[i]) || gpio_pin_configure_dt(&leds[i], GPIO_OUTPUT_INACTIVE) != 0) {
      return 1;
    }
  }
  if (!device_is_ready(uart) || uart_irq_callback_user_data_set(uart, received, NULL) != 0) {
    return 2;
  }
  uart_irq_rx_enable(uart);
  return 0;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    uart_poll_out(uart, bytes[i]);
  }
}

void quads_port_idle(void) {
  (void)k_sem_take(&quads_received, K_MSEC(IDLE_MS));
}

uint32_t quads_port_ticks(void) {
  return k_cycle_get_32();
}

void quads_port_show(const uint16_t *answers) {
  (void)gpio_pin_toggle_dt(&leds[answers[0] % N_LEDS]);
}

/* The first LED blinks fast, `code` times, pauses, and again. */
void quads_port_exit(int code) {
  for (;;) {
    for (int i = 0; i < 2 * code; i++) {
      (void)gpio_pin_toggle_dt(&leds[0]);
      (void)k_msleep(BLINK_MS);
    }
    (void)k_msleep(10 * BLINK_MS);
  }
}

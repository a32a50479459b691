/* include/zephyr/drivers/gpio.h */
#ifndef ZEPHYR_GPIO_H
#define ZEPHYR_GPIO_H

#include <zephyr/kernel.h>

typedef uint32_t gpio_flags_t;
#define GPIO_OUTPUT_INACTIVE 1u

struct gpio_dt_spec {
  const struct device *port;
  uint8_t pin;
  uint16_t dt_flags;
};
#define GPIO_DT_SPEC_GET(node, property) {&STUB_CAT(device_, node), STUB_CAT(node, _PIN), 0}

bool gpio_is_ready_dt(const struct gpio_dt_spec *spec);
int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, gpio_flags_t extra_flags);
int gpio_pin_toggle_dt(const struct gpio_dt_spec *spec);

#define alias_led0_EXISTS 1
#define alias_led0_PIN 0
#define alias_led1_EXISTS 1
#define alias_led1_PIN 1
#define alias_led2_EXISTS 0
#define alias_led3_EXISTS 0
extern const struct device device_alias_led0, device_alias_led1;

#endif

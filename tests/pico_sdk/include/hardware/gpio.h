#ifndef HARDWARE_GPIO_H
#define HARDWARE_GPIO_H

#include <stdbool.h>
#include <stdint.h>

typedef unsigned int uint;

#define GPIO_OUT 1

void gpio_init(uint gpio);
void gpio_set_dir(uint gpio, bool out);
void gpio_xor_mask(uint32_t mask);
void gpio_pull_down(uint gpio);

#endif

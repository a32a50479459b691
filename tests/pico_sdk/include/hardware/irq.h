#ifndef HARDWARE_IRQ_H
#define HARDWARE_IRQ_H

#include "hardware/gpio.h"

#define PIO0_IRQ_0 7

typedef void (*irq_handler_t)(void);

void irq_set_exclusive_handler(uint num, irq_handler_t handler);
void irq_set_enabled(uint num, bool enabled);

#endif

#ifndef HARDWARE_CLOCKS_H
#define HARDWARE_CLOCKS_H

#include <stdint.h>

typedef enum clock_num_rp2040 { clk_sys = 5 } clock_num_t;
typedef clock_num_t clock_handle_t;

uint32_t clock_get_hz(clock_handle_t clock);

#endif

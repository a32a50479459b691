#ifndef HARDWARE_PIO_H
#define HARDWARE_PIO_H

#include "hardware/gpio.h"

typedef struct pio_hw pio_hw_t;
typedef pio_hw_t *PIO;
#define pio0 ((PIO)0x50200000u)

enum pio_fifo_join { PIO_FIFO_JOIN_NONE = 0, PIO_FIFO_JOIN_TX = 1, PIO_FIFO_JOIN_RX = 2 };
enum pio_src_dest { pio_pins = 0u, pio_x = 1u, pio_y = 2u };
typedef enum pio_interrupt_source { pis_sm0_rx_fifo_not_empty = 0 } pio_interrupt_source_t;

typedef struct pio_program {
  const uint16_t *instructions;
  uint8_t length;
  int8_t origin;
  uint8_t pio_version;
} pio_program_t;

typedef struct {
  uint32_t clkdiv;
  uint32_t execctrl;
  uint32_t shiftctrl;
  uint32_t pinctrl;
} pio_sm_config;

uint pio_encode_sideset(uint sideset_bit_count, uint value);
uint pio_encode_in(enum pio_src_dest src, uint count);
uint pio_encode_set(enum pio_src_dest dest, uint value);
uint pio_encode_jmp_x_dec(uint addr);
uint pio_encode_nop(void);

bool pio_can_add_program(PIO pio, const pio_program_t *program);
int pio_add_program(PIO pio, const pio_program_t *program);
void pio_gpio_init(PIO pio, uint pin);
int pio_sm_set_consecutive_pindirs(PIO pio, uint sm, uint pins_base, uint pin_count, bool is_out);
pio_sm_config pio_get_default_sm_config(void);
void sm_config_set_in_pins(pio_sm_config *c, uint in_base);
void sm_config_set_sideset(pio_sm_config *c, uint bit_count, bool optional, bool pindirs);
void sm_config_set_sideset_pins(pio_sm_config *c, uint sideset_base);
void sm_config_set_wrap(pio_sm_config *c, uint wrap_target, uint wrap);
void sm_config_set_in_shift(pio_sm_config *c, bool shift_right, bool autopush, uint push_threshold);
void sm_config_set_fifo_join(pio_sm_config *c, enum pio_fifo_join join);
void sm_config_set_clkdiv(pio_sm_config *c, float div);
int pio_sm_init(PIO pio, uint sm, uint initial_pc, const pio_sm_config *config);
void pio_set_irq0_source_enabled(PIO pio, pio_interrupt_source_t source, bool enabled);
void pio_sm_set_enabled(PIO pio, uint sm, bool enabled);
bool pio_sm_is_rx_fifo_empty(PIO pio, uint sm);
uint32_t pio_sm_get(PIO pio, uint sm);

#endif

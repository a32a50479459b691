/* An I2S microphone (INMP441, ICS-43434, SPH0645) on PIO 0, state machine 0.
 *
 * 64 SCK periods per sample, two PIO cycles each; the left channel (L/R to ground) is read, 32 bits
 * of which the microphone fills the first 24. WS changes one period before a channel's first bit.
 */
#include "chips/microphone.h"
#include "hardware/clocks.h"
#include "hardware/gpio.h"
#include "hardware/irq.h"
#include "hardware/pio.h"

#ifndef QUADS_I2S_SD_PIN
#define QUADS_I2S_SD_PIN 2 /* data from the microphone */
#endif
#ifndef QUADS_I2S_SCK_PIN
#define QUADS_I2S_SCK_PIN 3 /* WS is the pin after it */
#endif

#define WS_PIN (QUADS_I2S_SCK_PIN + 1)
#define PIO_HZ (16000u * 64u * 2u)
#define STATE_MACHINE 0u
#define BITS 32u
/* Side-set: WS, SCK. */
#define LOW_LEFT 0u
#define HIGH_LEFT 1u
#define LOW_RIGHT 2u
#define HIGH_RIGHT 3u
#define N_INSTRUCTIONS 12u

static uint16_t with(uint instruction, uint side) {
  return (uint16_t)(instruction | pio_encode_sideset(2, side));
}

/* Loops run 30 times; 31st and 32nd period stand alone, because WS changes between them. */
static void assemble(uint16_t *code) {
  const uint take = pio_encode_in(pio_pins, 1);
  const uint set = pio_encode_set(pio_x, 29);
  const uint nothing = pio_encode_nop();
  code[0] = with(set, LOW_LEFT);
  code[1] = with(take, HIGH_LEFT);
  code[2] = with(pio_encode_jmp_x_dec(1), LOW_LEFT);
  code[3] = with(take, HIGH_LEFT);
  code[4] = with(nothing, LOW_RIGHT);
  code[5] = with(take, HIGH_RIGHT);
  code[6] = with(set, LOW_RIGHT);
  code[7] = with(nothing, HIGH_RIGHT);
  code[8] = with(pio_encode_jmp_x_dec(7), LOW_RIGHT);
  code[9] = with(nothing, HIGH_RIGHT);
  code[10] = with(nothing, LOW_LEFT);
  code[11] = with(nothing, HIGH_LEFT);
}

static void received(void) {
  while (!pio_sm_is_rx_fifo_empty(pio0, STATE_MACHINE)) {
    const int16_t sample = microphone_sample((int32_t)pio_sm_get(pio0, STATE_MACHINE));
    microphone_put(&sample, 1);
  }
}

int microphone_start(void) {
  static uint16_t code[N_INSTRUCTIONS];
  const pio_program_t program = {.instructions = code, .length = N_INSTRUCTIONS, .origin = 0};
  assemble(code);
  if (!pio_can_add_program(pio0, &program)) {
    return -1;
  }
  pio_add_program(pio0, &program);
  pio_gpio_init(pio0, QUADS_I2S_SCK_PIN);
  pio_gpio_init(pio0, WS_PIN);
  pio_sm_set_consecutive_pindirs(pio0, STATE_MACHINE, QUADS_I2S_SCK_PIN, 2, true);
  pio_gpio_init(pio0, QUADS_I2S_SD_PIN);
  gpio_pull_down(QUADS_I2S_SD_PIN); /* the microphone lets go of the line after its bits */
  pio_sm_config config = pio_get_default_sm_config();
  sm_config_set_in_pins(&config, QUADS_I2S_SD_PIN);
  sm_config_set_sideset(&config, 2, false, false);
  sm_config_set_sideset_pins(&config, QUADS_I2S_SCK_PIN);
  sm_config_set_wrap(&config, 0, N_INSTRUCTIONS - 1);
  sm_config_set_in_shift(&config, false, true, BITS); /* first bit on top */
  sm_config_set_fifo_join(&config, PIO_FIFO_JOIN_RX);
  sm_config_set_clkdiv(&config, (float)clock_get_hz(clk_sys) / (float)PIO_HZ);
  pio_sm_init(pio0, STATE_MACHINE, 0, &config);
  pio_set_irq0_source_enabled(pio0, pis_sm0_rx_fifo_not_empty, true);
  irq_set_exclusive_handler(PIO0_IRQ_0, received);
  irq_set_enabled(PIO0_IRQ_0, true);
  pio_sm_set_enabled(pio0, STATE_MACHINE, true);
  return 0;
}

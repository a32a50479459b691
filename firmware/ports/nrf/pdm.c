/* A PDM microphone (left channel: its select pin to ground) on the nRF's own decimator. Registers:
 * nRF52840 and nRF5340 Product Specifications, chapter "PDM". 1.28 MHz / 80 = 16 kHz. */
#include "chip.h"
#include "chips/microphone.h"
#include "cortex_m/cortex_m.h"

#define PIECE_SAMPLES 160u

#define PDM(offset) REGISTER(CHIP_PDM + (offset))
#define START PDM(0x000u)
#define STARTED PDM(0x100u)
#define END PDM(0x108u)
#define INTERRUPT_SET PDM(0x304u)
#define INTERRUPT_STARTED_AND_END (1u << 0 | 1u << 2)
#define ENABLE PDM(0x500u)
#define CLOCK PDM(0x504u)
#define CLOCK_1280_KHZ 0x0A000000u
#define MODE PDM(0x508u)
#define MODE_MONO_LEFT 1u
#define GAIN_LEFT PDM(0x518u)
#define GAIN_RIGHT PDM(0x51Cu)
#define GAIN_12_DB 0x40u /* 0.5 dB each, 0x28: none */
#define RATIO PDM(0x520u)
#define RATIO_80 1u
#define SELECT_CLOCK PDM(0x540u)
#define SELECT_DATA PDM(0x544u)
#define POINTER PDM(0x560u)
#define CAPACITY PDM(0x564u)

#define GPIO_OUTPUT REGISTER(CHIP_GPIO + 0x14u) /* DIRSET */
#define GPIO_CLEAR REGISTER(CHIP_GPIO + 0x08u)
#define PIN(number) REGISTER(CHIP_GPIO + 0x1FCu + 4u * (number)) /* PIN_CNF */
#define PIN_INPUT 0u

static int16_t pieces[2][PIECE_SAMPLES];
static volatile uint32_t filling; /* the piece that the next END completes */

static uint32_t address(const void *pointer) {
  return (uint32_t)(uintptr_t)pointer;
}

int microphone_start(void) {
  GPIO_CLEAR = 1u << CHIP_MICROPHONE_CLOCK;
  GPIO_OUTPUT = 1u << CHIP_MICROPHONE_CLOCK;
  PIN(CHIP_MICROPHONE_DATA) = PIN_INPUT;
  SELECT_CLOCK = CHIP_MICROPHONE_CLOCK;
  SELECT_DATA = CHIP_MICROPHONE_DATA;
  CLOCK = CLOCK_1280_KHZ;
  MODE = MODE_MONO_LEFT;
  RATIO = RATIO_80;
  GAIN_LEFT = GAIN_12_DB;
  GAIN_RIGHT = GAIN_12_DB;
  POINTER = address(pieces[0]);
  CAPACITY = PIECE_SAMPLES;
  INTERRUPT_SET = INTERRUPT_STARTED_AND_END;
  ENABLE = 1;
  cortex_m_enable_interrupt(CHIP_MICROPHONE_IRQ);
  START = 1;
  return 0;
}

/* STARTED: the pointer was taken over and may be set for the piece after this one. A transfer ends
 * and the next one starts by itself, so that both events may be here at once. */
void chip_microphone_interrupt(void) {
  if (END != 0) {
    END = 0;
    microphone_put(pieces[filling], PIECE_SAMPLES);
    filling ^= 1u;
  }
  if (STARTED != 0) {
    STARTED = 0;
    POINTER = address(pieces[filling ^ 1u]);
  }
}

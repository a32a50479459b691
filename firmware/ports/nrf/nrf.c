/* Clock, UART and LEDs of nRF52 and nRF53 chips. Registers: nRF52840 and nRF5340 Product
 * Specifications, chapters "CLOCK", "UARTE" and "GPIO"; EasyDMA reads and writes RAM only. */
#include "chip.h"
#include "chips/receive_ring.h"
#include "cortex_m/cortex_m.h"
#include "quads_port.h"

#define CLOCK_START REGISTER(CHIP_CLOCK + 0x000u)
#define CLOCK_STARTED REGISTER(CHIP_CLOCK + 0x100u)
#define CLOCK_SOURCE REGISTER(CHIP_CLOCK + 0x514u)  /* nRF53 */
#define CLOCK_DIVIDER REGISTER(CHIP_CLOCK + 0x558u) /* nRF53 */
#define CLOCK_WAIT_TURNS 100000u                    /* the crystal takes less than 2 ms */
#define CODE_CACHE_ON 1u

#define UARTE(offset) REGISTER(CHIP_UARTE + (offset))
#define START_RX UARTE(0x000u)
#define START_TX UARTE(0x008u)
#define END_RX UARTE(0x110u)
#define END_TX UARTE(0x120u)
#define INTERRUPT_SET UARTE(0x304u)
#define INTERRUPT_END_RX (1u << 4)
#define ENABLE UARTE(0x500u)
#define ENABLED 8u
#define SELECT_TX UARTE(0x50Cu)
#define SELECT_RX UARTE(0x514u)
#define BAUD UARTE(0x524u)
#define BAUD_115200 0x01D60000u
#define RX_POINTER UARTE(0x534u)
#define RX_CAPACITY UARTE(0x538u)
#define TX_POINTER UARTE(0x544u)
#define TX_BYTES UARTE(0x548u)
#define PIECE_BYTES 64u

#define GPIO_OUT REGISTER(CHIP_GPIO)
#define GPIO_SET REGISTER(CHIP_GPIO + 0x04u)
#define GPIO_OUTPUT REGISTER(CHIP_GPIO + 0x14u)                  /* DIRSET */
#define PIN(number) REGISTER(CHIP_GPIO + 0x1FCu + 4u * (number)) /* PIN_CNF */
#define PIN_INPUT_PULLED_UP 0x0Cu

static const uint8_t leds[] = {CHIP_LEDS};
static volatile uint8_t received;
static uint8_t piece[PIECE_BYTES];

static uint32_t address(const volatile void *pointer) {
  return (uint32_t)(uintptr_t)pointer;
}

/* The crystal, for an exact baud rate; without it the internal oscillator goes on. */
static void clock_start(void) {
#ifdef CHIP_CLOCK_NRF53
  CLOCK_DIVIDER = 0;
  CLOCK_SOURCE = 1;
#endif
  CLOCK_STARTED = 0;
  CLOCK_START = 1;
  for (uint32_t turn = 0; turn < CLOCK_WAIT_TURNS && CLOCK_STARTED == 0; turn++) {
  }
  REGISTER(CHIP_CODE_CACHE) = CODE_CACHE_ON;
}

void chip_start(void) {
  clock_start();
  for (uint32_t i = 0; i < sizeof leds; i++) {
    GPIO_SET = 1u << leds[i]; /* off: they are wired to the supply */
    GPIO_OUTPUT = 1u << leds[i];
  }
  GPIO_SET = 1u << CHIP_UART_TX;
  GPIO_OUTPUT = 1u << CHIP_UART_TX;
  PIN(CHIP_UART_RX) = PIN_INPUT_PULLED_UP;
  SELECT_TX = CHIP_UART_TX;
  SELECT_RX = CHIP_UART_RX;
  BAUD = BAUD_115200;
  ENABLE = ENABLED;
  INTERRUPT_SET = INTERRUPT_END_RX;
  RX_POINTER = address(&received);
  RX_CAPACITY = 1;
  START_RX = 1;
}

/* One byte per transfer; the receiver's FIFO keeps what comes until the next one starts. */
void chip_uart_interrupt(void) {
  if (END_RX != 0) {
    END_RX = 0;
    receive_ring_put(received);
    START_RX = 1;
  }
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  while (n_bytes > 0) {
    const uint32_t n = n_bytes < PIECE_BYTES ? (uint32_t)n_bytes : PIECE_BYTES;
    for (uint32_t i = 0; i < n; i++) {
      piece[i] = bytes[i];
    }
    TX_POINTER = address(piece);
    TX_BYTES = n;
    END_TX = 0;
    __asm__ volatile("dmb" ::: "memory");
    START_TX = 1;
    while (END_TX == 0) {
    }
    bytes += n;
    n_bytes -= n;
  }
}

void chip_toggle_led(uint16_t answer) {
  GPIO_OUT ^= 1u << leds[answer % sizeof leds];
}

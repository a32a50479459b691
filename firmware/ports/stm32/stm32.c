/* UART and LEDs of STM32 chips. Registers: RM0383 (F411), RM0433 (H743), chapters "GPIO" and
 * "USART"; the USART of the H7 has other offsets and status registers of its own. */
#include "stm32/stm32.h"

#include "chip.h"
#include "chips/receive_ring.h"
#include "quads_port.h"

#define BAUD 115200u

#define GPIO_MODE(port) REGISTER((port) + 0x00u)
#define GPIO_OUT(port) REGISTER((port) + 0x14u)
#define GPIO_ALTERNATE(port, pin) REGISTER((port) + ((pin) < 8u ? 0x20u : 0x24u))
#define MODE_OUTPUT 1u
#define MODE_ALTERNATE 2u
#define ALTERNATE_USART 7u

#if defined(CHIP_USART_H7)
#define USART_CONTROL REGISTER(CHIP_USART + 0x00u)
#define USART_BAUD REGISTER(CHIP_USART + 0x0Cu)
#define USART_STATUS REGISTER(CHIP_USART + 0x1Cu)
#define USART_CLEAR REGISTER(CHIP_USART + 0x20u)
#define USART_RECEIVED REGISTER(CHIP_USART + 0x24u)
#define USART_SEND REGISTER(CHIP_USART + 0x28u)
#define USART_ENABLE 0x0001u
#else
#define USART_STATUS REGISTER(CHIP_USART + 0x00u)
#define USART_RECEIVED REGISTER(CHIP_USART + 0x04u)
#define USART_SEND REGISTER(CHIP_USART + 0x04u)
#define USART_BAUD REGISTER(CHIP_USART + 0x08u)
#define USART_CONTROL REGISTER(CHIP_USART + 0x0Cu)
#define USART_ENABLE 0x2000u
#endif
#define USART_RECEIVER 0x0004u
#define USART_TRANSMITTER 0x0008u
#define USART_RECEIVE_INTERRUPT 0x0020u
#define STATUS_OVERRUN 0x08u
#define STATUS_RECEIVED 0x20u
#define STATUS_SEND_EMPTY 0x80u

typedef struct {
  uint32_t port;
  uint32_t pin;
} pin_t;

static const pin_t leds[] = {CHIP_LEDS};

int stm32_wait(volatile uint32_t *word, uint32_t mask) {
  for (uint32_t turn = 0; turn < STM32_WAIT_TURNS; turn++) {
    if ((*word & mask) == mask) {
      return 1;
    }
  }
  return 0;
}

static void set_mode(pin_t pin, uint32_t mode) {
  GPIO_MODE(pin.port) = (GPIO_MODE(pin.port) & ~(3u << (2u * pin.pin))) | mode << (2u * pin.pin);
}

static void use_for_usart(pin_t pin) {
  const uint32_t shift = 4u * (pin.pin % 8u);
  volatile uint32_t *function = &GPIO_ALTERNATE(pin.port, pin.pin);
  *function = (*function & ~(0xFu << shift)) | ALTERNATE_USART << shift;
  set_mode(pin, MODE_ALTERNATE);
}

void chip_start(void) {
  const uint32_t clock_hz = stm32_clock_start();
  for (uint32_t i = 0; i < sizeof leds / sizeof leds[0]; i++) {
    set_mode(leds[i], MODE_OUTPUT);
  }
  use_for_usart((pin_t){CHIP_UART_TX});
  use_for_usart((pin_t){CHIP_UART_RX});
  USART_BAUD = (clock_hz + BAUD / 2u) / BAUD;
  USART_CONTROL = USART_ENABLE | USART_RECEIVER | USART_TRANSMITTER | USART_RECEIVE_INTERRUPT;
}

void chip_uart_interrupt(void) {
  const uint32_t status = USART_STATUS;
#if defined(CHIP_USART_H7)
  if (status & STATUS_OVERRUN) {
    USART_CLEAR = STATUS_OVERRUN;
  }
  if (status & STATUS_RECEIVED) {
    receive_ring_put((uint8_t)USART_RECEIVED);
  }
#else
  /* Reading status, then data, clears an overrun, too. */
  if (status & (STATUS_RECEIVED | STATUS_OVERRUN)) {
    receive_ring_put((uint8_t)USART_RECEIVED);
  }
#endif
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    while ((USART_STATUS & STATUS_SEND_EMPTY) == 0) {
    }
    USART_SEND = bytes[i];
  }
}

void chip_toggle_led(uint16_t answer) {
  const pin_t led = leds[answer % (sizeof leds / sizeof leds[0])];
  GPIO_OUT(led.port) ^= 1u << led.pin;
}

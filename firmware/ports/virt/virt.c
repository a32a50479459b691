/* Link and ticks of QEMU's RISC-V machine `virt`: a 16550 UART, polled; its interrupt only ends the
 * sleep. The board file defines QUADS_UART, QUADS_UART_IRQ and QUADS_PLIC. */
#include "bare_metal/bare_metal.h"
#include "quads_port.h"

typedef struct {
  volatile uint8_t data;
  volatile uint8_t interrupts;
  volatile uint8_t fifo_control;
  volatile uint8_t line_control;
  volatile uint8_t modem_control;
  volatile uint8_t line_status;
} uart_t;

#define UART ((uart_t *)QUADS_UART)
#define UART_RX_INTERRUPT_ENABLE 0x01u
#define UART_FIFO_ENABLE_AND_CLEAR 0x07u
#define UART_8_BITS 0x03u
#define UART_RX_READY 0x01u
#define UART_TX_EMPTY 0x20u

#define PLIC_WORD(offset) (*(volatile uint32_t *)(QUADS_PLIC + (offset)))
#define PLIC_PRIORITY PLIC_WORD(4u * QUADS_UART_IRQ)
#define PLIC_ENABLE PLIC_WORD(0x2000u) /* machine mode of the first core */
#define PLIC_THRESHOLD PLIC_WORD(0x200000u)
#define PLIC_CLAIM PLIC_WORD(0x200004u)
#define MIE_EXTERNAL 0x800u

const quads_port_tick_t quads_port_tick = {QUADS_TICK_NUMERATOR, QUADS_TICK_DENOMINATOR,
                                           QUADS_TICK_INSTRUCTIONS};

int quads_port_init(int argc, char **argv) {
  (void)argc;
  (void)argv;
  UART->line_control = UART_8_BITS;
  UART->fifo_control = UART_FIFO_ENABLE_AND_CLEAR;
  UART->interrupts = UART_RX_INTERRUPT_ENABLE;
  PLIC_PRIORITY = 1;
  PLIC_ENABLE = 1u << QUADS_UART_IRQ;
  PLIC_THRESHOLD = 0;
  /* Enabled here, masked in mstatus: it ends WFI and is never taken. */
  __asm__ volatile("csrs mie, %0" : : "r"(MIE_EXTERNAL));
  bare_metal_storage_init();
  return 0;
}

static int is_byte_waiting(void) {
  return UART->line_status & UART_RX_READY;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  size_t n_bytes = 0;
  while (n_bytes < capacity && is_byte_waiting()) {
    bytes[n_bytes++] = UART->data;
  }
  return n_bytes;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    while (!(UART->line_status & UART_TX_EMPTY)) {
    }
    UART->data = bytes[i];
  }
}

/* The last interrupt is done with before the line is looked at: a byte that comes later raises a
 * new one, so that none is slept through. */
void quads_port_idle(void) {
  const uint32_t claimed = PLIC_CLAIM;
  if (claimed != 0) {
    PLIC_CLAIM = claimed;
  }
  if (!is_byte_waiting()) {
    __asm__ volatile("wfi" ::: "memory");
  }
}

uint32_t quads_port_ticks(void) {
  uint32_t instructions;
  __asm__ volatile("csrr %0, minstret" : "=r"(instructions));
  return instructions;
}

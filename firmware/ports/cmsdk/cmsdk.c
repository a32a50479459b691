/* Link and ticks on Arm's CMSDK peripherals (MPS2 and MPS3 boards). The board file defines
 * QUADS_UART, QUADS_UART_RX_IRQ, and QUADS_TIMER or both QUADS_COUNTER and QUADS_COUNTER_CONTROL.
 */
#include "cmsdk.h"

#include "bare_metal/bare_metal.h"
#include "quads_port.h"

#define BAUD 115200u
#define RING_BYTES 256u /* a power of two */

typedef struct {
  volatile uint32_t data;
  volatile uint32_t state;
  volatile uint32_t control;
  volatile uint32_t interrupt; /* status; write 1 to clear */
  volatile uint32_t baud_divider;
} uart_t;

#define UART ((uart_t *)QUADS_UART)
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u
#define UART_TX_ENABLE 1u
#define UART_RX_ENABLE 2u
#define UART_RX_INTERRUPT_ENABLE 8u
#define UART_RX_INTERRUPT 2u
#define NVIC_ENABLE ((volatile uint32_t *)0xE000E100u)
#define NVIC_DISABLE ((volatile uint32_t *)0xE000E180u)
#define RX_IRQ_BIT (1u << (QUADS_UART_RX_IRQ % 32))

#ifdef QUADS_COUNTER /* the 64-bit system counter of an SSE-300; its lower half is enough */
#define COUNTER_CONTROL (*(volatile uint32_t *)QUADS_COUNTER_CONTROL)
#define COUNTER_ENABLE 1u
#define COUNTER_LOW (*(const volatile uint32_t *)QUADS_COUNTER)

static void ticks_start(void) {
  COUNTER_CONTROL = COUNTER_ENABLE;
}

uint32_t quads_port_ticks(void) {
  return COUNTER_LOW;
}
#else
typedef struct {
  volatile uint32_t control;
  volatile uint32_t value; /* counts down */
  volatile uint32_t reload;
  volatile uint32_t interrupt;
} timer_registers_t;

#define TIMER ((timer_registers_t *)QUADS_TIMER)
#define TIMER_ENABLE 1u

static void ticks_start(void) {
  TIMER->reload = UINT32_MAX;
  TIMER->value = UINT32_MAX;
  TIMER->control = TIMER_ENABLE;
}

uint32_t quads_port_ticks(void) {
  return ~TIMER->value;
}
#endif

static uint8_t ring[RING_BYTES];
static volatile uint32_t ring_head; /* bytes ever stored; written by the interrupt */
static volatile uint32_t ring_tail; /* bytes ever taken; written by quads_port_read */

const quads_port_tick_t quads_port_tick = {QUADS_TICK_NUMERATOR, QUADS_TICK_DENOMINATOR,
                                           QUADS_TICK_INSTRUCTIONS};

/* When the ring is full the byte and its interrupt stay pending until quads_port_read has made
 * room: an emulator then waits, a real line overruns and the frame's CRC tells. */
void cmsdk_uart_received(void) {
  while (UART->state & UART_RX_FULL) {
    if (ring_head - ring_tail == RING_BYTES) {
      NVIC_DISABLE[QUADS_UART_RX_IRQ / 32] = RX_IRQ_BIT;
      return;
    }
    UART->interrupt = UART_RX_INTERRUPT; /* before reading: the next byte sets it again */
    ring[ring_head % RING_BYTES] = (uint8_t)UART->data;
    ring_head++;
  }
}

int quads_port_init(int argc, char **argv) {
  (void)argc;
  (void)argv;
  ticks_start();
  UART->baud_divider = QUADS_CLOCK_HZ / BAUD;
  UART->control = UART_TX_ENABLE | UART_RX_ENABLE | UART_RX_INTERRUPT_ENABLE;
  NVIC_ENABLE[QUADS_UART_RX_IRQ / 32] = RX_IRQ_BIT;
  bare_metal_storage_init();
  return 0;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  size_t n_bytes = 0;
  while (n_bytes < capacity && ring_tail != ring_head) {
    bytes[n_bytes++] = ring[ring_tail % RING_BYTES];
    ring_tail++;
  }
  if (n_bytes > 0) {
    NVIC_ENABLE[QUADS_UART_RX_IRQ / 32] = RX_IRQ_BIT;
  }
  return n_bytes;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    while (UART->state & UART_TX_FULL) {
    }
    UART->data = bytes[i];
  }
}

/* With interrupts masked a pending one still ends WFI, so none is slept through. */
void quads_port_idle(void) {
  __asm__ volatile("cpsid i" ::: "memory");
  if (ring_tail == ring_head) {
    __asm__ volatile("wfi" ::: "memory");
  }
  __asm__ volatile("cpsie i" ::: "memory");
}

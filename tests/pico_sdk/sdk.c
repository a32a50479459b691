/* The SDK's functions on the registers of an emulated RP2040 (RP2040 datasheet, chapters 2.3, 2.19,
 * 3.7, 4.2, 4.6), start-up included. Clocks and resets are ready in the emulator. */
#include <stddef.h>

#include "hardware/clocks.h"
#include "hardware/flash.h"
#include "hardware/irq.h"
#include "hardware/pio.h"
#include "hardware/sync.h"
#include "pico/stdlib.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART0 0x40034000u
#define UART_DATA REGISTER(UART0 + 0x00u)
#define UART_FLAGS REGISTER(UART0 + 0x18u)
#define UART_BAUD_INTEGER REGISTER(UART0 + 0x24u)
#define UART_BAUD_FRACTION REGISTER(UART0 + 0x28u)
#define UART_LINE REGISTER(UART0 + 0x2Cu)
#define UART_CONTROL REGISTER(UART0 + 0x30u)
#define UART_RX_EMPTY 0x10u
#define UART_TX_FULL 0x20u
#define UART_8_BITS_FIFO 0x70u
#define UART_ENABLE 0x301u

#define IO_CONTROL(gpio) REGISTER(0x40014004u + 8u * (gpio))
#define PAD(gpio) REGISTER(0x4001C004u + 4u * (gpio))
#define PAD_INPUT_ENABLED 0x56u
#define FUNCTION_SIO 5u
#define FUNCTION_PIO0 6u
#define SIO_OUT_XOR REGISTER(0xD000001Cu)
#define SIO_OUT_ENABLE_SET REGISTER(0xD0000024u)
#define SIO_OUT_ENABLE_CLEAR REGISTER(0xD0000028u)

#define TIMER_RAW_LOW REGISTER(0x40054028u)
#define NVIC_ENABLE REGISTER(0xE000E100u)
#define VECTOR_TABLE REGISTER(0xE000ED08u)

#define PIO0_REGISTER(offset) REGISTER(0x50200000u + (offset))
#define PIO0_CONTROL PIO0_REGISTER(0x000u)
#define PIO0_FIFO_STATE PIO0_REGISTER(0x004u)
#define PIO0_RX_FIFO PIO0_REGISTER(0x020u)
#define PIO0_MEMORY(index) PIO0_REGISTER(0x048u + 4u * (index))
#define PIO0_MACHINE(index) PIO0_REGISTER(0x0C8u + 4u * (index))
#define PIO0_IRQ0_ENABLE PIO0_REGISTER(0x12Cu)
enum { CLOCK_DIVIDER, EXECUTION, SHIFT, ADDRESS, INSTRUCTION, PINS };

#define CLOCK_HZ 125000000u
#define N_INTERRUPTS 26u

/* --- start ------------------------------------------------------------------------------- */

extern uint32_t stack_end[], data_start[], data_end[], data_load[], bss_start[], bss_end[];
int main(int argc, char **argv);

static irq_handler_t handlers[N_INTERRUPTS];

static void dispatch(void) {
  uint32_t exception;
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  handlers[exception - 16u]();
}

/* The emulator's script sees the breakpoint and ends with the address. */
static void fault(void) {
  __asm__ volatile("bkpt 1");
}

static void reset(void) {
  const uint32_t *load = data_load;
  for (volatile uint32_t *word = data_start; word < data_end; word++) {
    *word = *load++;
  }
  for (volatile uint32_t *word = bss_start; word < bss_end; word++) {
    *word = 0;
  }
  (void)main(0, NULL);
  fault();
}

typedef union {
  uint32_t *stack;
  void (*handler)(void);
} vector_t;

__attribute__((section(".vectors"), used)) static const vector_t vectors[16 + N_INTERRUPTS] = {
    [0].stack = stack_end,
    [1].handler = reset,
    [2].handler = fault,
    [3].handler = fault,
    [16 + PIO0_IRQ_0].handler = dispatch,
};

void irq_set_exclusive_handler(uint num, irq_handler_t handler) {
  handlers[num] = handler;
}

void irq_set_enabled(uint num, bool enabled) {
  if (enabled) {
    NVIC_ENABLE = 1u << num;
  }
}

/* --- stdio, time, pins ------------------------------------------------------------------- */

bool stdio_init_all(void) {
  UART_BAUD_INTEGER = 67;
  UART_BAUD_FRACTION = 52;
  UART_LINE = UART_8_BITS_FIFO;
  UART_CONTROL = UART_ENABLE;
  return true;
}

int getchar_timeout_us(uint32_t timeout_us) {
  (void)timeout_us;
  return UART_FLAGS & UART_RX_EMPTY ? PICO_ERROR_TIMEOUT : (int)(UART_DATA & 0xFFu);
}

int stdio_put_string(const char *s, int len, bool newline, bool cr_translation) {
  (void)newline;
  (void)cr_translation;
  for (int i = 0; i < len; i++) {
    while (UART_FLAGS & UART_TX_FULL) {
    }
    UART_DATA = (uint8_t)s[i];
  }
  return len;
}

uint32_t time_us_32(void) {
  return TIMER_RAW_LOW;
}

void busy_wait_us_32(uint32_t delay_us) {
  const uint32_t start = time_us_32();
  while (time_us_32() - start < delay_us) {
  }
}

uint32_t clock_get_hz(clock_handle_t clock) {
  (void)clock;
  return CLOCK_HZ;
}

void gpio_init(uint gpio) {
  SIO_OUT_ENABLE_CLEAR = 1u << gpio;
  IO_CONTROL(gpio) = FUNCTION_SIO;
}

void gpio_set_dir(uint gpio, bool out) {
  if (out) {
    SIO_OUT_ENABLE_SET = 1u << gpio;
  }
}

void gpio_xor_mask(uint32_t mask) {
  SIO_OUT_XOR = mask;
}

void gpio_pull_down(uint gpio) {
  (void)gpio;
}

/* --- flash: the emulator's takes any write; a misplaced one stops it ------------------------- */

static volatile uint32_t *flash_word(uint32_t offset, uint32_t unit, size_t count) {
  uint32_t masked;
  __asm__ volatile("mrs %0, primask" : "=r"(masked));
  if (offset % unit != 0 || count % unit != 0 || masked == 0) {
    fault();
  }
  return (volatile uint32_t *)(uintptr_t)(XIP_BASE + offset);
}

void flash_range_erase(uint32_t flash_offs, size_t count) {
  volatile uint32_t *word = flash_word(flash_offs, FLASH_SECTOR_SIZE, count);
  for (size_t i = 0; i < count / 4; i++) {
    word[i] = UINT32_MAX;
  }
}

void flash_range_program(uint32_t flash_offs, const uint8_t *data, size_t count) {
  volatile uint32_t *word = flash_word(flash_offs, FLASH_PAGE_SIZE, count);
  for (size_t i = 0; i < count / 4; i++) {
    uint32_t value = 0;
    for (uint32_t byte = 0; byte < 4; byte++) {
      value |= (uint32_t)data[4 * i + byte] << (8 * byte);
    }
    word[i] &= value;
  }
}

uint32_t save_and_disable_interrupts(void) {
  uint32_t status;
  __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(status)::"memory");
  return status;
}

void restore_interrupts(uint32_t status) {
  __asm__ volatile("msr primask, %0" ::"r"(status) : "memory");
}

/* --- PIO: encodings of the datasheet's section 3.4, registers of 3.7 ----------------------- */

uint pio_encode_sideset(uint sideset_bit_count, uint value) {
  return value << (13u - sideset_bit_count);
}

uint pio_encode_in(enum pio_src_dest src, uint count) {
  return 0x4000u | (uint)src << 5 | (count & 31u);
}

uint pio_encode_set(enum pio_src_dest dest, uint value) {
  return 0xE000u | (uint)dest << 5 | value;
}

uint pio_encode_jmp_x_dec(uint addr) {
  return 2u << 5 | addr;
}

uint pio_encode_nop(void) {
  return 0xA000u | (uint)pio_y << 5 | (uint)pio_y;
}

bool pio_can_add_program(PIO pio, const pio_program_t *program) {
  (void)pio;
  return program->length <= 32;
}

int pio_add_program(PIO pio, const pio_program_t *program) {
  (void)pio;
  for (uint i = 0; i < program->length; i++) {
    PIO0_MEMORY(i) = program->instructions[i];
  }
  return 0;
}

void pio_gpio_init(PIO pio, uint pin) {
  (void)pio;
  PAD(pin) = PAD_INPUT_ENABLED;
  IO_CONTROL(pin) = FUNCTION_PIO0;
}

/* By `set pindirs`, with the set pins mapped to them. */
int pio_sm_set_consecutive_pindirs(PIO pio, uint sm, uint pins_base, uint pin_count, bool is_out) {
  (void)pio;
  const uint32_t before = PIO0_MACHINE(6 * sm + PINS);
  PIO0_MACHINE(6 * sm + PINS) = pin_count << 26 | pins_base << 5;
  PIO0_MACHINE(6 * sm + INSTRUCTION) = 0xE080u | (is_out ? (1u << pin_count) - 1u : 0u);
  PIO0_MACHINE(6 * sm + PINS) = before;
  return 0;
}

pio_sm_config pio_get_default_sm_config(void) {
  const pio_sm_config config = {.clkdiv = 1u << 16, .execctrl = 31u << 12, .shiftctrl = 3u << 18};
  return config;
}

void sm_config_set_in_pins(pio_sm_config *c, uint in_base) {
  c->pinctrl |= in_base << 15;
}

void sm_config_set_sideset(pio_sm_config *c, uint bit_count, bool optional, bool pindirs) {
  c->pinctrl |= bit_count << 29;
  c->execctrl |= (uint32_t)optional << 30 | (uint32_t)pindirs << 29;
}

void sm_config_set_sideset_pins(pio_sm_config *c, uint sideset_base) {
  c->pinctrl |= sideset_base << 10;
}

void sm_config_set_wrap(pio_sm_config *c, uint wrap_target, uint wrap) {
  c->execctrl = (c->execctrl & ~0x1FF80u) | wrap_target << 7 | wrap << 12;
}

void sm_config_set_in_shift(pio_sm_config *c, bool shift_right, bool autopush,
                            uint push_threshold) {
  c->shiftctrl &= ~(1u << 18 | 1u << 16 | 31u << 20);
  c->shiftctrl |= (uint32_t)shift_right << 18 | (uint32_t)autopush << 16;
  c->shiftctrl |= (push_threshold & 31u) << 20;
}

void sm_config_set_fifo_join(pio_sm_config *c, enum pio_fifo_join join) {
  c->shiftctrl |= (uint32_t)join << 30;
}

void sm_config_set_clkdiv(pio_sm_config *c, float div) {
  c->clkdiv = (uint32_t)(div * 256.0f) << 8;
}

int pio_sm_init(PIO pio, uint sm, uint initial_pc, const pio_sm_config *config) {
  (void)pio;
  PIO0_MACHINE(6 * sm + CLOCK_DIVIDER) = config->clkdiv;
  PIO0_MACHINE(6 * sm + EXECUTION) = config->execctrl;
  PIO0_MACHINE(6 * sm + SHIFT) = config->shiftctrl;
  PIO0_MACHINE(6 * sm + PINS) = config->pinctrl;
  PIO0_MACHINE(6 * sm + INSTRUCTION) = initial_pc; /* jmp */
  return 0;
}

void pio_set_irq0_source_enabled(PIO pio, pio_interrupt_source_t source, bool enabled) {
  (void)pio;
  PIO0_IRQ0_ENABLE = enabled ? 1u << source : 0;
}

void pio_sm_set_enabled(PIO pio, uint sm, bool enabled) {
  (void)pio;
  PIO0_CONTROL = enabled ? 1u << sm : 0;
}

bool pio_sm_is_rx_fifo_empty(PIO pio, uint sm) {
  (void)pio;
  return (PIO0_FIFO_STATE & 1u << (8u + sm)) != 0;
}

uint32_t pio_sm_get(PIO pio, uint sm) {
  (void)pio;
  return *(&PIO0_RX_FIFO + sm);
}

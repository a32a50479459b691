/* Calls kernels on an emulated core: quads_mcu/report/emulated_kernel.py builds and drives it.
 *
 * A file of calls comes in through Arm semihosting and one of outcomes goes out, both named on the
 * emulator's command line. Words are 32 bits, little-endian:
 *   call:    index into harness_functions, ARGUMENTS arguments, first byte of the memory image,
 *            its size, the image
 *   outcome: ticks of the call, the value it returned, the memory image as the call left it
 * The host knows where the image lies (harness_heap) and has put addresses into it accordingly. */
#include <stddef.h>
#include <stdint.h>

#define ARGUMENTS 12
#define SYS_OPEN 0x01u
#define SYS_WRITE 0x05u
#define SYS_READ 0x06u
#define SYS_GET_CMDLINE 0x15u
#define SYS_EXIT_EXTENDED 0x20u
#define MODE_READ_BINARY 1u
#define MODE_WRITE_BINARY 5u
#define EXIT_APPLICATION 0x20026u
#define EXIT_FAULT 70u
#define EXIT_CALLS 71u

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU_FULL_ACCESS (0xFu << 20)

typedef uint32_t (*function_t)(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                               uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);

/* Generated with the build: the functions that can be called. */
extern const function_t harness_functions[];
extern uint32_t harness_bss_start[], harness_bss_end[], harness_stack_end[];

void harness_reset(void);
void harness_fault(void);

typedef union {
  uint32_t *stack;
  void (*handler)(void);
} vector_t;

__attribute__((section(".vectors"), used)) static const vector_t vectors[16] = {
    [0].stack = harness_stack_end, [1].handler = harness_reset, [2].handler = harness_fault,
    [3].handler = harness_fault,   [4].handler = harness_fault, [5].handler = harness_fault,
    [6].handler = harness_fault,   [7].handler = harness_fault,
};

static uint32_t semihost(uint32_t operation, const void *arguments) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void leave(uint32_t code) {
  const uint32_t exit[2] = {EXIT_APPLICATION, code};
  for (;;) {
    (void)semihost(SYS_EXIT_EXTENDED, exit);
  }
}

void harness_fault(void) {
  leave(EXIT_FAULT);
}

static uint32_t address(const volatile void *pointer) {
  return (uint32_t)(uintptr_t)pointer;
}

#ifdef HARNESS_CMSDK_TIMER /* counts down */
#define TIMER ((volatile uint32_t *)HARNESS_CMSDK_TIMER)
static void start_timer(void) {
  TIMER[2] = UINT32_MAX;
  TIMER[1] = UINT32_MAX;
  TIMER[0] = 1;
}
static uint32_t ticks(void) {
  return ~TIMER[1];
}
#else /* the system counter of Arm's SSE-300: its control frame, and the low word of its reading \
       */
static void start_timer(void) {
  *(volatile uint32_t *)HARNESS_SSE_COUNTER = 1;
}
static uint32_t ticks(void) {
  return *(volatile uint32_t *)(HARNESS_SSE_COUNTER + 8u);
}
#endif

/* Bytes read; less than asked for only at the end of the file. */
static uint32_t receive(uint32_t file, volatile void *bytes, uint32_t n_bytes) {
  const uint32_t read[3] = {file, address(bytes), n_bytes};
  return n_bytes - semihost(SYS_READ, read);
}

static void send(uint32_t file, const volatile void *bytes, uint32_t n_bytes) {
  const uint32_t write[3] = {file, address(bytes), n_bytes};
  if (semihost(SYS_WRITE, write) != 0) {
    leave(EXIT_CALLS);
  }
}

/* Open the file that the next word of the command line names; end that word. */
static uint32_t open_next(char **line, uint32_t mode) {
  char *name = *line;
  uint32_t length = 0;
  while (name[length] != '\0' && name[length] != ' ') {
    length++;
  }
  *line = name + length + (name[length] == ' ');
  name[length] = '\0';
  const uint32_t open[3] = {address(name), mode, length};
  return semihost(SYS_OPEN, open);
}

static void run(uint32_t calls, uint32_t outcomes) {
  static volatile uint32_t call[1 + ARGUMENTS + 2];
  volatile uint32_t outcome[2];

  while (receive(calls, call, sizeof call) == sizeof call) {
    const function_t function = harness_functions[call[0]];
    const volatile uint32_t *a = call + 1;
    uint8_t *image = (uint8_t *)(uintptr_t)call[1 + ARGUMENTS];
    const uint32_t n_bytes = call[2 + ARGUMENTS];
    if (n_bytes > 0 && receive(calls, image, n_bytes) != n_bytes) {
      leave(EXIT_CALLS);
    }
    const uint32_t start = ticks();
    outcome[1] = function(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
    outcome[0] = ticks() - start;
    send(outcomes, outcome, sizeof outcome);
    send(outcomes, image, n_bytes);
  }
}

void harness_reset(void) {
  static char line[512];
  const uint32_t get[2] = {address(line), sizeof line};
  char *word = line;

#ifdef __ARM_FP
  CPACR |= CPACR_FPU_FULL_ACCESS;
  __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
  for (volatile uint32_t *zero = harness_bss_start; zero < harness_bss_end; zero++) {
    *zero = 0;
  }
  if (semihost(SYS_GET_CMDLINE, get) != 0) {
    leave(EXIT_CALLS);
  }
  while (*word != '\0' && *word++ != ' ') {
  }
  start_timer();
  const uint32_t calls = open_next(&word, MODE_READ_BINARY);
  const uint32_t outcomes = open_next(&word, MODE_WRITE_BINARY);
  run(calls, outcomes);
  leave(0);
}

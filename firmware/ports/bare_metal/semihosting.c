/* Clip storage and exit through semihosting (Arm 100863; RISC-V has the same calls): the emulator
 * or debugger opens the file that is the second word of its command line. */
#include "bare_metal.h"
#include "quads_port.h"

#define SYS_OPEN 0x01u
#define SYS_READ 0x06u
#define SYS_SEEK 0x0Au
#define SYS_FLEN 0x0Cu
#define SYS_GET_CMDLINE 0x15u
#define SYS_EXIT_EXTENDED 0x20u
#define MODE_READ_BINARY 1u
#define EXIT_APPLICATION 0x20026u
#define COMMAND_LINE_BYTES 256u
#define NO_FILE (-1)

static int32_t storage = NO_FILE;
static uint32_t storage_bytes;
static uint32_t storage_at; /* position of the open file */

int32_t bare_metal_semihost(uint32_t operation, const void *arguments) {
#if defined(__riscv)
  register uint32_t a0 __asm__("a0") = operation;
  register const void *a1 __asm__("a1") = arguments;
  __asm__ volatile(
      ".option push\n\t"
      ".option norvc\n\t"
      ".balign 16\n\t"
      "slli zero, zero, 0x1f\n\t"
      "ebreak\n\t"
      "srai zero, zero, 7\n\t"
      ".option pop"
      : "+r"(a0)
      : "r"(a1)
      : "memory");
  return (int32_t)a0;
#else
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return (int32_t)r0;
#endif
}

static uint32_t address(const void *pointer) {
  return (uint32_t)(uintptr_t)pointer;
}

void bare_metal_storage_init(void) {
  char line[COMMAND_LINE_BYTES];
  const uint32_t get[2] = {address(line), sizeof line};
  if (bare_metal_semihost(SYS_GET_CMDLINE, get) != 0) {
    return;
  }
  line[sizeof line - 1] = '\0';
  const char *name = line;
  while (*name != '\0' && *name++ != ' ') {
  }
  uint32_t length = 0;
  while (name[length] != '\0') {
    length++;
  }
  if (length == 0) {
    return;
  }
  const uint32_t open[3] = {address(name), MODE_READ_BINARY, length};
  storage = bare_metal_semihost(SYS_OPEN, open);
  if (storage == NO_FILE) {
    return;
  }
  const uint32_t size[1] = {(uint32_t)storage};
  const int32_t found = bare_metal_semihost(SYS_FLEN, size);
  storage_bytes = found > 0 ? (uint32_t)found : 0;
}

uint32_t quads_port_storage_bytes(void) {
  return storage_bytes;
}

int quads_port_storage_read(uint32_t offset, uint8_t *bytes, size_t n_bytes) {
  const uint32_t seek[2] = {(uint32_t)storage, offset};
  const uint32_t read[3] = {(uint32_t)storage, address(bytes), (uint32_t)n_bytes};
  if (storage == NO_FILE || offset > storage_bytes || n_bytes > storage_bytes - offset) {
    return -1;
  }
  if (offset != storage_at && bare_metal_semihost(SYS_SEEK, seek) != 0) {
    return -1;
  }
  storage_at = offset + (uint32_t)n_bytes;
  return bare_metal_semihost(SYS_READ, read) == 0 ? 0 : -1;
}

void quads_port_exit(int code) {
  const uint32_t exit[2] = {EXIT_APPLICATION, (uint32_t)code};
  for (;;) {
    bare_metal_semihost(SYS_EXIT_EXTENDED, exit);
  }
}

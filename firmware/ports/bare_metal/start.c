#include <stddef.h>
#include <stdint.h>

#include "bare_metal.h"
#include "quads_port.h"

#define PAINT 0xDEADBEEFu
#define OWN_FRAME_BYTES 128u /* more than bare_metal_start has on the stack */

extern uint32_t quads_data_start[], quads_data_end[], quads_data_load[];
extern uint32_t quads_bss_start[], quads_bss_end[];

int main(int argc, char **argv);

/* Makes no calls before the stack is painted: it stands on it. */
void bare_metal_start(void) {
  uint32_t here;
  const uintptr_t end = (uintptr_t)&here - OWN_FRAME_BYTES;
  for (volatile uint32_t *word = quads_stack_start; (uintptr_t)word < end; word++) {
    *word = PAINT;
  }
  const uint32_t *load = quads_data_load;
  for (volatile uint32_t *word = quads_data_start; word < quads_data_end; word++) {
    *word = *load++;
  }
  for (volatile uint32_t *word = quads_bss_start; word < quads_bss_end; word++) {
    *word = 0;
  }
  quads_port_exit(main(0, NULL));
}

uint32_t quads_port_stack_bytes(void) {
  return (uint32_t)((uintptr_t)quads_stack_end - (uintptr_t)quads_stack_start);
}

uint32_t quads_port_stack_used(void) {
  const uint32_t *word = quads_stack_start;
  while (word < quads_stack_end && *word == PAINT) {
    word++;
  }
  return (uint32_t)((uintptr_t)quads_stack_end - (uintptr_t)word);
}

/* The stack belongs to the vendor's start-up code: its size and use are not known here. */
#include "quads_port.h"

uint32_t quads_port_stack_bytes(void) {
  return 0;
}

uint32_t quads_port_stack_used(void) {
  return 0;
}

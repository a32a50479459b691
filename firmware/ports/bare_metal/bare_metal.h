/* bare_metal.h - what ports without an operating system share: memory set up by the linker script
 * (templates/bare_metal.ld.j2), painted stack, semihosting.
 *
 * A port defines `quads_reset`, the entry of the linker script, in section .vectors; with a stack
 * in place it calls bare_metal_start. Addresses come from the board file as macros. */
#ifndef BARE_METAL_H
#define BARE_METAL_H

#include <stdint.h>

#define BARE_METAL_EXIT_FAULT 70

extern uint32_t quads_stack_start[], quads_stack_end[];

/* Make static data and stack ready, run main, exit with its result. */
_Noreturn void bare_metal_start(void);

/* Semihosting: one call to the emulator or debugger. */
int32_t bare_metal_semihost(uint32_t operation, const void *arguments);

/* Open the clip file named on the emulator's command line, if there is one. */
void bare_metal_storage_init(void);

#endif

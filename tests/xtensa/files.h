/* files.h - files of the folder the program runs in: files_host.c on a PC, files_simcall.c in
 * QEMU's Xtensa machine. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>
#include <stdint.h>

/* Read at most `capacity` bytes; returns how many, 0 when there is no such file. */
size_t files_read(const char *name, void *bytes, size_t capacity);

/* Returns 0, or -1 when not all bytes could be written. */
int files_write(const char *name, const void *bytes, size_t n_bytes);

/* The core's cycle counter; 0 on a PC. */
uint32_t files_ticks(void);

#endif

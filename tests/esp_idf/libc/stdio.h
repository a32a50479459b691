/* stdio.h - what the port uses of it, where there is no C library. */
#ifndef STDIO_H
#define STDIO_H

#include <stddef.h>

__attribute__((format(printf, 3, 4))) int snprintf(char *text, size_t n_bytes, const char *format,
                                                   ...);

#endif

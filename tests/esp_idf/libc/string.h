/* string.h - what the firmware uses of it, where there is no C library. */
#ifndef LIBC_STRING_H
#define LIBC_STRING_H

#include "../../xtensa/include/string.h"

void *memchr(const void *bytes, int value, size_t n_bytes);
size_t strlen(const char *text);

#endif

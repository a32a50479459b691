/* string.h - what the firmware uses of it; support.c has the functions. */
#ifndef STRING_H
#define STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t n_bytes);
void *memmove(void *to, const void *from, size_t n_bytes);
void *memset(void *to, int value, size_t n_bytes);
void *memchr(const void *from, int value, size_t n_bytes);
int memcmp(const void *a, const void *b, size_t n_bytes);

#endif

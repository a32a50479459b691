/* stdlib.h - what the ports use of the C library of the chips. */
#ifndef QUADS_TEST_STDLIB_H
#define QUADS_TEST_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);

#endif

/* What the compiler calls: there is no C library and no compiler runtime for a windowed Xtensa. */
#include <stdint.h>
#include <string.h>

int64_t __muldi3(int64_t a, int64_t b);

void *memcpy(void *to, const void *from, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  }
  return to;
}

void *memmove(void *to, const void *from, size_t n_bytes) {
  if ((uintptr_t)to < (uintptr_t)from) {
    return memcpy(to, from, n_bytes);
  }
  for (size_t i = n_bytes; i-- > 0;) {
    ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  }
  return to;
}

void *memset(void *to, int value, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    ((uint8_t *)to)[i] = (uint8_t)value;
  }
  return to;
}

/* 32 x 32 bits from halves of 16, without a 64-bit multiplication. */
static uint64_t product(uint32_t a, uint32_t b) {
  const uint32_t low = (a & 0xFFFFu) * (b & 0xFFFFu);
  const uint32_t middle = (a >> 16) * (b & 0xFFFFu) + (low >> 16);
  const uint32_t other = (a & 0xFFFFu) * (b >> 16) + (middle & 0xFFFFu);
  const uint32_t high = (a >> 16) * (b >> 16) + (middle >> 16) + (other >> 16);
  return ((uint64_t)high << 32) | (other << 16) | (low & 0xFFFFu);
}

/* Modulo 2^64; signs make no difference there. */
int64_t __muldi3(int64_t a, int64_t b) {
  const uint32_t a_low = (uint32_t)a, a_high = (uint32_t)((uint64_t)a >> 32);
  const uint32_t b_low = (uint32_t)b, b_high = (uint32_t)((uint64_t)b >> 32);
  const uint64_t crossed = a_low * b_high + a_high * b_low;
  return (int64_t)(product(a_low, b_low) + (crossed << 32));
}

int memcmp(const void *a, const void *b, size_t n_bytes) {
  const uint8_t *first = a;
  const uint8_t *second = b;
  for (size_t i = 0; i < n_bytes; i++) {
    if (first[i] != second[i]) {
      return first[i] < second[i] ? -1 : 1;
    }
  }
  return 0;
}

void *memchr(const void *from, int value, size_t n_bytes) {
  const uint8_t *bytes = from;
  for (size_t i = 0; i < n_bytes; i++) {
    if (bytes[i] == (uint8_t)value) {
      return (void *)(uintptr_t)&bytes[i];
    }
  }
  return NULL;
}

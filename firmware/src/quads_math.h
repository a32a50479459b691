/* quads_math.h - the scalar operations of docs/arithmetic.md ("Notation").
 *
 * `>>` of a negative number is an arithmetic shift on every compiler this code meets.
 */
#ifndef QUADS_MATH_H
#define QUADS_MATH_H

#include <stddef.h>
#include <stdint.h>

/* RQ(a, m) = (a * m + 2^31) >> 32, 0 <= m < 2^31: adding 2^31 carries into the upper word exactly
 * when bit 31 is set. */
static inline int32_t quads_requantize(int32_t a, int32_t multiplier) {
  const int64_t product = (int64_t)a * multiplier;
  return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
}

#ifdef __ARM_FEATURE_SAT /* not by arm_acle.h, whose macros do not pass -Wconversion */
static inline int8_t quads_sat8(int32_t a) {
  return (int8_t)(int32_t)__builtin_arm_ssat(a, 8);
}
static inline int16_t quads_sat16(int32_t a) {
  return (int16_t)(int32_t)__builtin_arm_ssat(a, 16);
}
#else
static inline int8_t quads_sat8(int32_t a) {
  return (int8_t)(a < -128 ? -128 : a > 127 ? 127 : a);
}
static inline int16_t quads_sat16(int32_t a) {
  return (int16_t)(a < -32768 ? -32768 : a > 32767 ? 32767 : a);
}
#endif

/* a * 2^n for any sign of a; the caller bounds the result. */
static inline int32_t quads_shift_left(int32_t a, uint32_t n) {
  return (int32_t)((uint32_t)a << n);
}

/* Number of bits up to the highest one set; 0 for 0. */
static inline uint32_t quads_bit_length(uint32_t a) {
  uint32_t length = 0;
  for (uint32_t step = 16; step > 0; step >>= 1) {
    if (a >> step) {
      a >>= step;
      length += step;
    }
  }
  return length + a;
}

/* floor(sqrt(a)), one result bit per turn. */
static inline uint32_t quads_isqrt(uint32_t a) {
  uint32_t root = 0;
  for (uint32_t bit = UINT32_C(1) << 30; bit > 0; bit >>= 2) {
    if (a >= root + bit) {
      a -= root + bit;
      root = (root >> 1) + bit;
    } else {
      root >>= 1;
    }
  }
  return root;
}

static inline size_t quads_min(size_t a, size_t b) {
  return a < b ? a : b;
}

#endif

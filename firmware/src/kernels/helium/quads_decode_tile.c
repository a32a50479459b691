#include "quads_helium.h"

/* Each decodes half a block: 4 channels of 16 inputs. `a` is where the first pair of channels goes,
 * `b` the second. */
static inline const uint8_t *half_8(const uint8_t *packed, const int8_t *centroids, int8_t *a,
                                    int8_t *b) {
  vst1q_s8(a, vldrbq_gather_offset_s8(centroids, vld1q_u8(packed)));
  vst1q_s8(a + 16, vldrbq_gather_offset_s8(centroids, vld1q_u8(packed + 16)));
  vst1q_s8(b, vldrbq_gather_offset_s8(centroids, vld1q_u8(packed + 32)));
  vst1q_s8(b + 16, vldrbq_gather_offset_s8(centroids, vld1q_u8(packed + 48)));
  return packed + 64;
}

static inline void put(const uint16_t *pairs, uint16x8_t index, int8_t *out) {
  vst1q_s8(out, vreinterpretq_s8_u16(vldrhq_gather_shifted_offset_u16(pairs, index)));
}

static inline const uint8_t *half_4(const uint8_t *packed, const uint16_t *pairs, int8_t *a,
                                    int8_t *b) {
  put(pairs, vldrbq_u16(packed), a);
  put(pairs, vldrbq_u16(packed + 8), a + 16);
  put(pairs, vldrbq_u16(packed + 16), b);
  put(pairs, vldrbq_u16(packed + 24), b + 16);
  return packed + 32;
}

static inline const uint8_t *half_3(const uint8_t *packed, const uint16_t *pairs, int8_t *a,
                                    int8_t *b) {
  const uint16x8_t v0 = vldrbq_u16(packed);
  const uint16x8_t v1 = vldrbq_u16(packed + 8);
  const uint16x8_t v2 = vldrbq_u16(packed + 16);
  uint8x16_t top = vsriq_n_u8(vreinterpretq_u8_u16(v2), vreinterpretq_u8_u16(v1), 2);
  top = vsriq_n_u8(top, vreinterpretq_u8_u16(v0), 4);
  put(pairs, v0, a);
  put(pairs, v1, a + 16);
  put(pairs, v2, b);
  put(pairs, vshrq_n_u16(vreinterpretq_u16_u8(top), 2), b + 16);
  return packed + 24;
}

static inline const uint8_t *half_2(const uint8_t *packed, const uint16_t *pairs, int8_t *a,
                                    int8_t *b) {
  const uint16x8_t v0 = vldrbq_u16(packed);
  const uint16x8_t v1 = vldrbq_u16(packed + 8);
  put(pairs, v0, a);
  put(pairs, vshrq_n_u16(v0, 4), a + 16);
  put(pairs, v1, b);
  put(pairs, vshrq_n_u16(v1, 4), b + 16);
  return packed + 16;
}

/* The other half of each block is skipped. */
#define DECODE(bits, table)                      \
  do {                                           \
    for (size_t k = 0; k < blocks; k++) {        \
      packed = half_##bits(packed, table, a, b); \
      packed += 8 * bits;                        \
      a += 32;                                   \
      b += 32;                                   \
    }                                            \
  } while (0)

void quads_decode_tile(const quads_linear_t *w, size_t first, const quads_pairs_t *pairs,
                       int8_t *tile) {
  const size_t blocks = quads_padded(w->n_in) / QUADS_BLOCK;
  const uint8_t *packed =
      quads_group(w, first) + (first % QUADS_GROUP_ROWS != 0 ? (size_t)8 * w->bits : 0);
  int8_t *a = tile;
  int8_t *b = tile + 32 * blocks;

  switch (w->bits) {
    case 8:
      DECODE(8, w->centroids);
      break;
    case 4:
      DECODE(4, pairs->pair);
      break;
    case 3:
      DECODE(3, pairs->pair);
      break;
    default:
      DECODE(2, pairs->pair);
      break;
  }
  if (w->n_in % QUADS_BLOCK != 0) { /* the upper half of the last block of each channel */
    const int8x16_t zero = vdupq_n_s8(0);
    vstrbq_p_s8(a - 32, zero, 0xFF00);
    vstrbq_p_s8(a - 16, zero, 0xFF00);
    vstrbq_p_s8(b - 32, zero, 0xFF00);
    vstrbq_p_s8(b - 16, zero, 0xFF00);
  }
}

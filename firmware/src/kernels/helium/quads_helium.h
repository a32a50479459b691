/* quads_helium.h - what the Cortex-M55 kernels share: dot products and the decoding of weights.
 *
 * Weights lie in groups of QUADS_GROUP_ROWS output channels (docs/arithmetic.md, section 9,
 * "helium"). A group is a sequence of blocks of QUADS_BLOCK inputs; n_in is filled up to whole
 * blocks with index 0, which meets zeros. With two to four bits a byte holds a pair of neighbouring
 * weights, and one gather load turns eight bytes into sixteen weights through a table of pairs;
 * with eight bits it looks the weights up in the codebook itself.
 *
 * Two ways lead from there to sums: quads_dot_packed decodes on the fly, for few rows of input;
 * quads_decode_tile writes QUADS_TILE_CHANNELS channels out once, and quads_dot_2x4_s8 multiplies
 * them with any number of rows.
 *
 * Workspace of a linear layer: quads_pairs_t, int32 [QUADS_SUMS], then the tile.
 */
#ifndef QUADS_HELIUM_H
#define QUADS_HELIUM_H

#include <arm_mve.h>

#include "kernels/quads_kernels.h"

enum {
  QUADS_BLOCK = 16,        /* inputs of one vector */
  QUADS_GROUP_ROWS = 8,    /* channels that are packed together */
  QUADS_TILE_CHANNELS = 4, /* channels that are decoded together: half a group */
  QUADS_PAIRS = 256,       /* entries of the table of pairs */
  QUADS_SUMS = 256,        /* int32 sums in the workspace */
  QUADS_SUM_ROWS = 64,     /* of each of a tile's channels: rows of input at a time */
  QUADS_FEW_ROWS = 3,      /* up to here decoding on the fly is faster */
};

/* Weights in the order in which a byte of indices holds them, the first one in the low byte. */
typedef struct {
  uint16_t pair[QUADS_PAIRS];
} quads_pairs_t;

/* n_in filled up to whole blocks */
static inline size_t quads_padded(size_t n_in) {
  return (n_in + QUADS_BLOCK - 1) / QUADS_BLOCK * QUADS_BLOCK;
}

/* Parts of a linear layer's workspace. */
typedef struct {
  quads_pairs_t *pairs; /* not used with 8 bits */
  int32_t *sums;        /* [QUADS_SUMS] */
  int8_t *tile;         /* [QUADS_TILE_CHANNELS / 2][padded / 16][2][16] */
} quads_linear_work_t;

static inline quads_linear_work_t quads_linear_work(void *workspace) {
  quads_pairs_t *const pairs = workspace;
  int32_t *const sums = (int32_t *)(void *)(pairs + 1);
  const quads_linear_work_t work = {pairs, sums, (int8_t *)(sums + QUADS_SUMS)};
  return work;
}

/* First byte of the group that channel `first` begins. */
static inline const uint8_t *quads_group(const quads_linear_t *w, size_t first) {
  return w->indices + first / QUADS_GROUP_ROWS * quads_padded(w->n_in) * w->bits;
}

/* The multipliers of channels n .. n + 3. */
static inline int32x4_t quads_multipliers(const int32_t *multiplier, size_t per_channel, size_t n) {
  return per_channel != 0 ? vld1q_s32(multiplier + n) : vdupq_n_s32(multiplier[0]);
}

/* Saturate four lanes to int8. */
static inline int32x4_t quads_sat8_lanes(int32x4_t a) {
  return vmaxq_s32(vminq_s32(a, vdupq_n_s32(INT8_MAX)), vdupq_n_s32(INT8_MIN));
}

/* Saturate to int16, interleaved: even lanes from `even`. The intrinsics would keep copies. */
static inline int16x8_t quads_narrow_s32(int32x4_t even, int32x4_t odd) {
  __asm__("vqmovnb.s32 %q0, %q0\n\tvqmovnt.s32 %q0, %q1" : "+w"(even) : "w"(odd));
  return vreinterpretq_s16_s32(even);
}

/* Saturate to int8, interleaved. */
static inline int8x16_t quads_narrow_s16(int16x8_t even, int16x8_t odd) {
  __asm__("vqmovnb.s16 %q0, %q0\n\tvqmovnt.s16 %q0, %q1" : "+w"(even) : "w"(odd));
  return vreinterpretq_s8_s16(even);
}

/* Rows of input that quads_dot_2x4_s8 takes next when `rows` are left; never leaves one to three
 * behind, which would cost as much as four. */
static inline size_t quads_sum_rows_now(size_t rows) {
  if (rows <= QUADS_SUM_ROWS) {
    return rows;
  }
  return rows < QUADS_SUM_ROWS + 4 ? QUADS_SUM_ROWS - 4 : QUADS_SUM_ROWS;
}

/* Fill the table of pairs for 2, 3 or 4 bits; does nothing for 8. */
void quads_pair_table(const quads_linear_t *w, quads_pairs_t *pairs);

/* Decode channels first .. first + 3; `first` is a multiple of 4.
 * tile: int8 [2][padded / 16][2][16]: two pairs of channels, each interleaved by blocks. Behind
 * n_in it holds zeros. */
void quads_decode_tile(const quads_linear_t *w, size_t first, const quads_pairs_t *pairs,
                       int8_t *tile);

/* Its loop: `packed` is the first half block to decode, `table` the pairs or, with 8 bits, the
 * centroids. blocks is at least 1. */
void quads_decode_blocks(const uint8_t *packed, const void *table, size_t blocks, int8_t *tile,
                         size_t bits);

/* Products of pairs of vectors with rows: sums[v][t] = start[v] + tile[v] . x[t]. Strides are in
 * elements. Four rows at a time; the sums of one to three rows take four places. */
typedef struct {
  const void *tile; /* [n_pairs][ceil(length / lanes)][2][lanes], zeros behind `length` */
  const int8_t *x;  /* [rows][length], rows x_stride apart */
  size_t x_stride;
  size_t rows; /* at least 1 */
  size_t length;
  int32_t *sums; /* [2 * n_pairs][rows], sums_stride apart */
  size_t sums_stride;
  const int32_t *start; /* [2 * n_pairs] */
  size_t n_pairs;       /* at least 1 */
} quads_dot_t;

/* int8 tile, 16 lanes; length is a multiple of 8. Nothing behind a row is read. */
void quads_dot_2x4_s8(const quads_dot_t *dot);

/* int16 tile, 8 lanes; length is a multiple of 8. */
void quads_dot_2x4_s16(const quads_dot_t *dot);

/* Products of one row with packed groups: sums[n] = bias[n] + w[n] . x.
 * Eight channels at a time. */
typedef struct {
  const uint8_t *indices; /* packed groups */
  const void *table;      /* quads_pairs_t; int8 centroids with 8 bits */
  const int8_t *x;        /* [16 * blocks] */
  size_t blocks;
  size_t groups;       /* at least 1 */
  const int32_t *bias; /* [8 * groups] */
  int32_t *sums;       /* [8 * groups] */
  size_t bits;         /* 2, 3, 4 or 8 */
} quads_dot_packed_t;

void quads_dot_packed(const quads_dot_packed_t *dot);

/* As above for the channels first .. first + n - 1 of a layer (`first` is a multiple of 8, n at
 * most QUADS_SUMS and a multiple of 8, except at the layer's end). Where n_in is not a multiple of
 * 16, `x` is first copied to the tile's memory.
 * x: int8 [n_in]; work->sums: gets int32 [n] */
void quads_dot_row(const quads_linear_t *w, size_t first, size_t n, const int8_t *x,
                   const quads_linear_work_t *work);

#endif

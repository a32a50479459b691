/* quads_dsp_linear.h - what the linear kernels for the DSP extension (Cortex-M4, M7, M33) share.
 *
 * Weights and inputs meet as pairs of int16, two products per SMLAD. Two output channels are
 * decoded at a time into a tile, uint32 [n_in / 2][2]: word (k, c) holds the weights 2k and 2k + 1
 * of channel c. Input rows are widened once per call into a panel, four of them interleaved,
 * uint32 [rows / 4][n_in / 2][4]. Rows are packed as everywhere (docs/arithmetic.md, section 9).
 */
#ifndef QUADS_DSP_LINEAR_H
#define QUADS_DSP_LINEAR_H

#include "kernels/quads_kernels.h"

#ifndef __ARM_FEATURE_DSP
#error "the dsp kernels need a core with the DSP extension; take kernels = \"plain\""
#endif

#define QUADS_DSP_TABLE_WORDS 256 /* pairs of 4-bit indices */
#define QUADS_DSP_GROUP 4         /* rows of input at a time */

/* Two int8 as the halves of a word. */
static inline uint32_t quads_dsp_pair(int32_t low, int32_t high) {
  return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

/* Two output channels for all rows of a panel. Field order is known to quads_dsp_gemm.S. */
typedef struct {
  const uint32_t *tile;
  size_t n_pairs; /* n_in / 2, a multiple of 4 */
  int32_t bias[2];
  int32_t multiplier[2];
  void *y;
  size_t y_stride; /* bytes */
  size_t rows;     /* at least 1 */
} quads_dsp_gemm_t;

/* Multiply with a panel, requantize and store (s8) or add to what y holds (add_s16). */
typedef void quads_dsp_gemm(const quads_dsp_gemm_t *gemm, const uint32_t *panel);
quads_dsp_gemm quads_dsp_gemm_s8, quads_dsp_gemm_add_s16;

/* One row of input, 4 bit weights. Field order is known to quads_dsp_gemv.S. */
typedef struct {
  const uint8_t *indices; /* [n_out][n_in / 2] */
  size_t row_bytes;       /* n_in / 2, a multiple of 4 */
  const int16_t *x;       /* [n_in] */
  const uint32_t *table;  /* [QUADS_DSP_TABLE_WORDS] */
  const int32_t *bias;    /* [n_out] */
  const int32_t *bias_end;
  const int32_t *multiplier; /* four at a time */
  size_t multiplier_step;    /* 16 bytes, or 0 when there are but four */
  int8_t *y;                 /* [n_out] */
} quads_dsp_gemv_t;

void quads_dsp_gemv_s8(const quads_dsp_gemv_t *gemv);

/* Widen four rows of input into a panel. x: int8 [n_in] each; panel: uint32 [n_in / 2][4] */
void quads_dsp_widen(const int8_t *const x[QUADS_DSP_GROUP], size_t n_in, uint32_t *panel);

/* Widen one row of input. x: int8 [n_in]; wide: int16 [n_in] */
void quads_dsp_widen_row(const int8_t *x, size_t n_in, int16_t *wide);

/* Table of all pairs of indices that quads_dsp_decode looks up: uint32 [QUADS_DSP_TABLE_WORDS] */
void quads_dsp_pairs(const quads_linear_t *w, uint32_t *table);

/* The same for 4 bit. centroids: int8 [16] */
void quads_dsp_pairs_4(const int8_t *centroids, uint32_t *table);

/* Decode output channels first_row and first_row + 1 of w into a tile. */
void quads_dsp_decode(const quads_linear_t *w, size_t first_row, const uint32_t *table,
                      uint32_t *tile);

/* The same for 4 bit; n_bytes, a multiple of 4, are a row's. */
void quads_dsp_decode_4(const uint8_t *row0, const uint8_t *row1, size_t n_bytes,
                        const uint32_t *table, uint32_t *tile);

/* Where a layer's outputs go, all in bytes: the first, from row to row, from channel to channel. */
typedef struct {
  uint8_t *y;
  size_t y_stride;
  size_t y_bytes;
  quads_dsp_gemm *gemm;
} quads_dsp_outputs_t;

/* All of a linear layer with more than a few rows: a panel, and for every two channels a tile and
 * outputs->gemm. Workspace: table, tile, panel. */
void quads_dsp_linear(const int8_t *x, size_t x_stride, size_t rows, const quads_linear_t *w,
                      size_t first_out, size_t n_out, const quads_dsp_outputs_t *outputs,
                      void *workspace);

#endif

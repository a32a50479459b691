/* quads_esp.h - what the kernels for ESP32 and ESP32-S3 share: plain's arithmetic, with the outputs
 * of a layer cut in two for the chip's cores, and on ESP32-S3 products on the vector unit.
 *
 * Weights are decoded four output channels at a time into a tile, as in plain/; each core has a
 * tile of its own. Build settings:
 *
 *   QUADS_CORES  2: the second half of the outputs is made by quads_on_other_core, which the
 *                firmware then defines. 1, the default: one core makes all.
 *   QUADS_PIE    1: quads_pie_dot_4.S, which only ESP32-S3 can run. 0, the default: plain C.
 */
#ifndef QUADS_ESP_H
#define QUADS_ESP_H

#include "kernels/plain/quads_plain.h"

#ifndef QUADS_CORES
#define QUADS_CORES 1
#endif
#ifndef QUADS_PIE
#define QUADS_PIE 0
#endif

/* Make outputs first .. end - 1 of a job, in a workspace that no other part uses. */
typedef void quads_part_t(const void *job, size_t first, size_t end, void *workspace);

/* Run part(job, first, end, workspace) on the other core, and meanwhile here part(job, 0, first,
 * own_workspace); return when both are done and what they wrote is seen here. */
void quads_on_other_core(quads_part_t *part, const void *job, size_t first, size_t end,
                         void *workspace, void *own_workspace);

/* Make outputs 0 .. n - 1, cut at a multiple of `step`. products: multiplications in all of them;
 * few are not worth waking the other core. workspace: 2 x workspace_bytes, a multiple of 8. */
void quads_esp_split(quads_part_t *part, const void *job, size_t n, size_t step, size_t products,
                     void *workspace, size_t workspace_bytes);

/* A linear layer; where y is NULL, outputs are added to the residual stream. */
typedef struct {
  const int8_t *x; /* [rows][n_in], rows x_stride apart */
  size_t x_stride, rows;
  const quads_linear_t *w;
  size_t first_out;
  int8_t *y;         /* [rows][n_out], rows y_stride apart, or NULL */
  int16_t *residual; /* likewise */
  size_t y_stride;
} quads_esp_linear_t;

/* All n_out channels from first_out; workspace as for quads_linear_s8. */
void quads_esp_linear(const quads_esp_linear_t *job, size_t n_out, void *workspace);

/* --- the tile of the vector unit: int8 [QUADS_TILE_ROWS][QUADS_PIE_ROW_BYTES(n_in)] at a multiple
 * of 16 bytes, each row ended by zeros --- */

#define QUADS_PIE_ALIGNMENT 16u
#define QUADS_PIE_ROW_BYTES(n_in) (((size_t)(n_in) + 15u) / 16u * 16u)

/* Decode output channels first_row .. first_row + QUADS_TILE_ROWS - 1 of w into a tile. */
void quads_pie_decode(const quads_linear_t *w, size_t first_row, int8_t *tile);

/* sums = bias + products of a tile with a row of input. x: int8 [n_in] at a multiple of 8 bytes;
 * bias, sums: int32 [QUADS_TILE_ROWS]. Sums are bounded at export. */
void quads_pie_dot_4(const int8_t *tile, const int8_t *x, size_t n_in, const int32_t *bias,
                     int32_t *sums);

/* Bytes of one core's tile; on either unit at most QUADS_ESP_TILE_BYTES(n_in). */
#define QUADS_ESP_TILE_BYTES(n_in) \
  (QUADS_TILE_ROWS * QUADS_PIE_ROW_BYTES(n_in) + QUADS_PIE_ALIGNMENT - 8u)

#endif

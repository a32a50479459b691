/* As DSP in quads_mcu/export/kernels.py; a test compares them. */
#include "kernels/plain/quads_plain.h"
#include "quads_math.h"

#define QUERY_SHARE 16u /* of quads_attention_head.c */

size_t quads_index_bytes(size_t n_out, size_t n_in, size_t bits) {
  return n_out * ((n_in * bits + 7) / 8);
}

/* Pair table, a tile of two channels and the widened rows (quads_dsp_linear.h). */
size_t quads_linear_bytes(size_t rows, size_t n_in) {
  return 4 * 256 + 4 * n_in + (rows + 3) / 4 * 4 * 2 * n_in;
}

size_t quads_head_bytes(size_t n_in) {
  return QUADS_TILE_BYTES(n_in);
}

/* Multipliers, and scores with queries and keys or powers with values and sums of one block. */
size_t quads_attention_bytes(size_t n_tokens, size_t d_head, size_t d_model) {
  const size_t share = d_model < 2 * QUERY_SHARE ? 1 : d_model / (2 * QUERY_SHARE);
  const size_t pairs = quads_min(share, (n_tokens + 1) / 2);
  const size_t tokens = (n_tokens + 7) / 8 * 8;
  const size_t scoring = 8 * pairs * tokens + 4 * pairs * d_head + 8 * d_head;
  const size_t weighting = 4 * pairs * tokens + 8 * tokens + 32 * pairs;
  return 8 * pairs + (scoring > weighting ? scoring : weighting);
}

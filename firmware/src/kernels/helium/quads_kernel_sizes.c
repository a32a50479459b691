/* As quads_mcu/export/helium.py; a test compares them. */
#include "kernels/quads_kernels.h"

enum { GROUP_ROWS = 8, TILE_CHANNELS = 4, BLOCK = 16, TABLE_BYTES = 2 * 256, SUMS_BYTES = 4 * 256 };

static size_t up(size_t size, size_t step) {
  return (size + step - 1) / step * step;
}

size_t quads_index_bytes(size_t n_out, size_t n_in, size_t bits) {
  return up(n_out, GROUP_ROWS) * up(n_in, BLOCK) * bits / 8;
}

size_t quads_linear_bytes(size_t rows, size_t n_in) {
  (void)rows;
  return TABLE_BYTES + SUMS_BYTES + TILE_CHANNELS * up(n_in, BLOCK);
}

size_t quads_head_bytes(size_t n_in) {
  return quads_linear_bytes(1, n_in);
}

/* Sums and exponentials of two queries, values, queries. */
size_t quads_attention_bytes(size_t n_tokens, size_t d_head, size_t d_model) {
  const size_t tokens = up(n_tokens, 8);
  (void)d_model;
  return 8 * (tokens > d_head ? tokens : d_head) + 4 * tokens + d_head * tokens +
         2 * up(d_head, BLOCK);
}

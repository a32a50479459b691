/* As ESP in quads_mcu/export/kernels.py; a test compares them. */
#include "kernels/esp/quads_esp.h"

size_t quads_index_bytes(size_t n_out, size_t n_in, size_t bits) {
  return n_out * ((n_in * bits + 7) / 8);
}

/* A tile for each core. */
size_t quads_linear_bytes(size_t rows, size_t n_in) {
  (void)rows;
  return 2 * QUADS_ESP_TILE_BYTES(n_in);
}

size_t quads_head_bytes(size_t n_in) {
  return QUADS_TILE_BYTES(n_in);
}

/* Scores and exponentials of one query for each core, padded to 8 bytes. */
size_t quads_attention_bytes(size_t n_tokens, size_t d_head, size_t d_model) {
  (void)d_head;
  (void)d_model;
  return 2 * ((n_tokens + 1) / 2 * 8 + (n_tokens + 3) / 4 * 8);
}

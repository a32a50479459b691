#include "kernels/esp/quads_esp.h"

/* There may be nothing that could stop the program: then it does not go on. */
#define CHECK(condition) \
  while (!(condition)) { \
  }

/* What quads_pie_dot_4.S does, its alignment included. */
void quads_pie_dot_4(const int8_t *tile, const int8_t *x, size_t n_in, const int32_t *bias,
                     int32_t *sums) {
  CHECK((uintptr_t)tile % QUADS_PIE_ALIGNMENT == 0 && (uintptr_t)x % 8 == 0);
  CHECK(n_in % 8 == 0 && n_in > 0);
  for (size_t c = 0; c < QUADS_TILE_ROWS; c++) {
    int64_t sum = 0;
    for (size_t k = 0; k < n_in; k++) {
      sum += tile[k] * x[k];
    }
    for (size_t k = n_in; k < QUADS_PIE_ROW_BYTES(n_in); k++) {
      CHECK(tile[k] == 0);
    }
    sums[c] = (int32_t)(sum + bias[c]);
    tile += QUADS_PIE_ROW_BYTES(n_in);
  }
}

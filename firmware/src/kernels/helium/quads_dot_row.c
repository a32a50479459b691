#include <string.h>

#include "quads_helium.h"

void quads_dot_row(const quads_linear_t *w, size_t first, size_t n, const int8_t *x,
                   const quads_linear_work_t *work) {
  const size_t padded = quads_padded(w->n_in);
  const size_t whole = n / QUADS_GROUP_ROWS;
  const size_t rest = n % QUADS_GROUP_ROWS;
  quads_dot_packed_t dot = {
      .indices = quads_group(w, first),
      .table = w->bits == 8 ? (const void *)w->centroids : (const void *)work->pairs,
      .x = x,
      .blocks = padded / QUADS_BLOCK,
      .groups = whole,
      .bias = w->bias + first,
      .sums = work->sums,
      .bits = w->bits,
  };

  if (padded != w->n_in) {
    memcpy(work->tile, x, w->n_in);
    memset(work->tile + w->n_in, 0, padded - w->n_in);
    dot.x = work->tile;
  }
  if (whole > 0) {
    quads_dot_packed(&dot);
  }
  if (rest > 0) {
    int32_t bias[QUADS_GROUP_ROWS] = {0};
    memcpy(bias, w->bias + first + whole * QUADS_GROUP_ROWS, rest * sizeof bias[0]);
    dot.indices = quads_group(w, first + whole * QUADS_GROUP_ROWS);
    dot.groups = 1;
    dot.bias = bias;
    dot.sums = work->sums + whole * QUADS_GROUP_ROWS;
    quads_dot_packed(&dot);
  }
}

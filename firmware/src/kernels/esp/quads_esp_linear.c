#include "kernels/esp/quads_esp.h"
#include "quads_math.h"

/* One tile with two rows of input; an odd last row is its own neighbour, and only its first four
 * sums count. */
static inline void decode(const quads_linear_t *w, size_t first_row, int8_t *tile) {
#if QUADS_PIE
  quads_pie_decode(w, first_row, tile);
#else
  quads_decode_rows(w, first_row, QUADS_TILE_ROWS, tile);
#endif
}

static inline void dot(const int8_t *tile, const int8_t *x, size_t neighbour, size_t n_in,
                       const int32_t *bias, int32_t *sums) {
#if QUADS_PIE
  quads_pie_dot_4(tile, x, n_in, bias, sums);
  if (neighbour > 0) {
    quads_pie_dot_4(tile, x + neighbour, n_in, bias, sums + QUADS_TILE_ROWS);
  }
#else
  quads_dot_tile(tile, x, x + neighbour, n_in, bias, sums);
#endif
}

static inline void store_s8(const int32_t *sums, const int32_t *m, int8_t *y) {
  y[0] = quads_sat8(quads_requantize(sums[0], m[0]));
  y[1] = quads_sat8(quads_requantize(sums[1], m[1]));
  y[2] = quads_sat8(quads_requantize(sums[2], m[2]));
  y[3] = quads_sat8(quads_requantize(sums[3], m[3]));
}

static inline void add_s16(const int32_t *sums, const int32_t *m, int16_t *residual) {
  residual[0] = quads_sat16(residual[0] + quads_requantize(sums[0], m[0]));
  residual[1] = quads_sat16(residual[1] + quads_requantize(sums[1], m[1]));
  residual[2] = quads_sat16(residual[2] + quads_requantize(sums[2], m[2]));
  residual[3] = quads_sat16(residual[3] + quads_requantize(sums[3], m[3]));
}

static void channels(const void *context, size_t first, size_t end, void *workspace) {
  const quads_esp_linear_t *job = context;
  const quads_linear_t *w = job->w;
  int8_t *tile = workspace;

  tile += (0u - (uintptr_t)tile) % QUADS_PIE_ALIGNMENT;
  for (size_t n = first; n < end; n += QUADS_TILE_ROWS) {
    const size_t row = job->first_out + n;
    int32_t m[QUADS_TILE_ROWS];
    int32_t sums[2 * QUADS_TILE_ROWS];

    decode(w, row, tile);
    quads_tile_multipliers(w, row, m);
    for (size_t t = 0; t < job->rows; t += 2) {
      const size_t neighbour = t + 1 < job->rows ? job->x_stride : 0;
      const size_t at = t * job->y_stride + n;

      dot(tile, job->x + t * job->x_stride, neighbour, w->n_in, w->bias + row, sums);
      if (job->y != NULL) {
        store_s8(sums, m, job->y + at);
        if (neighbour > 0) {
          store_s8(sums + QUADS_TILE_ROWS, m, job->y + at + job->y_stride);
        }
      } else {
        add_s16(sums, m, job->residual + at);
        if (neighbour > 0) {
          add_s16(sums + QUADS_TILE_ROWS, m, job->residual + at + job->y_stride);
        }
      }
    }
  }
}

void quads_esp_linear(const quads_esp_linear_t *job, size_t n_out, void *workspace) {
  const size_t n_in = job->w->n_in;
  quads_esp_split(channels, job, n_out, QUADS_TILE_ROWS, job->rows * n_out * n_in, workspace,
                  QUADS_ESP_TILE_BYTES(n_in));
}

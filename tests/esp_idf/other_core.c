/* The other core as a thread, and the vector unit's function in C: for PCs. */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>

#include "kernels/esp/quads_esp.h"

static unsigned wakes;

__attribute__((destructor)) static void tell(void) {
  FILE *file = fopen("wakes", "w");
  assert(file != NULL);
  fprintf(file, "%u", wakes);
  fclose(file);
}

typedef struct {
  quads_part_t *part;
  const void *job;
  size_t first, end;
  void *workspace;
} half_t;

static void *run(void *context) {
  const half_t *half = context;
  half->part(half->job, half->first, half->end, half->workspace);
  return NULL;
}

void quads_on_other_core(quads_part_t *part, const void *job, size_t first, size_t end,
                         void *workspace, void *own_workspace) {
  half_t half = {part, job, first, end, workspace};
  pthread_t other;
  wakes++;
  if (pthread_create(&other, NULL, run, &half) != 0) {
    assert(0);
  }
  part(job, 0, first, own_workspace);
  pthread_join(other, NULL);
}

/* What quads_pie_dot_4.S does, its alignment included. */
void quads_pie_dot_4(const int8_t *tile, const int8_t *x, size_t n_in, const int32_t *bias,
                     int32_t *sums) {
  assert((uintptr_t)tile % QUADS_PIE_ALIGNMENT == 0 && (uintptr_t)x % 8 == 0);
  assert(n_in % 8 == 0 && n_in > 0);
  for (size_t c = 0; c < QUADS_TILE_ROWS; c++) {
    int64_t sum = 0;
    for (size_t k = 0; k < n_in; k++) {
      sum += tile[k] * x[k];
    }
    for (size_t k = n_in; k < QUADS_PIE_ROW_BYTES(n_in); k++) {
      assert(tile[k] == 0);
    }
    sums[c] = (int32_t)(sum + bias[c]);
    tile += QUADS_PIE_ROW_BYTES(n_in);
  }
}

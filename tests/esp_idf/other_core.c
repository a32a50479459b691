/* The other core as a thread; the file `wakes` tells how often it was woken. */
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

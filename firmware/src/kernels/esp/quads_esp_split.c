#include "kernels/esp/quads_esp.h"

/* Waking the other core and waiting for it takes some 10 us (estimate), in which this core alone
 * makes about so many products of plain C. */
#define LEAST_PRODUCTS 4096u

void quads_esp_split(quads_part_t *part, const void *job, size_t n, size_t step, size_t products,
                     void *workspace, size_t workspace_bytes) {
#if QUADS_CORES == 2
  const size_t cut = (n / step + 1) / 2 * step;
  if (cut < n && products >= LEAST_PRODUCTS) {
    quads_on_other_core(part, job, cut, n, (uint8_t *)workspace + workspace_bytes, workspace);
    return;
  }
#else
  (void)step;
  (void)products;
  (void)workspace_bytes;
#endif
  part(job, 0, n, workspace);
}

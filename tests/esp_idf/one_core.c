/* No other core: its half is made first. */
#include "kernels/esp/quads_esp.h"

void quads_on_other_core(quads_part_t *part, const void *job, size_t first, size_t end,
                         void *workspace, void *own_workspace) {
  part(job, first, end, workspace);
  part(job, 0, first, own_workspace);
}

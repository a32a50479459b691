/* A task on the core that the main task does not run on takes half of every large layer. */
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "kernels/esp/quads_esp.h"
#include "quads_esp_idf.h"

#define OTHER_CORE 1 /* the main task is pinned to core 0 */
#define STACK_BYTES 3072
#define PRIORITY 1 /* the main task's */

static TaskHandle_t worker;
static SemaphoreHandle_t done;

static struct {
  quads_part_t *part;
  const void *job;
  size_t first, end;
  void *workspace;
} half;

static void work(void *context) {
  (void)context;
  for (;;) {
    (void)ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
    half.part(half.job, half.first, half.end, half.workspace);
    (void)xSemaphoreGive(done);
  }
}

int quads_esp_start_other_core(void) {
  done = xSemaphoreCreateBinary();
  if (done == NULL) {
    return -1;
  }
  return xTaskCreatePinnedToCore(work, "quads", STACK_BYTES, NULL, PRIORITY, &worker, OTHER_CORE) ==
                 pdPASS
             ? 0
             : -1;
}

/* Notification and semaphore order the memory accesses of the cores. */
void quads_on_other_core(quads_part_t *part, const void *job, size_t first, size_t end,
                         void *workspace, void *own_workspace) {
  half.part = part;
  half.job = job;
  half.first = first;
  half.end = end;
  half.workspace = workspace;
  (void)xTaskNotifyGive(worker);
  part(job, 0, first, own_workspace);
  (void)xSemaphoreTake(done, portMAX_DELAY);
}

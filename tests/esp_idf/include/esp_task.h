/* esp_task.h - what the port uses of it; names and signatures of ESP-IDF 5.5. */
#ifndef STUB_ESP_TASK_H
#define STUB_ESP_TASK_H

#include "sdkconfig.h"

#define TASK_EXTRA_STACK_SIZE (512)
#define ESP_TASK_MAIN_STACK (CONFIG_ESP_MAIN_TASK_STACK_SIZE + TASK_EXTRA_STACK_SIZE)

#endif

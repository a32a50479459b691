/* freertos/FreeRTOS.h - what the port uses of it; names and signatures of ESP-IDF 5.5. */
#ifndef STUB_FREERTOS_FREERTOS_H
#define STUB_FREERTOS_FREERTOS_H

#include <stdint.h>

#include "sdkconfig.h"

typedef int BaseType_t;
typedef unsigned int UBaseType_t;
typedef uint32_t TickType_t;
#define pdTRUE ((BaseType_t)1)
#define pdPASS pdTRUE
#define portMAX_DELAY ((TickType_t)0xffffffffUL)
#define pdMS_TO_TICKS(ms) \
  ((TickType_t)(((uint64_t)(ms) * (uint64_t)CONFIG_FREERTOS_HZ) / (uint64_t)1000U))

#endif

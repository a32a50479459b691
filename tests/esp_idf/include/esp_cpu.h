/* esp_cpu.h - what the port uses of it; names and signatures of ESP-IDF 5.5. */
#ifndef STUB_ESP_CPU_H
#define STUB_ESP_CPU_H

#include <stdint.h>

typedef uint32_t esp_cpu_cycle_count_t;
esp_cpu_cycle_count_t esp_cpu_get_cycle_count(void);

#endif

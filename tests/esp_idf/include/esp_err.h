/* esp_err.h - what the port uses of it; names and signatures of ESP-IDF 5.5. */
#ifndef STUB_ESP_ERR_H
#define STUB_ESP_ERR_H

#include <stdint.h>

typedef int esp_err_t;
#define ESP_OK 0
#define ESP_FAIL (-1)

void esp_stub_check(esp_err_t code);
#define ESP_ERROR_CHECK(x) esp_stub_check(x)

#endif

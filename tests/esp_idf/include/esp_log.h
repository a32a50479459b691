/* esp_log.h - what the port uses of it; names and signatures of ESP-IDF 5.5. */
#ifndef STUB_ESP_LOG_H
#define STUB_ESP_LOG_H

__attribute__((format(printf, 2, 3))) void esp_stub_log(const char *tag, const char *format, ...);
#define ESP_LOGE(tag, ...) esp_stub_log(tag, __VA_ARGS__)

#endif

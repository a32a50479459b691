/* esp_attr.h - what the port uses of it; names and signatures of ESP-IDF 5.5. */
#ifndef STUB_ESP_ATTR_H
#define STUB_ESP_ATTR_H

#define IRAM_ATTR __attribute__((section(".iram1.stub")))

#endif

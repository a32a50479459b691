/* Link, time and stack under ESP-IDF. Everything of the firmware runs in the main task. */
#include "driver/uart.h"
#include "esp_cpu.h"
#include "esp_log.h"
#include "esp_task.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "quads_esp_idf.h"
#include "quads_port.h"
#include "sdkconfig.h"
#if CONFIG_QUADS_LINK_USB
#include "driver/usb_serial_jtag.h"
#endif

#define RECEIVE_BYTES 4096
#define SEND_BYTES 1024
#define PIECE_BYTES 256u
#define HOST_GONE_US 10000000 /* so long after its last byte; it asks again after 3 s */
#define SEND_MS 50

static const char *const tag = "quads";
static quads_on_command_t *command;
static int64_t last_received_us = -HOST_GONE_US;

/* The application's main, renamed by the build. */
int quads_application(int argc, char **argv);

_Noreturn void quads_esp_run(quads_on_command_t *on_command) {
  command = on_command;
  quads_port_exit(quads_application(0, NULL));
}

/* --- link --- */

#if CONFIG_QUADS_LINK_USB

static int open_link(void) {
  usb_serial_jtag_driver_config_t config = {.tx_buffer_size = SEND_BYTES,
                                            .rx_buffer_size = RECEIVE_BYTES};
  return usb_serial_jtag_driver_install(&config) == ESP_OK ? 0 : -1;
}

static int receive(uint8_t *bytes, size_t capacity) {
  return usb_serial_jtag_read_bytes(bytes, (uint32_t)capacity, 0);
}

/* Once nobody took a piece in time, nothing waits until somebody does. */
static void transmit(const uint8_t *bytes, size_t n_bytes) {
  static TickType_t patience = pdMS_TO_TICKS(SEND_MS);
  const int sent = usb_serial_jtag_write_bytes(bytes, n_bytes, patience);
  patience = sent == (int)n_bytes ? pdMS_TO_TICKS(SEND_MS) : 0;
}

#else

#define LINK_UART UART_NUM_0

static int open_link(void) {
  const uart_config_t config = {
      .baud_rate = CONFIG_QUADS_LINK_BAUD,
      .data_bits = UART_DATA_8_BITS,
      .parity = UART_PARITY_DISABLE,
      .stop_bits = UART_STOP_BITS_1,
      .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
      .source_clk = UART_SCLK_DEFAULT,
  };
  if (uart_driver_install(LINK_UART, RECEIVE_BYTES, 0, 0, NULL, 0) != ESP_OK) {
    return -1;
  }
  return uart_param_config(LINK_UART, &config) == ESP_OK ? 0 : -1;
}

static int receive(uint8_t *bytes, size_t capacity) {
  return uart_read_bytes(LINK_UART, bytes, (uint32_t)capacity, 0);
}

static void transmit(const uint8_t *bytes, size_t n_bytes) {
  (void)uart_write_bytes(LINK_UART, bytes, n_bytes);
}

#endif

int quads_port_init(int argc, char **argv) {
  (void)argc;
  (void)argv;
#if CONFIG_QUADS_BOTH_CORES
  if (quads_esp_start_other_core() != 0) {
    ESP_LOGE(tag, "no memory for the task on the other core");
    return 1;
  }
#endif
  if (open_link() != 0) {
    ESP_LOGE(tag, "the serial port cannot be opened; see `idf.py menuconfig`, menu QUADS");
    return 1;
  }
  return 0;
}

size_t quads_port_read(uint8_t *bytes, size_t capacity) {
  const int n_bytes = receive(bytes, capacity);
  if (n_bytes <= 0) {
    return 0;
  }
  last_received_us = esp_timer_get_time();
  quads_esp_stop_listening();
  return (size_t)n_bytes;
}

void quads_port_write(const uint8_t *bytes, size_t n_bytes) {
  while (n_bytes > 0) {
    const size_t piece = n_bytes < PIECE_BYTES ? n_bytes : PIECE_BYTES;
    transmit(bytes, piece);
    bytes += piece;
    n_bytes -= piece;
  }
}

void quads_port_idle(void) {
  const int host_gone = esp_timer_get_time() - last_received_us >= HOST_GONE_US;
  if (!host_gone || !quads_esp_listen(command)) {
    vTaskDelay(1);
  }
}

/* --- time: cycles of the core that the main task is pinned to --- */

const quads_port_tick_t quads_port_tick = {1, 1, QUADS_TICK_CYCLES};

uint32_t quads_port_ticks(void) {
  return esp_cpu_get_cycle_count();
}

/* --- stack: ESP-IDF counts it in bytes --- */

uint32_t quads_port_stack_bytes(void) {
  return ESP_TASK_MAIN_STACK;
}

uint32_t quads_port_stack_used(void) {
  return ESP_TASK_MAIN_STACK - (uint32_t)uxTaskGetStackHighWaterMark(NULL);
}

/* --- no storage of test clips --- */

uint32_t quads_port_storage_bytes(void) {
  return 0;
}

int quads_port_storage_read(uint32_t offset, uint8_t *bytes, size_t n_bytes) {
  (void)offset;
  (void)bytes;
  (void)n_bytes;
  return -1;
}

_Noreturn void quads_port_exit(int code) {
  ESP_LOGE(tag, "stopped with code %d", code);
  for (;;) {
    vTaskDelay(portMAX_DELAY);
  }
}

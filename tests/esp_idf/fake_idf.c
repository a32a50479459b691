/* The parts of ESP-IDF that the port uses, on a PC: a program that is given
 *
 *     SLOT_BYTES MODEL_0 PCM LOSE
 *
 * The serial port is a TCP port ("port N" on stdout), flash obeys the rules of NOR flash, the
 * microphone plays the int16 file PCM as fast as it is waited for and loses buffer number LOSE (-1:
 * none), and pins are told on stdout. Tasks are threads. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "driver/gpio.h"
#include "driver/i2s_std.h"
#include "driver/uart.h"
#include "driver/usb_serial_jtag.h"
#include "esp_cpu.h"
#include "esp_err.h"
#include "esp_log.h"
#include "esp_partition.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "freertos/task.h"

#define SECTOR_BYTES 4096u
#define BUFFER_SAMPLES 256u

void app_main(void);

static void fail(const char *what) {
  fprintf(stderr, "fake ESP-IDF: %s\n", what);
  exit(99);
}

static void require(int condition, const char *what) {
  if (!condition) {
    fail(what);
  }
}

/* --- errors, log, time --- */

void esp_stub_check(esp_err_t code) {
  require(code == ESP_OK, "ESP_ERROR_CHECK");
}

void esp_stub_log(const char *tag, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s: ", tag);
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
}

int64_t esp_timer_get_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

esp_cpu_cycle_count_t esp_cpu_get_cycle_count(void) {
  return (esp_cpu_cycle_count_t)(esp_timer_get_time() * 240);
}

/* --- tasks: threads --- */

struct tskTaskControlBlock {
  pthread_t thread;
  sem_t notified;
  TaskFunction_t code;
  void *parameters;
};
struct QueueDefinition {
  sem_t taken;
};

static _Thread_local TaskHandle_t self;

static void *run(void *context) {
  self = context;
  self->code(self->parameters);
  fail("a task returned");
  return NULL;
}

BaseType_t xTaskCreatePinnedToCore(TaskFunction_t pxTaskCode, const char *pcName,
                                   uint32_t ulStackDepth, void *pvParameters,
                                   UBaseType_t uxPriority, TaskHandle_t *pxCreatedTask,
                                   BaseType_t xCoreID) {
  TaskHandle_t task = calloc(1, sizeof *task);
  require(task != NULL && pcName != NULL && ulStackDepth >= 2048 && uxPriority > 0 && xCoreID == 1,
          "xTaskCreatePinnedToCore");
  task->code = pxTaskCode;
  task->parameters = pvParameters;
  sem_init(&task->notified, 0, 0);
  *pxCreatedTask = task;
  return pthread_create(&task->thread, NULL, run, task) == 0 ? pdPASS : 0;
}

uint32_t ulTaskNotifyTake(BaseType_t xClearCountOnExit, TickType_t xTicksToWait) {
  require(self != NULL && xClearCountOnExit == pdTRUE && xTicksToWait == portMAX_DELAY,
          "ulTaskNotifyTake");
  while (sem_wait(&self->notified) != 0) {
  }
  return 1;
}

BaseType_t xTaskNotifyGive(TaskHandle_t xTaskToNotify) {
  sem_post(&xTaskToNotify->notified);
  return pdPASS;
}

SemaphoreHandle_t xSemaphoreCreateBinary(void) {
  SemaphoreHandle_t made = calloc(1, sizeof *made);
  require(made != NULL, "memory");
  sem_init(&made->taken, 0, 0);
  return made;
}

BaseType_t xSemaphoreTake(SemaphoreHandle_t xSemaphore, TickType_t xBlockTime) {
  require(xBlockTime == portMAX_DELAY, "xSemaphoreTake");
  while (sem_wait(&xSemaphore->taken) != 0) {
  }
  return pdTRUE;
}

BaseType_t xSemaphoreGive(SemaphoreHandle_t xSemaphore) {
  sem_post(&xSemaphore->taken);
  return pdTRUE;
}

void vTaskDelay(TickType_t xTicksToDelay) {
  const struct timespec tick = {0, 1000000L * (xTicksToDelay < 200 ? xTicksToDelay : 200)};
  nanosleep(&tick, NULL);
}

UBaseType_t uxTaskGetStackHighWaterMark(TaskHandle_t xTask) {
  require(xTask == NULL, "uxTaskGetStackHighWaterMark");
  return 1000;
}

/* --- serial port: a TCP port --- */

static int listener = -1, client = -1;

static void accept_client(void) {
  const int one = 1;
  client = accept(listener, NULL, NULL);
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static esp_err_t open_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n_bytes = sizeof address;
  listener = socket(AF_INET, SOCK_STREAM, 0);
  require(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
              listen(listener, 1) == 0 &&
              getsockname(listener, (struct sockaddr *)&address, &n_bytes) == 0,
          "socket");
  printf("port %u\n", (unsigned)ntohs(address.sin_port));
  fflush(stdout);
  accept_client(); /* somebody watches from the start */
  return ESP_OK;
}

static int readable(int descriptor) {
  struct pollfd entry = {.fd = descriptor, .events = POLLIN};
  return poll(&entry, 1, 0) > 0;
}

static int receive(void *buf, uint32_t length) {
  if (client < 0 && readable(listener)) {
    accept_client();
  }
  if (client < 0 || !readable(client)) {
    return 0;
  }
  const ssize_t n_bytes = read(client, buf, length);
  if (n_bytes <= 0) {
    close(client);
    client = -1;
    return 0;
  }
  return (int)n_bytes;
}

static int transmit(const void *src, size_t size) {
  for (size_t sent = 0; client >= 0 && sent < size;) {
    const ssize_t n_bytes = send(client, (const char *)src + sent, size - sent, MSG_NOSIGNAL);
    if (n_bytes < 0 && errno != EINTR) {
      return (int)size;
    }
    sent += n_bytes > 0 ? (size_t)n_bytes : 0;
  }
  return (int)size;
}

#if CONFIG_QUADS_LINK_USB

esp_err_t usb_serial_jtag_driver_install(usb_serial_jtag_driver_config_t *usb_serial_jtag_config) {
  require(usb_serial_jtag_config->tx_buffer_size >= 256 &&
              usb_serial_jtag_config->rx_buffer_size >= 256,
          "usb_serial_jtag_driver_install");
  return open_port();
}

int usb_serial_jtag_read_bytes(void *buf, uint32_t length, TickType_t ticks_to_wait) {
  require(ticks_to_wait == 0, "usb_serial_jtag_read_bytes");
  return receive(buf, length);
}

/* Nothing of what does not fit its buffer is sent, and nothing waits for longer than it may. */
int usb_serial_jtag_write_bytes(const void *src, size_t size, TickType_t ticks_to_wait) {
  require(size <= 1024 && ticks_to_wait <= 1000, "usb_serial_jtag_write_bytes");
  return client < 0 ? 0 : transmit(src, size);
}

#else

esp_err_t uart_driver_install(uart_port_t uart_num, int rx_buffer_size, int tx_buffer_size,
                              int queue_size, QueueHandle_t *uart_queue, int intr_alloc_flags) {
  require(uart_num == UART_NUM_0 && rx_buffer_size > 128 && tx_buffer_size == 0 &&
              queue_size == 0 && uart_queue == NULL && intr_alloc_flags == 0,
          "uart_driver_install");
  return open_port();
}

esp_err_t uart_param_config(uart_port_t uart_num, const uart_config_t *uart_config) {
  require(uart_num == UART_NUM_0 && uart_config->baud_rate == CONFIG_QUADS_LINK_BAUD &&
              uart_config->data_bits == UART_DATA_8_BITS,
          "uart_param_config");
  return ESP_OK;
}

int uart_read_bytes(uart_port_t uart_num, void *buf, uint32_t length, TickType_t ticks_to_wait) {
  require(uart_num == UART_NUM_0 && ticks_to_wait == 0, "uart_read_bytes");
  return receive(buf, length);
}

int uart_write_bytes(uart_port_t uart_num, const void *src, size_t size) {
  require(uart_num == UART_NUM_0, "uart_write_bytes");
  return transmit(src, size);
}

#endif

/* --- flash: erased to ones by sectors, written from one to zero --- */

static esp_partition_t partitions[2];
static uint8_t *flash[2];

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type,
                                                esp_partition_subtype_t subtype,
                                                const char *label) {
  require((int)type == 0x40 && subtype == ESP_PARTITION_SUBTYPE_ANY, "esp_partition_find_first");
  for (int i = 0; i < 2; i++) {
    if (strcmp(label, partitions[i].label) == 0) {
      return &partitions[i];
    }
  }
  return NULL;
}

esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size) {
  if (offset % SECTOR_BYTES != 0 || size % SECTOR_BYTES != 0 || offset > partition->size ||
      size > partition->size - offset) {
    return ESP_FAIL;
  }
  memset(flash[partition - partitions] + offset, 0xFF, size);
  return ESP_OK;
}

esp_err_t esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src,
                              size_t size) {
  uint8_t *to = flash[partition - partitions] + dst_offset;
  if (dst_offset > partition->size || size > partition->size - dst_offset) {
    return ESP_FAIL;
  }
  for (size_t i = 0; i < size; i++) {
    to[i] &= ((const uint8_t *)src)[i];
  }
  return ESP_OK;
}

esp_err_t esp_partition_mmap(const esp_partition_t *partition, size_t offset, size_t size,
                             esp_partition_mmap_memory_t memory, const void **out_ptr,
                             esp_partition_mmap_handle_t *out_handle) {
  require(offset == 0 && size == partition->size && memory == ESP_PARTITION_MMAP_DATA,
          "esp_partition_mmap");
  *out_ptr = flash[partition - partitions];
  *out_handle = 1;
  return ESP_OK;
}

static void fill_flash(size_t slot_bytes, const char *path) {
  FILE *file = fopen(path, "rb");
  for (int i = 0; i < 2; i++) {
    flash[i] = aligned_alloc(65536, slot_bytes);
    require(flash[i] != NULL, "memory");
    memset(flash[i], 0xFF, slot_bytes);
    partitions[i].size = (uint32_t)slot_bytes;
    snprintf(partitions[i].label, sizeof partitions[i].label, "model_%d", i);
  }
  require(file != NULL && fread(flash[0], 1, slot_bytes, file) > 0, path);
  fclose(file);
}

/* --- microphone --- */

struct i2s_channel_obj_t {
  i2s_event_callbacks_t callbacks;
  int started;
};

static struct i2s_channel_obj_t microphone;
static FILE *pcm;
static long lose, buffers;

esp_err_t i2s_new_channel(const i2s_chan_config_t *chan_cfg, i2s_chan_handle_t *ret_tx_handle,
                          i2s_chan_handle_t *ret_rx_handle) {
  require(chan_cfg->role == I2S_ROLE_MASTER && ret_tx_handle == NULL &&
              chan_cfg->dma_frame_num == BUFFER_SAMPLES &&
              (chan_cfg->dma_desc_num - 2) * BUFFER_SAMPLES >= 2048,
          "i2s_new_channel");
  *ret_rx_handle = &microphone;
  return ESP_OK;
}

esp_err_t i2s_del_channel(i2s_chan_handle_t handle) {
  (void)handle;
  return ESP_OK;
}

esp_err_t i2s_channel_init_std_mode(i2s_chan_handle_t handle, const i2s_std_config_t *std_cfg) {
  require(handle == &microphone && std_cfg->clk_cfg.sample_rate_hz == 16000 &&
              std_cfg->slot_cfg.data_bit_width == I2S_DATA_BIT_WIDTH_32BIT &&
              std_cfg->slot_cfg.slot_mask == I2S_STD_SLOT_LEFT &&
              std_cfg->gpio_cfg.din == (gpio_num_t)CONFIG_QUADS_MICROPHONE_DATA,
          "i2s_channel_init_std_mode");
  return ESP_OK;
}

esp_err_t i2s_channel_register_event_callback(i2s_chan_handle_t handle,
                                              const i2s_event_callbacks_t *callbacks,
                                              void *user_data) {
  require(!handle->started && user_data == NULL, "i2s_channel_register_event_callback");
  handle->callbacks = *callbacks;
  return ESP_OK;
}

esp_err_t i2s_channel_enable(i2s_chan_handle_t handle) {
  handle->started = 1;
  return ESP_OK;
}

static size_t next_buffer(int16_t *samples) {
  const size_t n = fread(samples, sizeof samples[0], BUFFER_SAMPLES, pcm);
  buffers += n == BUFFER_SAMPLES;
  return n;
}

esp_err_t i2s_channel_read(i2s_chan_handle_t handle, void *dest, size_t size, size_t *bytes_read,
                           uint32_t timeout_ms) {
  int16_t samples[BUFFER_SAMPLES];
  require(handle->started && size == BUFFER_SAMPLES * sizeof(int32_t), "i2s_channel_read");
  *bytes_read = 0;
  if (timeout_ms == 0) {
    return ESP_FAIL; /* nothing is there that was not waited for */
  }
  if (buffers == lose) {
    i2s_event_data_t event = {.size = size};
    (void)next_buffer(samples);
    (void)handle->callbacks.on_recv_q_ovf(handle, &event, NULL);
  }
  if (next_buffer(samples) != BUFFER_SAMPLES) {
    vTaskDelay(timeout_ms);
    return ESP_FAIL;
  }
  for (size_t i = 0; i < BUFFER_SAMPLES; i++) {
    ((int32_t *)dest)[i] = samples[i] * (1 << (16 - CONFIG_QUADS_MICROPHONE_GAIN_BITS));
  }
  *bytes_read = size;
  return ESP_OK;
}

/* --- pins --- */

esp_err_t gpio_reset_pin(gpio_num_t gpio_num) {
  return (int)gpio_num >= 0 ? ESP_OK : ESP_FAIL;
}

esp_err_t gpio_set_direction(gpio_num_t gpio_num, gpio_mode_t mode) {
  return (int)gpio_num >= 0 && mode == GPIO_MODE_OUTPUT ? ESP_OK : ESP_FAIL;
}

esp_err_t gpio_set_level(gpio_num_t gpio_num, uint32_t level) {
  printf("gpio %d %u\n", (int)gpio_num, (unsigned)level);
  fflush(stdout);
  return ESP_OK;
}

int main(int argc, char **argv) {
  require(argc == 5, "usage: SLOT_BYTES MODEL_0 PCM LOSE");
  fill_flash(strtoul(argv[1], NULL, 0), argv[2]);
  pcm = fopen(argv[3], "rb");
  require(pcm != NULL, argv[3]);
  lose = strtol(argv[4], NULL, 0);
  app_main();
  fail("app_main returned");
}

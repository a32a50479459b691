/* A PC as a Zephyr board: the UART is a TCP port of 127.0.0.1 whose number is printed, or standard
 * output when the environment's PCM names a recording (int16, 16 kHz), which the microphone plays.
 * Every toggle of a LED is told on standard error. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zephyr/audio/dmic.h>
#include <zephyr/device.h>
#include <zephyr/drivers/gpio.h>
#include <zephyr/drivers/uart.h>

#define BLOCKS_BEFORE_END 200 /* of silence after the recording */

const struct device device_chosen_zephyr_console, device_alias_led0, device_alias_led1,
    device_label_dmic_dev;

static int client = -1;
static uart_irq_callback_user_data_t callback;
static struct pcm_stream_cfg stream;
static FILE *recording;

bool device_is_ready(const struct device *dev) {
  return dev != NULL;
}

/* --- UART --------------------------------------------------------------------------------- */

static void accept_client(void) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t size = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
    exit(1);
  }
  printf("port %d\n", ntohs(address.sin_port));
  fflush(stdout);
  client = accept(listener, NULL, NULL);
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void *interrupts(void *unused) {
  (void)unused;
  for (;;) {
    struct pollfd entry = {.fd = client, .events = POLLIN};
    (void)poll(&entry, 1, -1);
    callback(&device_chosen_zephyr_console, NULL);
  }
  return NULL;
}

int uart_irq_callback_user_data_set(const struct device *dev, uart_irq_callback_user_data_t cb,
                                    void *user_data) {
  callback = cb;
  return dev == &device_chosen_zephyr_console && user_data == NULL ? 0 : -1;
}

void uart_irq_rx_enable(const struct device *dev) {
  pthread_t thread;
  (void)dev;
  if (getenv("PCM") == NULL) {
    accept_client();
    pthread_create(&thread, NULL, interrupts, NULL);
  }
}

int uart_irq_update(const struct device *dev) {
  return dev != NULL;
}

int uart_irq_rx_ready(const struct device *dev) {
  struct pollfd entry = {.fd = client, .events = POLLIN};
  (void)dev;
  return poll(&entry, 1, 0) > 0;
}

int uart_fifo_read(const struct device *dev, uint8_t *rx_data, const int size) {
  (void)dev;
  const ssize_t n_bytes = read(client, rx_data, (size_t)size);
  if (n_bytes <= 0) {
    exit(0); /* the other end hung up */
  }
  return (int)n_bytes;
}

void uart_poll_out(const struct device *dev, unsigned char out_char) {
  (void)dev;
  if (write(client >= 0 ? client : STDOUT_FILENO, &out_char, 1) != 1) {
    exit(0);
  }
}

/* --- LEDs --------------------------------------------------------------------------------- */

bool gpio_is_ready_dt(const struct gpio_dt_spec *spec) {
  return spec->port != NULL;
}

int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, gpio_flags_t extra_flags) {
  return spec != NULL && extra_flags == GPIO_OUTPUT_INACTIVE ? 0 : -1;
}

int gpio_pin_toggle_dt(const struct gpio_dt_spec *spec) {
  return fprintf(stderr, "led %d toggled\n", spec->pin) > 0 ? 0 : -1;
}

/* --- microphone --------------------------------------------------------------------------- */

uint32_t dmic_build_channel_map(uint8_t channel, uint8_t pdm, enum pdm_lr lr) {
  return (uint32_t)(pdm << 1 | lr) << (channel * 4);
}

int dmic_configure(const struct device *dev, struct dmic_cfg *cfg) {
  stream = *cfg->streams;
  return dev == &device_label_dmic_dev && cfg->channel.req_num_chan == 1 &&
                 stream.pcm_rate == 16000 && stream.pcm_width == 16 &&
                 stream.block_size == stream.mem_slab->block_size
             ? 0
             : -1;
}

int dmic_trigger(const struct device *dev, enum dmic_trigger cmd) {
  (void)dev;
  recording = fopen(getenv("PCM"), "rb");
  return cmd == DMIC_TRIGGER_START && recording != NULL ? 0 : -1;
}

/* Four times as fast as a microphone. */
int dmic_read(const struct device *dev, uint8_t number, void **buffer, size_t *size,
              int32_t timeout) {
  static int blocks_left = BLOCKS_BEFORE_END;
  (void)dev;
  usleep(stream.block_size * 1000 / 32 / 4);
  *buffer = calloc(1, stream.block_size);
  *size = stream.block_size;
  if (fread(*buffer, 1, *size, recording) == 0 && blocks_left-- == 0) {
    exit(0);
  }
  return number == 0 && timeout == SYS_FOREVER_MS ? 0 : -1;
}

void k_mem_slab_free(struct k_mem_slab *slab, void *mem) {
  (void)slab;
  free(mem);
}

/* --- kernel ------------------------------------------------------------------------------- */

void k_sem_give(struct k_sem *sem) {
  sem->count = 1;
}

int k_sem_take(struct k_sem *sem, k_timeout_t timeout) {
  (void)timeout;
  if (sem->count == 0) {
    usleep(100);
  }
  sem->count = 0;
  return 0;
}

uint32_t k_cycle_get_32(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)((uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u);
}

int32_t k_msleep(int32_t ms) {
  usleep((useconds_t)ms * 1000u);
  return 0;
}

static k_thread_entry_t thread_entry;

static void *run_thread(void *unused) {
  thread_entry(NULL, NULL, NULL);
  return unused;
}

k_tid_t k_thread_create(struct k_thread *new_thread, k_thread_stack_t *stack, size_t stack_size,
                        k_thread_entry_t entry, void *p1, void *p2, void *p3, int prio,
                        uint32_t options, k_timeout_t delay) {
  pthread_t thread;
  (void)stack, (void)stack_size, (void)p1, (void)p2, (void)p3, (void)prio, (void)options;
  (void)delay;
  thread_entry = entry;
  pthread_create(&thread, NULL, run_thread, NULL);
  return new_thread;
}

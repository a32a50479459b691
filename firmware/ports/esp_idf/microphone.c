/* An I2S microphone with 24 bits in slots of 32, left channel: INMP441 and its kin.
 *
 * The driver's buffers are taken whole, so that lost ones always lie between two reads. */
#include <string.h>

#include "driver/i2s_std.h"
#include "esp_attr.h"
#include "esp_timer.h"
#include "quads_port.h"
#include "sdkconfig.h"

#define SAMPLE_RATE_HZ 16000u
#define BUFFER_SAMPLES 256u
/* One is being filled and one may be half read; the others keep what a port has to keep. */
#define BUFFERS (QUADS_PORT_AUDIO_SAMPLES / BUFFER_SAMPLES + 2u)
#define WAIT_MS 100u
#define STALL_US 20000 /* beyond the length of a buffer */
#define BUFFER_US (1000000 * (int64_t)BUFFER_SAMPLES / SAMPLE_RATE_HZ)

static i2s_chan_handle_t channel;
static int32_t raw[BUFFER_SAMPLES];
static int16_t waiting[BUFFER_SAMPLES];
static size_t n_waiting, n_taken; /* of `waiting` */
static volatile uint32_t lost_by_driver;
static uint32_t lost_told; /* of lost_by_driver */
static uint32_t lost_before_waiting;
static quads_port_audio_t state;
static int64_t start_us;

static bool IRAM_ATTR on_overflow(i2s_chan_handle_t handle, i2s_event_data_t *event,
                                  void *context) {
  (void)handle;
  (void)event;
  (void)context;
  lost_by_driver += BUFFER_SAMPLES;
  return false;
}

static int open_channel(void) {
  i2s_chan_config_t buffers = I2S_CHANNEL_DEFAULT_CONFIG(I2S_NUM_AUTO, I2S_ROLE_MASTER);
  i2s_std_config_t config = {
      .clk_cfg = I2S_STD_CLK_DEFAULT_CONFIG(SAMPLE_RATE_HZ),
      .slot_cfg = I2S_STD_PHILIPS_SLOT_DEFAULT_CONFIG(I2S_DATA_BIT_WIDTH_32BIT, I2S_SLOT_MODE_MONO),
      .gpio_cfg =
          {
              .mclk = I2S_GPIO_UNUSED,
              .bclk = (gpio_num_t)CONFIG_QUADS_MICROPHONE_BCLK,
              .ws = (gpio_num_t)CONFIG_QUADS_MICROPHONE_WS,
              .dout = I2S_GPIO_UNUSED,
              .din = (gpio_num_t)CONFIG_QUADS_MICROPHONE_DATA,
          },
  };
  const i2s_event_callbacks_t callbacks = {.on_recv_q_ovf = on_overflow};
  buffers.dma_desc_num = BUFFERS;
  buffers.dma_frame_num = BUFFER_SAMPLES;
  config.slot_cfg.slot_mask = I2S_STD_SLOT_LEFT;
  if (i2s_new_channel(&buffers, NULL, &channel) != ESP_OK) {
    channel = NULL;
    return -1;
  }
  if (i2s_channel_init_std_mode(channel, &config) != ESP_OK ||
      i2s_channel_register_event_callback(channel, &callbacks, NULL) != ESP_OK ||
      i2s_channel_enable(channel) != ESP_OK) {
    (void)i2s_del_channel(channel);
    channel = NULL;
    return -1;
  }
  return 0;
}

/* Upper 16 of the 32 bits, made louder by 2^gain and limited. */
static int16_t sample(int32_t bits) {
  const int32_t value = bits >> (16 - CONFIG_QUADS_MICROPHONE_GAIN_BITS);
  return (int16_t)(value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value);
}

/* Take the next buffer of the driver. The loss is read after it: right behind a read the queue has
 * room, so what was lost was lost before. Returns 0 when there is none in time. */
static int next_buffer(uint32_t timeout_ms) {
  size_t n_bytes = 0;
  if (i2s_channel_read(channel, raw, sizeof raw, &n_bytes, timeout_ms) != ESP_OK ||
      n_bytes != sizeof raw) {
    return 0;
  }
  const uint32_t lost = lost_by_driver;
  lost_before_waiting += lost - lost_told;
  state.made += BUFFER_SAMPLES + lost - lost_told;
  lost_told = lost;
  for (size_t i = 0; i < BUFFER_SAMPLES; i++) {
    waiting[i] = sample(raw[i]);
  }
  n_waiting = BUFFER_SAMPLES;
  n_taken = 0;
  return 1;
}

int quads_port_audio_start(const quads_port_recording_t *recording) {
  if (recording != NULL || (channel == NULL && open_channel() != 0)) {
    return -1;
  }
  while (next_buffer(0)) { /* heard before the start */
  }
  n_waiting = n_taken = 0;
  lost_before_waiting = 0;
  memset(&state, 0, sizeof state);
  start_us = esp_timer_get_time();
  return 0;
}

size_t quads_port_audio_read(int16_t *pcm, size_t capacity, uint32_t *lost) {
  *lost = 0;
  if (n_taken == n_waiting && !next_buffer(0)) {
    return 0;
  }
  const size_t left = n_waiting - n_taken;
  const size_t n = left < capacity ? left : capacity;
  *lost = lost_before_waiting;
  lost_before_waiting = 0;
  memcpy(pcm, waiting + n_taken, n * sizeof pcm[0]);
  n_taken += n;
  return n;
}

int quads_port_audio_wait(size_t n_samples) {
  const int64_t before_us = esp_timer_get_time();
  (void)n_samples; /* fewer than a buffer */
  if (n_taken == n_waiting) {
    (void)next_buffer(WAIT_MS);
  }
  state.stalls += esp_timer_get_time() - before_us > BUFFER_US + STALL_US;
  return 1;
}

void quads_port_audio_state(quads_port_audio_t *now) {
  state.due = (uint32_t)((esp_timer_get_time() - start_us) * SAMPLE_RATE_HZ / 1000000);
  *now = state;
}

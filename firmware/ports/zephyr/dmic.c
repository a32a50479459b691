/* A microphone with a Zephyr driver of the DMIC kind: the node labelled dmic_dev. A thread of its
 * own reads it, so that no block is lost while the main thread infers. */
#include <zephyr/audio/dmic.h>
#include <zephyr/device.h>
#include <zephyr/kernel.h>

#include "chips/microphone.h"

#if !DT_NODE_EXISTS(DT_NODELABEL(dmic_dev))
#error "this board has no microphone called dmic_dev: README.md says how to name one in an overlay"
#endif

#define SAMPLE_RATE_HZ 16000
#define BLOCK_SAMPLES 160 /* 10 ms */
#define BLOCK_BYTES (BLOCK_SAMPLES * 2)
#define BLOCKS 8
#define STACK_BYTES 1024
#define ABOVE_MAIN (-1)

K_MEM_SLAB_DEFINE_STATIC(blocks, BLOCK_BYTES, BLOCKS, 4);
K_THREAD_STACK_DEFINE(stack, STACK_BYTES);
static struct k_thread thread;
static const struct device *const dmic = DEVICE_DT_GET(DT_NODELABEL(dmic_dev));

static void hear(void *one, void *two, void *three) {
  (void)one;
  (void)two;
  (void)three;
  for (;;) {
    void *block;
    size_t n_bytes;
    if (dmic_read(dmic, 0, &block, &n_bytes, SYS_FOREVER_MS) == 0) {
      microphone_put(block, n_bytes / 2);
      k_mem_slab_free(&blocks, block);
    } else {
      (void)k_msleep(1);
    }
  }
}

int microphone_start(void) {
  struct pcm_stream_cfg stream = {
      .pcm_rate = SAMPLE_RATE_HZ,
      .pcm_width = 16,
      .block_size = BLOCK_BYTES,
      .mem_slab = &blocks,
  };
  struct dmic_cfg config = {
      /* What PDM microphones take. */
      .io = {.min_pdm_clk_freq = 1000000,
             .max_pdm_clk_freq = 3500000,
             .min_pdm_clk_dc = 40,
             .max_pdm_clk_dc = 60},
      .streams = &stream,
      .channel = {.req_num_streams = 1, .req_num_chan = 1},
  };
  config.channel.req_chan_map_lo = dmic_build_channel_map(0, 0, PDM_CHAN_LEFT);
  if (!device_is_ready(dmic) || dmic_configure(dmic, &config) != 0 ||
      dmic_trigger(dmic, DMIC_TRIGGER_START) != 0) {
    return -1;
  }
  (void)k_thread_create(&thread, stack, K_THREAD_STACK_SIZEOF(stack), hear, NULL, NULL, NULL,
                        ABOVE_MAIN, 0, K_NO_WAIT);
  return 0;
}

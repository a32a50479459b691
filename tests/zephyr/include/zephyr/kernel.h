/* The part of Zephyr's API that the port uses; prototypes as in include/zephyr/kernel.h,
 * devicetree.h and device.h. host.c defines it on a PC. Devicetree nodes are names here, and exist
 * when NODE_EXISTS is defined as 1. */
#ifndef ZEPHYR_KERNEL_H
#define ZEPHYR_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_SYS_CLOCK_HW_CYCLES_PER_SEC 1000000

#define STUB_CAT_(a, b) a##b
#define STUB_CAT(a, b) STUB_CAT_(a, b)
#define DT_CHOSEN(property) chosen_##property
#define DT_ALIAS(alias) alias_##alias
#define DT_NODELABEL(label) label_##label
#define DT_NODE_EXISTS(node) STUB_CAT(node, _EXISTS)

struct device {
  const char *name;
};
#define DEVICE_DT_GET(node) (&STUB_CAT(device_, node))
bool device_is_ready(const struct device *dev);

typedef struct {
  int64_t ticks;
} k_timeout_t;
#define K_MSEC(ms) ((k_timeout_t){(ms)})
#define K_NO_WAIT ((k_timeout_t){0})
#define SYS_FOREVER_MS (-1)

struct k_sem {
  volatile int count;
};
#define K_SEM_DEFINE(name, initial_count, count_limit) struct k_sem name = {initial_count}
void k_sem_give(struct k_sem *sem);
int k_sem_take(struct k_sem *sem, k_timeout_t timeout);

uint32_t k_cycle_get_32(void);
int32_t k_msleep(int32_t ms);

struct k_mem_slab {
  size_t block_size;
};
#define K_MEM_SLAB_DEFINE_STATIC(name, slab_block_size, slab_num_blocks, slab_align) \
  static struct k_mem_slab name = {slab_block_size}
void k_mem_slab_free(struct k_mem_slab *slab, void *mem);

typedef struct {
  char byte;
} k_thread_stack_t;
struct k_thread {
  int unused;
};
typedef struct k_thread *k_tid_t;
typedef void (*k_thread_entry_t)(void *p1, void *p2, void *p3);
#define K_THREAD_STACK_DEFINE(sym, size) k_thread_stack_t sym[size]
#define K_THREAD_STACK_SIZEOF(sym) sizeof(sym)
k_tid_t k_thread_create(struct k_thread *new_thread, k_thread_stack_t *stack, size_t stack_size,
                        k_thread_entry_t entry, void *p1, void *p2, void *p3, int prio,
                        uint32_t options, k_timeout_t delay);

#endif

/* Slots for model images: the partitions model_0 and model_1, mapped into memory. */
#include "esp_partition.h"
#include "quads_port.h"

#define TYPE ((esp_partition_type_t)0x40) /* the application's own */
#define SLOTS 2u
#define ERASE_BYTES 65536u /* what flash erases fastest, and a multiple of its sectors */

typedef struct {
  const esp_partition_t *partition;
  const void *bytes; /* NULL: not mapped yet */
  size_t erased;     /* from its start on */
} slot_t;

static slot_t slots[SLOTS];

static slot_t *find(uint32_t slot) {
  static const char *const names[SLOTS] = {"model_0", "model_1"};
  if (slot >= SLOTS) {
    return NULL;
  }
  if (slots[slot].partition == NULL) {
    slots[slot].partition = esp_partition_find_first(TYPE, ESP_PARTITION_SUBTYPE_ANY, names[slot]);
  }
  return slots[slot].partition != NULL ? &slots[slot] : NULL;
}

uint32_t quads_port_model_slots(void) {
  return find(0) == NULL ? 0 : find(1) == NULL ? 1 : SLOTS;
}

/* Mapped once; the flash driver keeps the cache of mapped memory up to date. */
const void *quads_port_model_map(uint32_t slot, size_t *n_bytes) {
  slot_t *found = find(slot);
  esp_partition_mmap_handle_t handle;
  if (found == NULL) {
    return NULL;
  }
  *n_bytes = found->partition->size;
  if (found->bytes == NULL &&
      esp_partition_mmap(found->partition, 0, found->partition->size, ESP_PARTITION_MMAP_DATA,
                         &found->bytes, &handle) != ESP_OK) {
    found->bytes = NULL;
  }
  return found->bytes;
}

static int erase_next(slot_t *slot) {
  const size_t left = slot->partition->size - slot->erased;
  const size_t n_bytes = left < ERASE_BYTES ? left : ERASE_BYTES;
  if (n_bytes == 0 || esp_partition_erase_range(slot->partition, slot->erased, n_bytes) != ESP_OK) {
    return -1;
  }
  slot->erased += n_bytes;
  return 0;
}

/* The rest is erased as it is written, so that the host never waits for more than one block. */
int quads_port_model_erase(uint32_t slot, size_t n_bytes) {
  slot_t *found = find(slot);
  if (found == NULL || n_bytes > found->partition->size) {
    return -1;
  }
  found->erased = 0;
  return n_bytes > 0 ? erase_next(found) : 0;
}

int quads_port_model_write(uint32_t slot, size_t offset, const uint8_t *bytes, size_t n_bytes) {
  slot_t *found = find(slot);
  if (found == NULL || offset > found->partition->size ||
      n_bytes > found->partition->size - offset) {
    return -1;
  }
  while (found->erased < offset + n_bytes) {
    if (erase_next(found) != 0) {
      return -1;
    }
  }
  return esp_partition_write(found->partition, offset, bytes, n_bytes) == ESP_OK ? 0 : -1;
}

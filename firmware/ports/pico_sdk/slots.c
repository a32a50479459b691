/* Slots for model images at the end of the flash, which is mapped into memory. Where they are, in
 * bytes from its start, and how large, is set with the model: quads_format.h. */
#include "quads.h"
#include "quads_port.h"

#if QUADS_MODEL_UPDATE

#include <string.h>

#include "hardware/flash.h"
#include "hardware/sync.h"

static size_t erased[QUADS_FLASH_SLOTS]; /* bytes, from the slot's start on */

uint32_t quads_port_model_slots(void) {
  return QUADS_FLASH_SLOTS;
}

static uint32_t slot_start(uint32_t slot) {
  return QUADS_FLASH_SLOTS_AT + slot * QUADS_FLASH_SLOT_BYTES;
}

const void *quads_port_model_map(uint32_t slot, size_t *n_bytes) {
  *n_bytes = QUADS_FLASH_SLOT_BYTES;
  return (const void *)(uintptr_t)(XIP_BASE + slot_start(slot));
}

/* While flash is erased or written nothing can be read from it: no interrupt may come. */
static void erase_sector(uint32_t offset) {
  const uint32_t interrupts = save_and_disable_interrupts();
  flash_range_erase(offset, FLASH_SECTOR_SIZE);
  restore_interrupts(interrupts);
}

static void write_page(uint32_t offset, const uint8_t *page) {
  const uint32_t interrupts = save_and_disable_interrupts();
  flash_range_program(offset, page, FLASH_PAGE_SIZE);
  restore_interrupts(interrupts);
}

/* The rest is erased as it is written, so that the host never waits for more than a sector. */
int quads_port_model_erase(uint32_t slot, size_t n_bytes) {
  if (slot >= QUADS_FLASH_SLOTS || n_bytes > QUADS_FLASH_SLOT_BYTES) {
    return -1;
  }
  erase_sector(slot_start(slot));
  erased[slot] = FLASH_SECTOR_SIZE;
  return 0;
}

int quads_port_model_write(uint32_t slot, size_t offset, const uint8_t *bytes, size_t n_bytes) {
  static uint8_t page[FLASH_PAGE_SIZE];
  if (slot >= QUADS_FLASH_SLOTS || offset % FLASH_PAGE_SIZE != 0 ||
      offset > QUADS_FLASH_SLOT_BYTES || n_bytes > QUADS_FLASH_SLOT_BYTES - offset) {
    return -1;
  }
  while (n_bytes > 0) {
    const size_t n = n_bytes < FLASH_PAGE_SIZE ? n_bytes : FLASH_PAGE_SIZE;
    for (; erased[slot] < offset + n; erased[slot] += FLASH_SECTOR_SIZE) {
      erase_sector(slot_start(slot) + (uint32_t)erased[slot]);
    }
    memset(page, 0xFF, sizeof page);
    memcpy(page, bytes, n);
    write_page(slot_start(slot) + (uint32_t)offset, page);
    offset += n;
    bytes += n;
    n_bytes -= n;
  }
  return 0;
}

#endif

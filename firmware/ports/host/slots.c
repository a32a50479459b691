/* Two model slots in a file that is mapped into memory, the halves of it. As in flash, erased bytes
 * are 0xFF and can be written once; what was written survives the process, however it ends. */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "quads_port.h"

#define SLOTS 2u
#define SLOT_BYTES ((size_t)8 << 20) /* where the file is made here */
#define ERASED 0xFF

static uint8_t *slots; /* [SLOTS][slot_bytes] */
static size_t slot_bytes;

int host_open_model_slots(const char *path) {
  struct stat found;
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0 || fstat(file, &found) != 0 ||
      (found.st_size == 0 && ftruncate(file, (off_t)(SLOTS * SLOT_BYTES)) != 0)) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return EXIT_FAILURE;
  }
  const size_t n_bytes = found.st_size == 0 ? SLOTS * SLOT_BYTES : (size_t)found.st_size;
  slot_bytes = n_bytes / SLOTS / 16 * 16;
  void *mapped = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return EXIT_FAILURE;
  }
  slots = mapped;
  return 0;
}

uint32_t quads_port_model_slots(void) {
  return slots == NULL ? 0 : SLOTS;
}

static uint8_t *slot_start(uint32_t slot) {
  return slots + slot * slot_bytes;
}

const void *quads_port_model_map(uint32_t slot, size_t *n_bytes) {
  *n_bytes = slot_bytes;
  return slot_start(slot);
}

int quads_port_model_erase(uint32_t slot, size_t n_bytes) {
  if (n_bytes > slot_bytes) {
    return -1;
  }
  memset(slot_start(slot), ERASED, n_bytes);
  return 0;
}

int quads_port_model_write(uint32_t slot, size_t offset, const uint8_t *bytes, size_t n_bytes) {
  uint8_t *place = slot_start(slot) + offset;
  if (offset > slot_bytes || n_bytes > slot_bytes - offset ||
      offset % QUADS_PORT_MODEL_WRITE_BYTES != 0) {
    return -1;
  }
  for (size_t i = 0; i < n_bytes; i++) {
    if (place[i] != ERASED) {
      return -1;
    }
  }
  memcpy(place, bytes, n_bytes);
  return 0;
}

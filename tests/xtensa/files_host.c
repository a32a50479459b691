#include <stdio.h>

#include "files.h"

size_t files_read(const char *name, void *bytes, size_t capacity) {
  FILE *file = fopen(name, "rb");
  if (file == NULL) {
    return 0;
  }
  const size_t n_bytes = fread(bytes, 1, capacity, file);
  fclose(file);
  return n_bytes;
}

int files_write(const char *name, const void *bytes, size_t n_bytes) {
  FILE *file = fopen(name, "wb");
  if (file == NULL) {
    return -1;
  }
  const size_t written = fwrite(bytes, 1, n_bytes, file);
  return fclose(file) == 0 && written == n_bytes ? 0 : -1;
}

uint32_t files_ticks(void) {
  return 0;
}

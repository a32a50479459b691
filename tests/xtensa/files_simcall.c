/* Files through the simulator call of Xtensa; the numbers are those of Tensilica's simulator, the
 * flags those of Linux. */
#include <stdint.h>

#include "files.h"

#define SYS_READ 3
#define SYS_WRITE 4
#define SYS_OPEN 5
#define SYS_CLOSE 6
#define OPEN_READ 0
#define OPEN_WRITE_CREATE_TRUNCATE 0x241
#define MODE 0644

int32_t simcall(int32_t number, intptr_t a, intptr_t b, intptr_t c); /* start.S */

size_t files_read(const char *name, void *bytes, size_t capacity) {
  const int32_t file = simcall(SYS_OPEN, (intptr_t)name, OPEN_READ, 0);
  size_t n_bytes = 0;
  int32_t taken = 1;
  while (file >= 0 && taken > 0 && n_bytes < capacity) {
    taken = simcall(SYS_READ, file, (intptr_t)bytes + (intptr_t)n_bytes,
                    (intptr_t)(capacity - n_bytes));
    n_bytes += taken > 0 ? (size_t)taken : 0;
  }
  (void)simcall(SYS_CLOSE, file, 0, 0);
  return n_bytes;
}

int files_write(const char *name, const void *bytes, size_t n_bytes) {
  const int32_t file = simcall(SYS_OPEN, (intptr_t)name, OPEN_WRITE_CREATE_TRUNCATE, MODE);
  size_t written = 0;
  int32_t given = 1;
  while (file >= 0 && given > 0 && written < n_bytes) {
    given = simcall(SYS_WRITE, file, (intptr_t)bytes + (intptr_t)written,
                    (intptr_t)(n_bytes - written));
    written += given > 0 ? (size_t)given : 0;
  }
  (void)simcall(SYS_CLOSE, file, 0, 0);
  return written == n_bytes ? 0 : -1;
}

/* Read windows of int8 features from stdin, write int32 logits to stdout.
 *
 * Each window runs in an arena of exactly the planned size, filled with other random bytes, and
 * twice: same logits, same features, nothing written behind the arena, and its last bytes used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "quads.h"

#define GUARD_BYTES 64
#define ALIGNMENT 8 /* of a tensor's size; what is left of the last one may be padding */
#define MEL_BYTES (QUADS_MODEL_MELS * QUADS_MODEL_FRAMES)

static uint32_t state = 1;

static uint8_t random_byte(void) {
  state = state * 1664525u + 1013904223u;
  return (uint8_t)(state >> 24);
}

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static int end_is_used;

static void run(uint8_t *arena, const int8_t *mel, int32_t *logits) {
  int32_t again[QUADS_MODEL_CLASSES];
  uint8_t *end = arena + QUADS_MODEL_ARENA_BYTES - ALIGNMENT;
  uint8_t end_before[ALIGNMENT];
  quads_t q;

  for (size_t i = 0; i < QUADS_MODEL_ARENA_BYTES; i++) {
    arena[i] = random_byte();
  }
  memcpy(end_before, end, ALIGNMENT);
  if (quads_init(&q, &quads_model, arena, QUADS_MODEL_ARENA_BYTES) != QUADS_OK) {
    fail("quads_init");
  }
  if (quads_set_features(&q, mel) != QUADS_OK || quads_infer(&q, logits, NULL) != QUADS_OK) {
    fail("quads_infer");
  }
  if (memcmp(quads_features(&q), mel, MEL_BYTES) != 0) {
    fail("features changed");
  }
  if (quads_infer(&q, again, NULL) != QUADS_OK || memcmp(logits, again, sizeof again) != 0) {
    fail("a second inference differs");
  }
  end_is_used |= memcmp(end, end_before, ALIGNMENT) != 0;
}

int main(void) {
  static int8_t mel[MEL_BYTES];
  static int32_t logits[QUADS_MODEL_CLASSES];
#ifdef __SANITIZE_ADDRESS__
  uint8_t *arena = malloc(QUADS_MODEL_ARENA_BYTES); /* the sanitizer guards its end */
  const size_t guard = 0;
#else
  uint8_t *arena = malloc(QUADS_MODEL_ARENA_BYTES + GUARD_BYTES);
  const size_t guard = GUARD_BYTES;
#endif
  if (arena == NULL) {
    fail("malloc");
  }
  while (fread(mel, 1, sizeof mel, stdin) == sizeof mel) {
    memset(arena + QUADS_MODEL_ARENA_BYTES, 0xA5, guard);
    run(arena, mel, logits);
    for (size_t i = 0; i < guard; i++) {
      if (arena[QUADS_MODEL_ARENA_BYTES + i] != 0xA5) {
        fail("written behind the arena");
      }
    }
    fwrite(logits, sizeof logits, 1, stdout);
  }
  free(arena);
  if (!end_is_used) {
    fail("the arena is larger than what is used");
  }
  return 0;
}

/* Open the images that come in on stdin, and run those that are accepted.
 *
 * In, per image: u32 arena_bytes, n_frames and length, the image; then, when it was accepted, int8
 * features [n_frames][n_mels]. Out: u32 status, found, allowed; when accepted the model's hash,
 * u32 n_slots, per slot u32 n_labels, the name and labels each with a zero byte, and the int32
 * logits. Image, arena and logits are allocated to the byte, for the sanitizer to guard. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quads.h"
#include "quads_image.h"

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *read_bytes(size_t n_bytes) {
  void *bytes = aligned_alloc(16, n_bytes + (0u - n_bytes) % 16);
  if (n_bytes % 16 != 0) { /* exactly as long, but then no more aligned than malloc makes it */
    free(bytes);
    bytes = malloc(n_bytes);
  }
  if (bytes == NULL || fread(bytes, 1, n_bytes, stdin) != n_bytes) {
    fail("input ends early");
  }
  return bytes;
}

static void put_u32(uint32_t value) {
  fwrite(&value, sizeof value, 1, stdout);
}

static void put_text(const char *text) {
  fwrite(text, 1, strlen(text) + 1, stdout);
}

static void run(const quads_model_t *m) {
  int8_t *mel = read_bytes((size_t)m->n_frames * m->n_mels);
  uint8_t *arena = malloc(m->plan.arena_bytes);
  int32_t *logits = malloc(m->n_classes * sizeof *logits);
  quads_t q;

  memset(arena, 0xA5, m->plan.arena_bytes);
  if (quads_init(&q, m, arena, m->plan.arena_bytes) != QUADS_OK ||
      quads_set_features(&q, mel) != QUADS_OK || quads_infer(&q, logits, NULL) != QUADS_OK) {
    fail("an accepted model does not run");
  }
  fwrite(m->hash, sizeof m->hash, 1, stdout);
  put_u32(m->n_slots);
  for (uint16_t s = 0; s < m->n_slots; s++) {
    const quads_slot_t *slot = &m->slots[s];
    put_u32(slot->n_labels);
    put_text(slot->name);
    for (uint16_t i = 0; i < slot->n_labels; i++) {
      put_text(slot->labels[i]);
    }
  }
  fwrite(logits, sizeof *logits, m->n_classes, stdout);
  free(logits);
  free(arena);
  free(mel);
}

int main(void) {
  static quads_image_model_t loaded;
  uint32_t head[3];

  while (fread(head, sizeof head, 1, stdin) == 1) {
    const quads_image_limits_t limits = {.arena_bytes = head[0], .n_frames = (uint16_t)head[1]};
    uint8_t *image = read_bytes(head[2]);
    const quads_image_status_t status = quads_image_open(image, head[2], &limits, &loaded);
    put_u32(status);
    put_u32(loaded.found);
    put_u32(loaded.allowed);
    fflush(stdout);
    if (status == QUADS_IMAGE_OK) {
      run(&loaded.model);
      fflush(stdout);
    }
    free(image);
  }
  return 0;
}

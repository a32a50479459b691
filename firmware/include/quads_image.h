/* quads_image.h - a model from a binary image, in place of the one compiled in.
 *
 * An image (quads-mcu export --weights bin; layout: docs/format.md) holds everything of a
 * quads_model_t. Its weights stay where they are, in memory-mapped flash; only the small tables are
 * in RAM:
 *
 *     static quads_image_model_t loaded;
 *     const quads_image_limits_t limits = {.arena_bytes = sizeof arena, .n_frames = UINT16_MAX};
 *     const quads_image_status_t status = quads_image_open(flash, flash_bytes, &limits, &loaded);
 *     if (status == QUADS_IMAGE_OK)
 *       quads_init(&q, &loaded.model, arena, sizeof arena);
 *     else
 *       puts(quads_image_text(status));
 *
 * A device with two slots for images runs the valid one with the greater sequence number, which
 * quads_image_choose finds. All sizes in an image are checked before they are used, and its SHA-256
 * is; that guards against damage, not against somebody who makes an image on purpose.
 */
#ifndef QUADS_IMAGE_H
#define QUADS_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "quads.h"
#include "quads_image_format.h"

/* What a build has room for: about 200, 4 and 12 bytes of RAM each on 32-bit cores. */
#ifndef QUADS_IMAGE_MAX_LAYERS
#define QUADS_IMAGE_MAX_LAYERS 8
#endif
#ifndef QUADS_IMAGE_MAX_CLASSES
#define QUADS_IMAGE_MAX_CLASSES 256
#endif
#ifndef QUADS_IMAGE_MAX_SLOTS
#define QUADS_IMAGE_MAX_SLOTS 16
#endif

/* What the application has room for. */
typedef struct {
  uint32_t arena_bytes;
  uint16_t n_frames; /* of a window; UINT16_MAX: any */
} quads_image_limits_t;

/* A model and its tables. It points into itself and into the image: do not copy it, and keep the
 * image as it is while the model is used. After a failure `found` and `allowed` say what did not
 * fit, where that is a number. */
typedef struct {
  quads_model_t model;
  quads_layer_t layers[QUADS_IMAGE_MAX_LAYERS];
  const char *labels[QUADS_IMAGE_MAX_CLASSES];
  quads_slot_t slots[QUADS_IMAGE_MAX_SLOTS];
  uint32_t found, allowed;
} quads_image_model_t;

/* Who an image is, and whether it can run here as far as its header tells. */
typedef struct {
  quads_image_status_t status;
  uint32_t found, allowed;
  uint32_t sequence;
  uint32_t length_bytes;
  uint8_t sha256[32];
  uint8_t model_hash[32];
} quads_image_header_t;

/* Verify an image (uint8 [image_bytes], more bytes may follow it) and fill in `out`, whose model is
 * complete on QUADS_IMAGE_OK and must not be used otherwise. Reads all of the image. */
quads_image_status_t quads_image_open(const void *image, size_t image_bytes,
                                      const quads_image_limits_t *limits, quads_image_model_t *out);

/* Look at the header alone: a few hundred bytes, contents not verified. `image_bytes`: how many
 * the image may take, its slot; at least QUADS_IMAGE_HEADER_BYTES must be readable. */
quads_image_status_t quads_image_peek(const void *image, size_t image_bytes,
                                      const quads_image_limits_t *limits,
                                      quads_image_header_t *out);

/* The reason in words; for display, and the same that quads-mcu uses. */
const char *quads_image_text(quads_image_status_t status);

#define QUADS_IMAGE_NONE (-1)

/* One place for an image. */
typedef struct {
  const void *bytes; /* memory-mapped; NULL: cannot be read, taken as empty */
  size_t n_bytes;
  /* Set by quads_image_choose: */
  quads_image_status_t status;
  uint32_t found, allowed;
  uint32_t sequence;
} quads_image_slot_t;

/* Open the valid image with the greatest sequence number; the lower slot on ties. Slots that are
 * refused get the reason; those that were not needed only had their headers looked at. Returns the
 * slot, or QUADS_IMAGE_NONE. */
int quads_image_choose(quads_image_slot_t *slots, size_t n_slots,
                       const quads_image_limits_t *limits, quads_image_model_t *out);

/* --- SHA-256 (FIPS 180-4) --- */

typedef struct {
  uint32_t state[8];
  uint64_t n_bytes;
  uint8_t block[64]; /* what is left of an unfinished block */
} quads_sha256_t;

void quads_sha256_begin(quads_sha256_t *sha);
void quads_sha256_add(quads_sha256_t *sha, const void *bytes, size_t n_bytes);
void quads_sha256_end(quads_sha256_t *sha, uint8_t digest[32]);

#endif

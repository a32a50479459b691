/* clips.h - the clip store in the port's storage: "QCLP", version, count, then per clip its offset
 * and length in bytes (all u32), then int16 PCM. Written by quads_mcu/device/clips.py. */
#ifndef QUADS_CLIPS_H
#define QUADS_CLIPS_H

#include <stdint.h>

typedef struct {
  uint32_t offset; /* of the first sample in the storage */
  uint32_t length_bytes;
} clip_t;

/* Clips in the storage; 0 when there is none or it is not a clip store. */
uint32_t clips_count(void);

/* Find clip `index`, below clips_count(). Returns 0, or -1 when its entry is out of bounds. */
int clips_find(uint32_t index, clip_t *clip);

#endif

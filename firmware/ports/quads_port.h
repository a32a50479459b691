/* quads_port.h - what the firmware application needs from a board.
 *
 * A port is a folder that defines these functions; the application calls quads_port_init once,
 * before anything else. Everything runs in one thread of control; interrupts, where a port uses
 * them, stay inside it.
 */
#ifndef QUADS_PORT_H
#define QUADS_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Where arrays of many KB go: a build may name a section, in external memory for example. */
#ifdef QUADS_LARGE_SECTION
#define QUADS_LARGE __attribute__((section(QUADS_LARGE_SECTION)))
#else
#define QUADS_LARGE
#endif

/* Bring up clock, link, ticks and storage. Returns 0, or an exit code when the board (or, on a
 * PC, its command line) is unusable. On bare metal argc is 0 and argv NULL. */
int quads_port_init(int argc, char **argv);

/* --- link: bytes in both directions --- */

/* Take up to `capacity` received bytes without waiting. Returns how many, 0 if there are none. */
size_t quads_port_read(uint8_t *bytes, size_t capacity);

/* Send all bytes; waits while the line is busy, drops them when nobody is connected. */
void quads_port_write(const uint8_t *bytes, size_t n_bytes);

/* Sleep until there may be something to read; returning early is allowed. */
void quads_port_idle(void);

/* --- time --- */

/* Units of quads_port_tick.unit, as in the hello message. */
#define QUADS_TICK_NONE 0u
#define QUADS_TICK_INSTRUCTIONS 1u
#define QUADS_TICK_CYCLES 2u
#define QUADS_TICK_NANOSECONDS 3u

/* One tick is numerator / denominator units. */
typedef struct {
  uint32_t numerator;
  uint32_t denominator;
  uint8_t unit;
} quads_port_tick_t;

extern const quads_port_tick_t quads_port_tick;

/* Free-running counter, counts up, wraps at 2^32. One part of an inference must stay below that. */
uint32_t quads_port_ticks(void);

/* --- stack --- */

/* Size of the stack region and the deepest use since start, bytes; 0: unknown. */
uint32_t quads_port_stack_bytes(void);
uint32_t quads_port_stack_used(void);

/* --- storage of test clips: one read-only file or flash region, see docs/boards.md --- */

/* Size in bytes; 0: there is none. */
uint32_t quads_port_storage_bytes(void);

/* Read exactly n_bytes at `offset`. Returns 0, or -1 when that failed. */
int quads_port_storage_read(uint32_t offset, uint8_t *bytes, size_t n_bytes);

/* --- microphone: 16 kHz, one channel; only the listening firmware uses it ---
 *
 * Where there is none, on emulated boards and PCs, ports/recording.c plays a recording from the
 * storage in its place, paced by quads_port_ticks. */

/* Samples the microphone keeps for quads_port_audio_read; what comes on top of them is lost. */
#define QUADS_PORT_AUDIO_SAMPLES 2048u

typedef struct {
  uint32_t offset; /* of the first sample in the storage; int16, little-endian */
  uint32_t n_samples;
  uint32_t
      ticks_per_s;     /* of quads_port_ticks that count as a second; 0: no pace, nothing is lost */
  uint32_t rate_hz;    /* samples that come in such a second; 16000: as it should be */
  uint32_t chunk_seed; /* of the random sizes in which samples come; 0: as many as there are */
} quads_port_recording_t;

typedef struct {
  uint32_t made;    /* samples the source has made so far, lost ones included */
  uint32_t due;     /* and those it should have by the board's clock */
  uint32_t stalls;  /* waits for 10 ms of audio that took over 20 ms */
  uint64_t working; /* ticks not spent waiting */
} quads_port_audio_t;

/* Begin. recording: NULL for the microphone itself. Returns 0, or -1 when there is no such source.
 */
int quads_port_audio_start(const quads_port_recording_t *recording);

/* Take up to `capacity` samples without waiting. Returns how many, 0 if there are none. *lost: how
 * many were lost right before them. */
size_t quads_port_audio_read(int16_t *pcm, size_t capacity, uint32_t *lost);

/* Sleep until n_samples can be read. Returns 0 when the source has ended and all was read, else 1.
 */
int quads_port_audio_wait(size_t n_samples);

void quads_port_audio_state(quads_port_audio_t *state);

/* --- LEDs: ports of chips have them, and their builds define QUADS_PORT_SHOWS --- */

/* A command was understood, answers: [n_slots]. Toggle the LED of the first one; where there are
 * fewer LEDs than answers, these share them. */
void quads_port_show(const uint16_t *answers);

/* --- slots for model images: flash that is mapped into memory; only firmware that is built with
 * QUADS_MODEL_UPDATE 1 uses them, other ports need not define these functions --- */

/* How many; 0: the port has none, and the model is the one compiled in. */
uint32_t quads_port_model_slots(void);

/* A slot's memory, at a multiple of 16 bytes; always shows what was written last. Returns NULL
 * when it cannot be read. */
const void *quads_port_model_map(uint32_t slot, size_t *n_bytes);

/* Erase at least the first n_bytes of a slot. Returns 0, or -1 when that failed. */
int quads_port_model_erase(uint32_t slot, size_t n_bytes);

/* Unit of quads_port_model_write. */
#define QUADS_PORT_MODEL_WRITE_BYTES 256u

/* Write into memory that was erased; everything once, in ascending order but for the first
 * QUADS_PORT_MODEL_WRITE_BYTES, which come last. `offset` is a multiple of that, and so is n_bytes
 * but for the end of an image, which is a multiple of 16; `bytes` needs no alignment. Returns 0, or
 * -1 when that failed. */
int quads_port_model_write(uint32_t slot, size_t offset, const uint8_t *bytes, size_t n_bytes);

/* --- end --- */

/* Stop for good with an exit code (0: fine); on a board without a console, halt. */
_Noreturn void quads_port_exit(int code);

#endif

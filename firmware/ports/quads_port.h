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

/* --- end --- */

/* Stop for good with an exit code (0: fine); on a board without a console, halt. */
_Noreturn void quads_port_exit(int code);

#endif

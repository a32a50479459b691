/* quads_link.h - the device's end of the serial protocol (docs/protocol.md).
 *
 * Feed whatever bytes came in; whole frames are checked, dispatched and answered:
 *
 *     static const quads_handler_t handlers[QUADS_MESSAGES] = {[QUADS_MESSAGE_ECHO] = echo};
 *     quads_link_init(&link, buffer, sizeof buffer, handlers, context, write);
 *     for (;;) quads_link_feed(&link, bytes, n_bytes);
 *
 * A handler reads its request with quads_read_*, then sends either QUADS_LINK_OK and the answer's
 * fields with quads_send_*, or one quads_send_failure. Answers leave block by block, so they may be
 * longer than any buffer. The caller owns all state.
 */
#ifndef QUADS_LINK_H
#define QUADS_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "quads_protocol.h"

/* COBS decoder and frame check. */
typedef struct {
  uint8_t *buffer; /* [capacity] id, sequence, payload and CRC of the frame being received */
  size_t capacity; /* largest payload + QUADS_OVERHEAD_BYTES */
  size_t length;
  uint8_t code;    /* of the current COBS block; 0: no frame begun */
  uint8_t left;    /* bytes missing from that block */
  uint8_t damaged; /* the frame cannot become valid any more */
} quads_receiver_t;

typedef enum {
  QUADS_FRAME_INCOMPLETE,
  QUADS_FRAME_GOOD,    /* buffer[0 .. length - 1] holds id, sequence and payload */
  QUADS_FRAME_DAMAGED, /* wrong encoding, length or CRC */
} quads_frame_t;

void quads_receiver_init(quads_receiver_t *receiver, uint8_t *buffer, size_t capacity);

/* Take one byte from the line. After GOOD the buffer stays untouched until the next call. */
quads_frame_t quads_receiver_take(quads_receiver_t *receiver, uint8_t byte);

/* Frame encoder: COBS and CRC on the fly. */
typedef struct {
  void (*write)(void *context, const uint8_t *bytes, size_t n_bytes);
  void *context;
  uint32_t crc;
  uint8_t block[255]; /* the current COBS block, its code first */
  uint8_t filled;     /* bytes in block, code included */
} quads_sender_t;

void quads_send_begin(quads_sender_t *sender, uint8_t id, uint8_t sequence);
void quads_send_bytes(quads_sender_t *sender, const uint8_t *bytes, size_t n_bytes);
void quads_send_u8(quads_sender_t *sender, uint8_t value);
void quads_send_u16(quads_sender_t *sender, uint16_t value);
void quads_send_u32(quads_sender_t *sender, uint32_t value);
void quads_send_u64(quads_sender_t *sender, uint64_t value);
void quads_send_end(quads_sender_t *sender);

/* Status with the two numbers its text speaks of. */
void quads_send_failure(quads_sender_t *sender, quads_link_status_t status, uint32_t value,
                        uint32_t limit);

/* Little-endian, byte by byte: `bytes` needs no alignment. */
uint16_t quads_read_u16(const uint8_t *bytes);
uint32_t quads_read_u32(const uint8_t *bytes);

/* IEEE CRC-32; begin with 0 and pass the previous result on. */
uint32_t quads_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes);

/* One request. Its length was checked against the protocol's table. */
typedef struct {
  const uint8_t *payload; /* [payload_bytes] */
  size_t payload_bytes;
  uint8_t repeated; /* same id and sequence number as the request before */
} quads_request_t;

typedef void (*quads_handler_t)(void *context, const quads_request_t *request,
                                quads_sender_t *answer);

typedef struct {
  quads_receiver_t receiver;
  quads_sender_t sender;
  const quads_handler_t *handlers; /* [QUADS_MESSAGES], by message id; NULL: unknown */
  void *context;                   /* for the handlers and `write` */
  uint32_t frames_received;
  uint32_t frames_damaged;
  uint8_t last_id;
  uint8_t last_sequence;
} quads_link_t;

void quads_link_init(quads_link_t *link, uint8_t *buffer, size_t capacity,
                     const quads_handler_t *handlers, void *context,
                     void (*write)(void *context, const uint8_t *bytes, size_t n_bytes));

void quads_link_feed(quads_link_t *link, const uint8_t *bytes, size_t n_bytes);

#endif

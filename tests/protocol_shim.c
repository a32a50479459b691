/* Gives tests/test_protocol.py the protocol code through a few flat functions. */
#include <string.h>

#include "quads_link.h"

static uint8_t output[1 << 18];
static size_t output_bytes;

static void collect(void *context, const uint8_t *bytes, size_t n_bytes) {
  (void)context;
  if (n_bytes <= sizeof output - output_bytes) {
    memcpy(output + output_bytes, bytes, n_bytes);
    output_bytes += n_bytes;
  }
}

static size_t copy_output(uint8_t *to, size_t capacity) {
  const size_t n_bytes = output_bytes < capacity ? output_bytes : capacity;
  memcpy(to, output, n_bytes);
  return n_bytes;
}

size_t shim_encode(uint8_t id, uint8_t sequence, const uint8_t *payload, size_t n_bytes,
                   uint8_t *frame, size_t capacity) {
  quads_sender_t sender = {.write = collect};
  output_bytes = 0;
  quads_send_begin(&sender, id, sequence);
  quads_send_bytes(&sender, payload, n_bytes);
  quads_send_end(&sender);
  return copy_output(frame, capacity);
}

/* Feed bytes; returns the number of good frames and leaves the last one in `body`. */
size_t shim_receive(const uint8_t *bytes, size_t n_bytes, uint8_t *buffer, size_t capacity,
                    uint8_t *body, size_t *body_bytes, size_t *damaged) {
  quads_receiver_t receiver;
  size_t good = 0;
  *damaged = 0;
  quads_receiver_init(&receiver, buffer, capacity);
  for (size_t i = 0; i < n_bytes; i++) {
    const quads_frame_t frame = quads_receiver_take(&receiver, bytes[i]);
    if (frame == QUADS_FRAME_GOOD) {
      good++;
      *body_bytes = receiver.length;
      memcpy(body, receiver.buffer, receiver.length);
    } else if (frame == QUADS_FRAME_DAMAGED) {
      (*damaged)++;
    }
  }
  return good;
}

/* Answers the payload, and whether the request was a repetition. */
static void echo(void *context, const quads_request_t *request, quads_sender_t *answer) {
  (void)context;
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u8(answer, request->repeated);
  quads_send_bytes(answer, request->payload, request->payload_bytes);
}

/* A fresh device that knows `echo` and `clip` takes these bytes; its answers go to `answers`. */
size_t shim_dispatch(const uint8_t *bytes, size_t n_bytes, uint8_t *answers, size_t capacity) {
  static const quads_handler_t handlers[QUADS_MESSAGES] = {[QUADS_MESSAGE_ECHO] = echo,
                                                           [QUADS_MESSAGE_CLIP] = echo};
  uint8_t buffer[64];
  quads_link_t link;
  output_bytes = 0;
  quads_link_init(&link, buffer, sizeof buffer, handlers, NULL, collect);
  quads_link_feed(&link, bytes, n_bytes);
  return copy_output(answers, capacity);
}

/* Framing (COBS, CRC-32) and dispatch of the serial protocol. */
#include "quads_link.h"

#define FULL_BLOCK 0xFFu /* a COBS block of 254 bytes that no zero follows */

static const struct {
  uint8_t fixed_bytes;
  uint8_t open_ended;
} request_sizes[QUADS_MESSAGES] = QUADS_REQUEST_SIZES;

uint32_t quads_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
      0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
      0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
  };
  crc = ~crc;
  for (size_t i = 0; i < n_bytes; i++) {
    crc ^= bytes[i];
    crc = (crc >> 4) ^ table[crc & 15u];
    crc = (crc >> 4) ^ table[crc & 15u];
  }
  return ~crc;
}

uint16_t quads_read_u16(const uint8_t *bytes) {
  return (uint16_t)(bytes[0] | ((uint32_t)bytes[1] << 8));
}

uint32_t quads_read_u32(const uint8_t *bytes) {
  return quads_read_u16(bytes) | ((uint32_t)quads_read_u16(bytes + 2) << 16);
}

/* --- receiving --------------------------------------------------------------------------- */

static void receiver_restart(quads_receiver_t *receiver) {
  receiver->length = 0;
  receiver->code = 0;
  receiver->left = 0;
  receiver->damaged = 0;
}

void quads_receiver_init(quads_receiver_t *receiver, uint8_t *buffer, size_t capacity) {
  receiver->buffer = buffer;
  receiver->capacity = capacity;
  receiver_restart(receiver);
}

static void receiver_store(quads_receiver_t *receiver, uint8_t byte) {
  if (receiver->length < receiver->capacity) {
    receiver->buffer[receiver->length++] = byte;
  } else {
    receiver->damaged = 1;
  }
}

/* A zero byte came: judge what lies in the buffer and strip its CRC. */
static quads_frame_t receiver_finish(quads_receiver_t *receiver) {
  const size_t length = receiver->length;
  if (receiver->damaged || receiver->left != 0 || length < QUADS_OVERHEAD_BYTES) {
    return QUADS_FRAME_DAMAGED;
  }
  receiver->length = length - 4;
  const uint32_t crc = quads_crc32(0, receiver->buffer, receiver->length);
  return crc == quads_read_u32(receiver->buffer + receiver->length) ? QUADS_FRAME_GOOD
                                                                    : QUADS_FRAME_DAMAGED;
}

quads_frame_t quads_receiver_take(quads_receiver_t *receiver, uint8_t byte) {
  if (receiver->code == 0) {
    receiver_restart(receiver);
    if (byte == 0) {
      return QUADS_FRAME_INCOMPLETE; /* an empty frame is silence */
    }
  } else if (byte == 0) {
    receiver->code = 0;
    return receiver_finish(receiver);
  } else if (receiver->left != 0) {
    receiver->left--;
    receiver_store(receiver, byte);
    return QUADS_FRAME_INCOMPLETE;
  } else if (receiver->code != FULL_BLOCK) {
    receiver_store(receiver, 0);
  }
  receiver->code = byte;
  receiver->left = (uint8_t)(byte - 1u);
  return QUADS_FRAME_INCOMPLETE;
}

/* --- sending ----------------------------------------------------------------------------- */

static void sender_flush_block(quads_sender_t *sender) {
  sender->block[0] = sender->filled;
  sender->write(sender->context, sender->block, sender->filled);
  sender->filled = 1;
}

static void sender_encode(quads_sender_t *sender, const uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    if (bytes[i] == 0) {
      sender_flush_block(sender);
      continue;
    }
    sender->block[sender->filled++] = bytes[i];
    if (sender->filled == FULL_BLOCK) {
      sender_flush_block(sender);
    }
  }
}

void quads_send_begin(quads_sender_t *sender, uint8_t id, uint8_t sequence) {
  sender->crc = 0;
  sender->filled = 1;
  quads_send_u8(sender, id);
  quads_send_u8(sender, sequence);
}

void quads_send_bytes(quads_sender_t *sender, const uint8_t *bytes, size_t n_bytes) {
  sender->crc = quads_crc32(sender->crc, bytes, n_bytes);
  sender_encode(sender, bytes, n_bytes);
}

void quads_send_u8(quads_sender_t *sender, uint8_t value) {
  quads_send_bytes(sender, &value, 1);
}

void quads_send_u16(quads_sender_t *sender, uint16_t value) {
  const uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
  quads_send_bytes(sender, bytes, sizeof bytes);
}

void quads_send_u32(quads_sender_t *sender, uint32_t value) {
  quads_send_u16(sender, (uint16_t)value);
  quads_send_u16(sender, (uint16_t)(value >> 16));
}

void quads_send_u64(quads_sender_t *sender, uint64_t value) {
  quads_send_u32(sender, (uint32_t)value);
  quads_send_u32(sender, (uint32_t)(value >> 32));
}

void quads_send_end(quads_sender_t *sender) {
  static const uint8_t zero = 0;
  quads_send_u32(sender, sender->crc);
  sender_flush_block(sender);
  sender->write(sender->context, &zero, 1);
}

void quads_send_failure(quads_sender_t *sender, quads_link_status_t status, uint32_t value,
                        uint32_t limit) {
  quads_send_u8(sender, (uint8_t)status);
  quads_send_u32(sender, value);
  quads_send_u32(sender, limit);
}

/* --- dispatch ---------------------------------------------------------------------------- */

void quads_link_init(quads_link_t *link, uint8_t *buffer, size_t capacity,
                     const quads_handler_t *handlers, void *context,
                     void (*write)(void *context, const uint8_t *bytes, size_t n_bytes)) {
  quads_receiver_init(&link->receiver, buffer, capacity);
  link->sender.write = write;
  link->sender.context = context;
  link->handlers = handlers;
  link->context = context;
  link->frames_received = 0;
  link->frames_damaged = 0;
  link->last_id = 0;
  link->last_sequence = 0;
}

static void answer(quads_link_t *link, uint8_t id, const quads_request_t *request) {
  quads_sender_t *sender = &link->sender;
  if (id >= QUADS_MESSAGES || link->handlers[id] == NULL) {
    quads_send_failure(sender, QUADS_LINK_UNKNOWN_MESSAGE, id, QUADS_MESSAGES - 1);
    return;
  }
  const size_t fixed = request_sizes[id].fixed_bytes;
  if (request->payload_bytes < fixed ||
      (request->payload_bytes > fixed && !request_sizes[id].open_ended)) {
    quads_send_failure(sender, QUADS_LINK_BAD_LENGTH, (uint32_t)request->payload_bytes,
                       (uint32_t)fixed);
    return;
  }
  link->handlers[id](link->context, request, sender);
}

static void dispatch(quads_link_t *link) {
  const quads_receiver_t *receiver = &link->receiver;
  const uint8_t id = receiver->buffer[0];
  const uint8_t sequence = receiver->buffer[1];
  const quads_request_t request = {
      .payload = receiver->buffer + 2,
      .payload_bytes = receiver->length - 2,
      .repeated = id == link->last_id && sequence == link->last_sequence,
  };
  link->last_id = id;
  link->last_sequence = sequence;
  link->frames_received++;
  quads_send_begin(&link->sender, (uint8_t)(id | QUADS_ANSWER_BIT), sequence);
  answer(link, id, &request);
  quads_send_end(&link->sender);
}

void quads_link_feed(quads_link_t *link, const uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) {
    const quads_frame_t frame = quads_receiver_take(&link->receiver, bytes[i]);
    if (frame == QUADS_FRAME_GOOD) {
      dispatch(link);
    } else if (frame == QUADS_FRAME_DAMAGED) {
      link->frames_damaged++;
      quads_send_begin(&link->sender, QUADS_ANSWER_BIT, 0);
      quads_send_failure(&link->sender, QUADS_LINK_BAD_CRC, link->frames_damaged, 0);
      quads_send_end(&link->sender);
    }
  }
}

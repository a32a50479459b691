/* SHA-256, FIPS 180-4: 48 instructions per byte on a Cortex-M4, 1.5 KB. */
#include <string.h>

#include "quads_image.h"

#define BLOCK_BYTES 64u

static const uint32_t round_constants[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u,
    0xab1c5ed5u, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu,
    0x9bdc06a7u, 0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu,
    0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u, 0xa2bfe8a1u, 0xa81a664bu,
    0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u,
    0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u,
    0xc67178f2u,
};

static uint32_t rotate_right(uint32_t a, uint32_t n) {
  return a >> n | a << (32 - n);
}

static uint32_t load_big_endian(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void store_big_endian(uint8_t *bytes, uint32_t value) {
  for (uint32_t i = 0; i < 4; i++) {
    bytes[i] = (uint8_t)(value >> (24 - 8 * i));
  }
}

/* Word t of the message schedule, in a ring of 16. */
static inline uint32_t schedule(uint32_t w[16], uint32_t t) {
  const uint32_t w2 = w[(t + 14) % 16];
  const uint32_t w15 = w[(t + 1) % 16];
  const uint32_t sigma1 = rotate_right(w2, 17) ^ rotate_right(w2, 19) ^ w2 >> 10;
  const uint32_t sigma0 = rotate_right(w15, 7) ^ rotate_right(w15, 18) ^ w15 >> 3;
  return w[t % 16] += sigma1 + w[(t + 9) % 16] + sigma0;
}

/* One round, of which d and h come out changed: the others change names, not places. */
static inline void add_word(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e, uint32_t f,
                            uint32_t g, uint32_t *h, uint32_t word) {
  const uint32_t sum1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
  const uint32_t choice = g ^ (e & (f ^ g));
  const uint32_t sum0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
  const uint32_t majority = (a & b) | (c & (a | b));
  *h += sum1 + choice + word;
  *d += *h;
  *h += sum0 + majority;
}

/* Section 6.2.2. */
static void add_block(uint32_t state[8], const uint8_t *block) {
  uint32_t w[16];
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

  for (uint32_t t = 0; t < 16; t++) {
    w[t] = load_big_endian(block + 4 * t);
  }
  for (uint32_t t = 0; t < 64; t += 8) {
    const uint32_t *k = round_constants + t;
    uint32_t *now = w + t % 16;
    add_word(a, b, c, &d, e, f, g, &h, k[0] + now[0]);
    add_word(h, a, b, &c, d, e, f, &g, k[1] + now[1]);
    add_word(g, h, a, &b, c, d, e, &f, k[2] + now[2]);
    add_word(f, g, h, &a, b, c, d, &e, k[3] + now[3]);
    add_word(e, f, g, &h, a, b, c, &d, k[4] + now[4]);
    add_word(d, e, f, &g, h, a, b, &c, k[5] + now[5]);
    add_word(c, d, e, &f, g, h, a, &b, k[6] + now[6]);
    add_word(b, c, d, &e, f, g, h, &a, k[7] + now[7]);
    if (t == 8 || t == 24 || t == 40) {
      for (uint32_t i = 0; i < 16; i++) {
        (void)schedule(w, i);
      }
    }
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

void quads_sha256_begin(quads_sha256_t *sha) {
  static const uint32_t initial[8] = {
      0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
      0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
  };
  memcpy(sha->state, initial, sizeof initial);
  sha->n_bytes = 0;
}

void quads_sha256_add(quads_sha256_t *sha, const void *bytes, size_t n_bytes) {
  const uint8_t *next = bytes;
  size_t filled = (size_t)(sha->n_bytes % BLOCK_BYTES);

  sha->n_bytes += n_bytes;
  while (n_bytes > 0) {
    if (filled == 0 && n_bytes >= BLOCK_BYTES) {
      add_block(sha->state, next);
      next += BLOCK_BYTES;
      n_bytes -= BLOCK_BYTES;
      continue;
    }
    const size_t room = BLOCK_BYTES - filled;
    const size_t n = n_bytes < room ? n_bytes : room;
    memcpy(sha->block + filled, next, n);
    next += n;
    n_bytes -= n;
    filled = (filled + n) % BLOCK_BYTES;
    if (filled == 0) {
      add_block(sha->state, sha->block);
    }
  }
}

/* A one bit, zeros, and the length in bits, up to a whole block. */
void quads_sha256_end(quads_sha256_t *sha, uint8_t digest[32]) {
  size_t filled = (size_t)(sha->n_bytes % BLOCK_BYTES);
  const uint64_t n_bits = 8 * sha->n_bytes;

  sha->block[filled++] = 0x80;
  if (filled > BLOCK_BYTES - 8) {
    memset(sha->block + filled, 0, BLOCK_BYTES - filled);
    add_block(sha->state, sha->block);
    filled = 0;
  }
  memset(sha->block + filled, 0, BLOCK_BYTES - filled);
  store_big_endian(sha->block + 56, (uint32_t)(n_bits >> 32));
  store_big_endian(sha->block + 60, (uint32_t)n_bits);
  add_block(sha->state, sha->block);
  for (size_t i = 0; i < 8; i++) {
    store_big_endian(digest + 4 * i, sha->state[i]);
  }
}

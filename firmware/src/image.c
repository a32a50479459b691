/* The model image: header first, then a walk through everything behind it.
 *
 * Places follow from sizes, so the walk only counts on; what would pass the end makes it fail, and
 * so does an end before or behind the image's. Nothing is believed before the SHA-256 is right. */
#include <string.h>

#include "frontend_tables.h"
#include "image_check.h"
#include "kernels/quads_kernels.h"
#include "quads_image.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model images are little-endian and used where they lie"
#endif

static uint16_t read_u16(const uint8_t *bytes) {
  return (uint16_t)(bytes[0] | (uint32_t)bytes[1] << 8);
}

static uint32_t read_u32(const uint8_t *bytes) {
  return read_u16(bytes) | (uint32_t)read_u16(bytes + 2) << 16;
}

static int32_t read_i32(const uint8_t *bytes) {
  return (int32_t)read_u32(bytes);
}

const char *quads_image_text(quads_image_status_t status) {
  static const char *const texts[] = QUADS_IMAGE_TEXTS;
  return (size_t)status < sizeof texts / sizeof texts[0] ? texts[status] : "unknown status";
}

/* --- the header --- */

/* A comparison of the header and the numbers for its message. */
typedef struct {
  quads_image_status_t status;
  uint32_t found, allowed;
} verdict_t;

static verdict_t verdict(quads_image_status_t status, uint32_t found, uint32_t allowed) {
  const verdict_t made = {status, found, allowed};
  return made;
}

/* Whether nothing was ever written: erased flash, or fresh memory. */
static int is_empty(const uint8_t *image) {
  for (size_t i = 0; i < QUADS_IMAGE_HEADER_BYTES; i++) {
    if (image[i] != image[0] || (image[0] != 0xFF && image[0] != 0)) {
      return 0;
    }
  }
  return 1;
}

/* What must be right before the length can be believed so far that the SHA-256 is computed. */
static verdict_t check_kind(const uint8_t *image, size_t image_bytes) {
  static const uint8_t magic[4] = QUADS_IMAGE_MAGIC;

  if (image == NULL) {
    return verdict(QUADS_IMAGE_ERROR_EMPTY, 0, 0);
  }
  if (image_bytes < QUADS_IMAGE_HEADER_BYTES) {
    return verdict(QUADS_IMAGE_ERROR_TRUNCATED, QUADS_IMAGE_HEADER_BYTES, (uint32_t)image_bytes);
  }
  if (is_empty(image)) {
    return verdict(QUADS_IMAGE_ERROR_EMPTY, 0, 0);
  }
  if ((uintptr_t)image % QUADS_IMAGE_ALIGNMENT != 0) {
    return verdict(QUADS_IMAGE_ERROR_ALIGNMENT, (uint32_t)((uintptr_t)image % 16), 0);
  }
  if (memcmp(image, magic, sizeof magic) != 0) {
    return verdict(QUADS_IMAGE_ERROR_MAGIC, read_u32(image), read_u32(magic));
  }
  const uint32_t version = read_u16(image + QUADS_IMAGE_IMAGE_VERSION_AT);
  if (version != QUADS_IMAGE_VERSION) {
    return verdict(QUADS_IMAGE_ERROR_VERSION, version, QUADS_IMAGE_VERSION);
  }
  const uint32_t format = read_u16(image + QUADS_IMAGE_FORMAT_VERSION_AT);
  if (format != QUADS_FORMAT_VERSION) {
    return verdict(QUADS_IMAGE_ERROR_FORMAT, format, QUADS_FORMAT_VERSION);
  }
  const uint32_t length = read_u32(image + QUADS_IMAGE_LENGTH_BYTES_AT);
  if (length < QUADS_IMAGE_HEADER_BYTES || length > image_bytes) {
    return verdict(QUADS_IMAGE_ERROR_TRUNCATED, length, (uint32_t)image_bytes);
  }
  return verdict(QUADS_IMAGE_OK, 0, 0);
}

/* Whether the model could run in this build, as far as the header tells. */
static verdict_t check_fit(const uint8_t *image, const quads_image_limits_t *limits) {
  const struct {
    quads_image_status_t status;
    uint32_t found, allowed;
  } least[] = {
      {QUADS_IMAGE_ERROR_ARENA, read_u32(image + QUADS_IMAGE_PLAN_ARENA_BYTES_AT),
       limits->arena_bytes},
      {QUADS_IMAGE_ERROR_FRAMES, read_u16(image + QUADS_IMAGE_N_FRAMES_AT), limits->n_frames},
      {QUADS_IMAGE_ERROR_LAYERS, read_u16(image + QUADS_IMAGE_N_LAYERS_AT), QUADS_IMAGE_MAX_LAYERS},
      {QUADS_IMAGE_ERROR_CLASSES, read_u16(image + QUADS_IMAGE_N_CLASSES_AT),
       QUADS_IMAGE_MAX_CLASSES},
      {QUADS_IMAGE_ERROR_SLOTS, read_u16(image + QUADS_IMAGE_N_SLOTS_AT), QUADS_IMAGE_MAX_SLOTS},
  };
  const uint32_t kernels = image[QUADS_IMAGE_KERNELS_AT];
  const uint32_t frontend = image[QUADS_IMAGE_FRONTEND_AT];
  const uint32_t n_mels = read_u16(image + QUADS_IMAGE_N_MELS_AT);

  if (kernels != QUADS_KERNELS) {
    return verdict(QUADS_IMAGE_ERROR_KERNELS, kernels, QUADS_KERNELS);
  }
  if (frontend != QUADS_FRONTEND_FIXED) {
    return verdict(QUADS_IMAGE_ERROR_FRONTEND, frontend, QUADS_FRONTEND_FIXED);
  }
  if (n_mels != QUADS_FRONTEND_N_MELS) {
    return verdict(QUADS_IMAGE_ERROR_MELS, n_mels, QUADS_FRONTEND_N_MELS);
  }
  for (size_t i = 0; i < sizeof least / sizeof least[0]; i++) {
    if (least[i].found > least[i].allowed) {
      return verdict(least[i].status, least[i].found, least[i].allowed);
    }
  }
  return verdict(QUADS_IMAGE_OK, 0, 0);
}

quads_image_status_t quads_image_peek(const void *image, size_t image_bytes,
                                      const quads_image_limits_t *limits,
                                      quads_image_header_t *out) {
  const uint8_t *bytes = image;
  verdict_t found = check_kind(bytes, image_bytes);

  memset(out, 0, sizeof *out);
  if (found.status == QUADS_IMAGE_OK) {
    out->sequence = read_u32(bytes + QUADS_IMAGE_SEQUENCE_AT);
    out->length_bytes = read_u32(bytes + QUADS_IMAGE_LENGTH_BYTES_AT);
    memcpy(out->sha256, bytes + QUADS_IMAGE_SHA256_AT, sizeof out->sha256);
    memcpy(out->model_hash, bytes + QUADS_IMAGE_MODEL_HASH_AT, sizeof out->model_hash);
    found = check_fit(bytes, limits);
  }
  out->found = found.found;
  out->allowed = found.allowed;
  return out->status = found.status;
}

static int hash_is_right(const uint8_t *image, size_t length) {
  quads_sha256_t sha;
  uint8_t digest[32];

  quads_sha256_begin(&sha);
  quads_sha256_add(&sha, image + QUADS_IMAGE_HASHED_FROM, length - QUADS_IMAGE_HASHED_FROM);
  quads_sha256_end(&sha, digest);
  return memcmp(digest, image + QUADS_IMAGE_SHA256_AT, sizeof digest) == 0;
}

/* --- the walk --- */

typedef struct {
  const uint8_t *image;
  size_t length;
  size_t at;
  int failed; /* something would have passed the end; pointers are not to be followed then */
} walk_t;

/* The next n_bytes. */
static const uint8_t *take(walk_t *walk, size_t n_bytes) {
  if (walk->failed || n_bytes > walk->length - walk->at) {
    walk->failed = 1;
    return walk->image;
  }
  const uint8_t *found = walk->image + walk->at;
  walk->at += n_bytes;
  return found;
}

static void align(walk_t *walk) {
  (void)take(walk, (0u - walk->at) % QUADS_IMAGE_ALIGNMENT);
}

static const void *take_tensor(walk_t *walk, size_t n_bytes) {
  align(walk);
  return take(walk, n_bytes);
}

static quads_linear_t take_linear(walk_t *walk, const uint8_t *bits_and_per_channel, size_t n_out,
                                  size_t n_in, int has_multiplier) {
  const uint8_t bits = bits_and_per_channel[0];
  const uint8_t per_channel = bits_and_per_channel[1];
  const int bits_exist = bits == 2 || bits == 3 || bits == 4 || bits == 8;
  quads_linear_t w = {0};

  if (!bits_exist || per_channel > (has_multiplier ? 1 : 0)) {
    walk->failed = 1;
    return w;
  }
  w.n_out = (uint16_t)n_out;
  w.n_in = (uint16_t)n_in;
  w.bits = bits;
  w.per_channel = per_channel;
  w.indices = take_tensor(walk, quads_index_bytes(n_out, n_in, bits));
  w.centroids = take_tensor(walk, (size_t)1 << bits);
  w.bias = take_tensor(walk, 4 * n_out);
  if (has_multiplier) {
    w.multiplier = take_tensor(walk, per_channel ? 4 * n_out : 4);
  }
  return w;
}

static void take_norm(walk_t *walk, size_t d_model, quads_norm_t *norm) {
  norm->gamma = take_tensor(walk, 2 * d_model);
  norm->beta = take_tensor(walk, 4 * d_model);
}

/* The next text, which must end before `end`. */
static const char *take_text(walk_t *walk, size_t end) {
  const uint8_t *text = walk->image + walk->at;
  const uint8_t *zero = walk->at < end ? memchr(text, 0, end - walk->at) : NULL;

  if (walk->failed || zero == NULL || zero == text) {
    walk->failed = 1;
    return "";
  }
  walk->at += (size_t)(zero - text) + 1;
  return (const char *)text;
}

/* Slots and labels; `sizes`: u16 [n_slots], how many labels each has. */
static void take_texts(walk_t *walk, const uint8_t *sizes, size_t text_bytes,
                       quads_image_model_t *out) {
  quads_model_t *m = &out->model;
  const size_t end = walk->at + text_bytes;
  uint32_t first = 0;

  if (walk->failed || text_bytes > walk->length - walk->at) {
    walk->failed = 1;
    return;
  }
  for (size_t s = 0; s < m->n_slots && !walk->failed; s++) {
    const uint32_t n_labels = read_u16(sizes + 2 * s);
    if (n_labels < 2 || n_labels > m->n_classes - first) {
      walk->failed = 1;
      return;
    }
    quads_slot_t *slot = &out->slots[s];
    slot->name = take_text(walk, end);
    slot->labels = out->labels + first;
    slot->first = (uint16_t)first;
    slot->n_labels = (uint16_t)n_labels;
    for (uint32_t i = 0; i < n_labels && !walk->failed; i++) {
      out->labels[first + i] = take_text(walk, end);
    }
    first += n_labels;
  }
  if (first != m->n_classes || walk->at != end) {
    walk->failed = 1;
  }
}

#define LAYER_LINEAR(name) (record + QUADS_IMAGE_LAYER_##name##_BITS_AT)

static void take_layer(walk_t *walk, const uint8_t *record, size_t d, quads_layer_t *layer) {
  layer->score_multiplier = read_i32(record + QUADS_IMAGE_LAYER_SCORE_MULTIPLIER_AT);
  layer->value_multiplier = read_i32(record + QUADS_IMAGE_LAYER_VALUE_MULTIPLIER_AT);
  layer->attention_norm.epsilon = read_u32(record + QUADS_IMAGE_LAYER_ATTENTION_NORM_EPSILON_AT);
  layer->attention_norm.shift = record[QUADS_IMAGE_LAYER_ATTENTION_NORM_SHIFT_AT];
  layer->feed_forward_norm.epsilon =
      read_u32(record + QUADS_IMAGE_LAYER_FEED_FORWARD_NORM_EPSILON_AT);
  layer->feed_forward_norm.shift = record[QUADS_IMAGE_LAYER_FEED_FORWARD_NORM_SHIFT_AT];
  layer->query = take_linear(walk, LAYER_LINEAR(QUERY), d, d, 1);
  layer->key = take_linear(walk, LAYER_LINEAR(KEY), d, d, 1);
  layer->value = take_linear(walk, LAYER_LINEAR(VALUE), d, d, 1);
  layer->output = take_linear(walk, LAYER_LINEAR(OUTPUT), d, d, 1);
  layer->feed_forward_1 = take_linear(walk, LAYER_LINEAR(FEED_FORWARD_1), 4 * d, d, 1);
  layer->feed_forward_2 = take_linear(walk, LAYER_LINEAR(FEED_FORWARD_2), d, 4 * d, 1);
}

/* All tensors, in the order of docs/format.md. records: [n_layers][QUADS_IMAGE_LAYER_BYTES] */
static void take_tensors(walk_t *walk, const uint8_t *records, quads_image_model_t *out) {
  quads_model_t *m = &out->model;
  const uint8_t *header = walk->image;
  const size_t d = m->d_model;

  m->conv1 = take_linear(walk, header + QUADS_IMAGE_CONV1_BITS_AT, d, 3u * (size_t)m->n_mels, 1);
  m->conv2 = take_linear(walk, header + QUADS_IMAGE_CONV2_BITS_AT, d, 3 * d, 1);
  for (size_t i = 0; i < m->n_layers; i++) {
    take_layer(walk, records + i * QUADS_IMAGE_LAYER_BYTES, d, &out->layers[i]);
  }
  m->head = take_linear(walk, header + QUADS_IMAGE_HEAD_BITS_AT, m->n_classes, d, 0);
  for (size_t i = 0; i < m->n_layers; i++) {
    take_norm(walk, d, &out->layers[i].attention_norm);
    take_norm(walk, d, &out->layers[i].feed_forward_norm);
  }
  take_norm(walk, d, &m->norm);
  for (size_t i = 0; i < m->n_layers; i++) {
    out->layers[i].gelu = take_tensor(walk, 256);
  }
  m->conv1_gelu = take_tensor(walk, 256);
  m->conv2_gelu = take_tensor(walk, 2 * 256);
  m->positions = take_tensor(walk, m->n_tokens * d);
  if (header[QUADS_IMAGE_ATTENTION_POOLS_AT] != 0) {
    m->pool_query = take_tensor(walk, m->n_slots * d);
  }
  align(walk);
}

/* --- the model --- */

static void read_plan(const uint8_t *header, quads_plan_t *plan) {
  uint32_t *const offsets[] = {
      &plan->mel,
      &plan->residual,
      &plan->conv,
      &plan->conv_workspace,
      &plan->normalized,
      &plan->projection_workspace,
      &plan->attention,
      &plan->key,
      &plan->value,
      &plan->attention_workspace,
      &plan->output_workspace,
      &plan->feed_forward_normalized,
      &plan->hidden,
      &plan->feed_forward_workspace,
      &plan->pool_normalized,
      &plan->pool_workspace,
      &plan->pooled,
      &plan->head_workspace,
      &plan->arena_bytes,
  };
  _Static_assert(QUADS_IMAGE_PLAN_MEL_AT + sizeof offsets / sizeof offsets[0] * 4 ==
                     QUADS_IMAGE_PLAN_CONV_BLOCK_AT,
                 "the header's plan has other fields");
  for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
    *offsets[i] = read_u32(header + QUADS_IMAGE_PLAN_MEL_AT + 4 * i);
  }
  plan->conv_block = read_u16(header + QUADS_IMAGE_PLAN_CONV_BLOCK_AT);
  plan->projection_block = read_u16(header + QUADS_IMAGE_PLAN_PROJECTION_BLOCK_AT);
  plan->output_block = read_u16(header + QUADS_IMAGE_PLAN_OUTPUT_BLOCK_AT);
  plan->feed_forward_block = read_u16(header + QUADS_IMAGE_PLAN_FEED_FORWARD_BLOCK_AT);
  plan->pool_block = read_u16(header + QUADS_IMAGE_PLAN_POOL_BLOCK_AT);
}

static void read_header(const uint8_t *header, quads_image_model_t *out) {
  quads_model_t *m = &out->model;

  memset(m, 0, sizeof *m);
  m->format_version = QUADS_FORMAT_VERSION;
  memcpy(m->hash, header + QUADS_IMAGE_MODEL_HASH_AT, sizeof m->hash);
  m->labels = out->labels;
  m->slots = out->slots;
  m->layers = out->layers;
  m->n_mels = read_u16(header + QUADS_IMAGE_N_MELS_AT);
  m->n_frames = read_u16(header + QUADS_IMAGE_N_FRAMES_AT);
  m->n_tokens = m->n_frames / 2;
  m->d_model = read_u16(header + QUADS_IMAGE_D_MODEL_AT);
  m->n_heads = read_u16(header + QUADS_IMAGE_N_HEADS_AT);
  m->n_layers = read_u16(header + QUADS_IMAGE_N_LAYERS_AT);
  m->n_classes = read_u16(header + QUADS_IMAGE_N_CLASSES_AT);
  m->n_slots = read_u16(header + QUADS_IMAGE_N_SLOTS_AT);
  m->unknown_class = (int16_t)read_u16(header + QUADS_IMAGE_UNKNOWN_CLASS_AT);
  m->reject_threshold = read_i32(header + QUADS_IMAGE_REJECT_THRESHOLD_AT);
  m->position_multiplier = read_i32(header + QUADS_IMAGE_POSITION_MULTIPLIER_AT);
  m->pool_multiplier = read_i32(header + QUADS_IMAGE_POOL_MULTIPLIER_AT);
  m->pool_score_multiplier = read_i32(header + QUADS_IMAGE_POOL_SCORE_MULTIPLIER_AT);
  m->sqrt_d = read_u32(header + QUADS_IMAGE_SQRT_D_AT);
  m->norm.epsilon = read_u32(header + QUADS_IMAGE_NORM_EPSILON_AT);
  m->norm.shift = header[QUADS_IMAGE_NORM_SHIFT_AT];
  m->conv1_gelu_zero_point = (int8_t)header[QUADS_IMAGE_CONV1_GELU_ZERO_POINT_AT];
  read_plan(header, &m->plan);
}

/* As Dimensions.problem of quads_mcu/model/dimensions.py. */
static int sizes_are_possible(const quads_model_t *m) {
  return m->n_mels >= 8 && m->n_mels <= 128 && m->n_mels % 8 == 0 && m->n_frames >= 2 &&
         m->n_frames <= 3000 && m->n_frames % 2 == 0 && m->d_model >= 8 && m->d_model <= 1280 &&
         m->n_heads >= 1 && m->n_heads <= 20 && m->d_model % m->n_heads == 0 &&
         m->d_model / m->n_heads % 8 == 0 && m->n_layers >= 1 && m->n_layers <= 32 &&
         m->n_classes >= 2 && m->n_classes <= 4096 && m->n_slots >= 1 && m->n_slots <= 64;
}

/* Everything behind the header, once that is found right. */
static quads_image_status_t read_contents(const uint8_t *image, size_t length,
                                          quads_image_model_t *out) {
  quads_model_t *m = &out->model;
  walk_t walk = {.image = image, .length = length, .at = QUADS_IMAGE_HEADER_BYTES};

  read_header(image, out);
  if (!sizes_are_possible(m)) {
    return QUADS_IMAGE_ERROR_SIZES;
  }
  const uint8_t *records = take(&walk, (size_t)m->n_layers * QUADS_IMAGE_LAYER_BYTES);
  const uint8_t *slot_sizes = take(&walk, 2 * (size_t)m->n_slots);
  take_texts(&walk, slot_sizes, read_u32(image + QUADS_IMAGE_TEXT_BYTES_AT), out);
  if (!walk.failed) {
    take_tensors(&walk, records, out);
  }
  if (walk.failed || walk.at != length) {
    return QUADS_IMAGE_ERROR_CONTENTS;
  }
  if (!quads_image_plan_fits(m)) {
    return QUADS_IMAGE_ERROR_PLAN;
  }
  return quads_image_bounds_kept(m) ? QUADS_IMAGE_OK : QUADS_IMAGE_ERROR_BOUNDS;
}

quads_image_status_t quads_image_open(const void *image, size_t image_bytes,
                                      const quads_image_limits_t *limits,
                                      quads_image_model_t *out) {
  const uint8_t *bytes = image;
  verdict_t found = check_kind(bytes, image_bytes);

  if (found.status == QUADS_IMAGE_OK) {
    const size_t length = read_u32(bytes + QUADS_IMAGE_LENGTH_BYTES_AT);
    found = hash_is_right(bytes, length) ? check_fit(bytes, limits)
                                         : verdict(QUADS_IMAGE_ERROR_DAMAGED, 0, 0);
    if (found.status == QUADS_IMAGE_OK) {
      found.status = read_contents(bytes, length, out);
    }
  }
  out->found = found.found;
  out->allowed = found.allowed;
  return found.status;
}

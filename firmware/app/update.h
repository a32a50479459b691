/* update.h - which model runs: the one compiled in, or one from the port's slots, which the host
 * replaces over the link without touching the application.
 *
 * Switches of the build:
 *   QUADS_MODEL_UPDATE 1       the model comes from the port's slots, where it has some
 *   QUADS_MODEL_COMPILED_IN 0  there is no model_data.c
 *   QUADS_ARENA_BYTES          more than the model of model.h needs, for larger ones to come
 *
 * An application says what it has room for, and puts UPDATE_HANDLERS into its table of handlers:
 *
 *     static void model_changed(void) {
 *       if (running_model != NULL) quads_init(&q, running_model, arena, sizeof arena);
 *       link.handlers = running_model != NULL ? handlers : UPDATE_ONLY;
 *     }
 *     static const update_settings_t settings = {{sizeof arena, UINT16_MAX}, MAX_PAYLOAD_BYTES,
 *                                                model_changed};
 *     update_start(&settings);       // calls model_changed, and whenever there is another model
 */
#ifndef QUADS_UPDATE_H
#define QUADS_UPDATE_H

#include "model.h"
#include "quads.h"
#include "quads_image.h"
#include "quads_link.h"

#ifndef QUADS_MODEL_UPDATE
#define QUADS_MODEL_UPDATE 0
#endif
#ifndef QUADS_MODEL_COMPILED_IN
#define QUADS_MODEL_COMPILED_IN 1
#endif
#if !QUADS_MODEL_UPDATE && !QUADS_MODEL_COMPILED_IN
#error "firmware without a compiled-in model needs slots for one: QUADS_MODEL_UPDATE 1"
#endif

#ifndef QUADS_ARENA_BYTES
#define QUADS_ARENA_BYTES QUADS_MODEL_ARENA_BYTES
#endif
_Static_assert(QUADS_ARENA_BYTES >= QUADS_MODEL_ARENA_BYTES, "the arena is too small");

typedef struct {
  quads_image_limits_t limits;
  uint16_t max_payload_bytes; /* of the link; at least QUADS_IMAGE_HEADER_BYTES, and 260 */
  void (*changed)(void);
} update_settings_t;

#if QUADS_MODEL_UPDATE

#define QUADS_LARGER(a, b) ((a) > (b) ? (a) : (b))
#define QUADS_MAX_LAYERS QUADS_LARGER(QUADS_MODEL_LAYERS, QUADS_IMAGE_MAX_LAYERS)
#define QUADS_MAX_CLASSES QUADS_LARGER(QUADS_MODEL_CLASSES, QUADS_IMAGE_MAX_CLASSES)
#define QUADS_MAX_SLOTS QUADS_LARGER(QUADS_MODEL_SLOTS, QUADS_IMAGE_MAX_SLOTS)

/* NULL: no slot holds a valid one. */
extern const quads_model_t *running_model;

void update_start(const update_settings_t *settings);

#define UPDATE_HANDLERS                                                                 \
  [QUADS_MESSAGE_MODEL_INFO] = update_info, [QUADS_MESSAGE_MODEL_BEGIN] = update_begin, \
  [QUADS_MESSAGE_MODEL_DATA] = update_data, [QUADS_MESSAGE_MODEL_END] = update_end

void update_info(void *context, const quads_request_t *request, quads_sender_t *answer);
void update_begin(void *context, const quads_request_t *request, quads_sender_t *answer);
void update_data(void *context, const quads_request_t *request, quads_sender_t *answer);
void update_end(void *context, const quads_request_t *request, quads_sender_t *answer);

/* Handlers while there is no model: to get one, and refusals that say why there is none. */
extern const quads_handler_t update_only[QUADS_MESSAGES];
#define UPDATE_ONLY update_only

#else

#define QUADS_MAX_LAYERS QUADS_MODEL_LAYERS
#define QUADS_MAX_CLASSES QUADS_MODEL_CLASSES
#define QUADS_MAX_SLOTS QUADS_MODEL_SLOTS
#define UPDATE_HANDLERS [QUADS_MESSAGE_MODEL_INFO] = NULL
#define UPDATE_ONLY NULL

static inline const quads_model_t *compiled_in_model(void) {
  return &quads_model;
}
#define running_model compiled_in_model()

static inline void update_start(const update_settings_t *settings) {
  settings->changed();
}

#endif
#endif

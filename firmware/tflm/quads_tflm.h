/* quads_tflm.h - spoken intents by tflite-micro behind the quads-mcu frontend.
 *
 *     alignas(16) static uint8_t arena[QUADS_TFLM_ARENA_BYTES];
 *     static QuadsTflm intent(arena, sizeof arena);
 *
 *     if (!intent.Ok()) fail();                     // arena too small or wrong model
 *     while (samples remain) intent.Push(pcm, n);   // 16 kHz mono, any number at a time
 *     const int8_t *logits = intent.Infer();        // closes the window; nullptr: Invoke failed
 *     puts(intent.Label(0, logits));                // the first head's answer
 *     intent.Restart();                             // ready for the next utterance
 *
 * The object holds no buffers but the frontend's ring; features lie in the model's input tensor.
 * Compile with -DQUADS_TFLM_LUT for the model with lookup tables (DECODE operator).
 */
#ifndef QUADS_TFLM_H
#define QUADS_TFLM_H

#include <cstddef>
#include <cstdint>

#include "quads_tflm_model.h"
#include "quads_tflm_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"

extern "C" {
#include "quads_frontend.h"
}

class QuadsTflm {
 public:
  /* The arena must be 16-byte aligned and outlive the object. */
  QuadsTflm(uint8_t *arena, size_t arena_bytes);

  bool Ok() const {
    return ok_;
  }

  /* Begin a new window. */
  void Restart();

  /* Feed PCM; samples beyond the window are ignored. */
  void Push(const int16_t *pcm, size_t n_samples);

  /* Fill the window with silence, apply Whisper's clamp, run. int8 [QUADS_TFLM_CLASSES]. */
  const int8_t *Infer();

  /* Between Close and Infer: the window's features, int8 [QUADS_TFLM_FRAMES][QUADS_TFLM_MELS]. */
  const int8_t *Features() const {
    return features_;
  }

  /* Label of a head's greatest logit, the lowest index on ties. */
  static const char *Label(int head, const int8_t *logits);

  /* Fill the window with silence and apply the clamp; Infer does it, too. */
  void Close();

 private:
  QuadsTflmResolver resolver_;
  bool registered_;
  tflite::MicroInterpreter interpreter_;
  bool ok_ = false;
  bool closed_ = false;
  bool invoked_ = false;
  int8_t *features_ = nullptr;
  size_t frame_ = 0;
  quads_frontend_t frontend_;
};

#endif

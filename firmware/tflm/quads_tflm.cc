#include "quads_tflm.h"

#include <algorithm>
#include <cstring>

#include "tensorflow/lite/schema/schema_generated.h"

namespace {

constexpr size_t kFeatures = static_cast<size_t>(QUADS_TFLM_FRAMES) * QUADS_TFLM_MELS;

}  // namespace

QuadsTflm::QuadsTflm(uint8_t *arena, size_t arena_bytes)
    : registered_(QuadsTflmRegister(&resolver_)),
      interpreter_(tflite::GetModel(quads_tflm_model), resolver_, arena, arena_bytes) {
  if (!registered_ || interpreter_.AllocateTensors() != kTfLiteOk) {
    return;
  }
  TfLiteTensor *input = interpreter_.input(0);
  if (input->type != kTfLiteInt8 || input->bytes != kFeatures) {
    return;
  }
  ok_ = true;
  Restart();
}

void QuadsTflm::Restart() {
  quads_frontend_restart(&frontend_);
  frame_ = 0;
  closed_ = invoked_ = false;
  features_ = interpreter_.input(0)->data.int8;
}

void QuadsTflm::Push(const int16_t *pcm, size_t n_samples) {
  while (n_samples > 0 && frame_ < QUADS_TFLM_FRAMES && !closed_) {
    size_t consumed = 0;
    int8_t *mel = features_ + frame_ * QUADS_TFLM_MELS;
    if (quads_frontend_process(&frontend_, pcm, n_samples, &consumed, mel)) {
      frame_++;
    }
    pcm += consumed;
    n_samples -= consumed;
  }
}

void QuadsTflm::Close() {
  static const int16_t silence[QUADS_WINDOW_SAMPLES] = {};

  if (!ok_ || closed_) {
    return;
  }
  /* After a window of zeros every frame that still holds a sample of the audio is complete. */
  Push(silence, QUADS_WINDOW_SAMPLES);
  std::memset(features_ + frame_ * QUADS_TFLM_MELS, -128,
              (QUADS_TFLM_FRAMES - frame_) * QUADS_TFLM_MELS);
  frame_ = QUADS_TFLM_FRAMES;
  /* Whisper's clamp, 8 decades below the window's maximum. */
  const int lowest = *std::max_element(features_, features_ + kFeatures) - QUADS_TFLM_CLAMP;
  for (size_t i = 0; i < kFeatures; i++) {
    features_[i] = static_cast<int8_t>(std::max<int>(features_[i], lowest));
  }
  closed_ = true;
}

const int8_t *QuadsTflm::Infer() {
  if (!ok_ || invoked_) {
    return nullptr;
  }
  Close();
  invoked_ = true; /* and the features are gone: the interpreter reuses their memory */
  return interpreter_.Invoke() == kTfLiteOk ? interpreter_.output(0)->data.int8 : nullptr;
}

const char *QuadsTflm::Label(int head, const int8_t *logits) {
  const int first = quads_tflm_heads[head];
  const int last = quads_tflm_heads[head + 1];
  return quads_tflm_labels[std::max_element(logits + first, logits + last) - logits];
}

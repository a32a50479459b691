/* For a plain tflite-micro tree: raw PCM (int16, 16 kHz, mono) on stdin, one window; prints a
 * head's answer per line, then the logits; with -f the features (int8) as raw bytes instead. */
#include <cstdio>
#include <cstring>

#include "quads_tflm.h"

alignas(16) static uint8_t arena[QUADS_TFLM_ARENA_BYTES];

int main(int argc, char **argv) {
  static QuadsTflm intent(arena, sizeof arena);
  int16_t pcm[256];

  if (!intent.Ok()) {
    std::fprintf(stderr, "arena of %u bytes is too small, or the model is another one\n",
                 static_cast<unsigned>(sizeof arena));
    return 1;
  }
  for (size_t n; (n = std::fread(pcm, sizeof *pcm, 256, stdin)) > 0;) {
    intent.Push(pcm, n);
  }
  if (argc > 1 && std::strcmp(argv[1], "-f") == 0) {
    (void)intent.Close();
    std::fwrite(intent.Features(), 1, QUADS_TFLM_FRAMES * QUADS_TFLM_MELS, stdout);
    return 0;
  }
  const int8_t *logits = intent.Infer();
  if (logits == nullptr) {
    return 1;
  }
  for (int head = 0; head < QUADS_TFLM_HEADS; head++) {
    std::puts(QuadsTflm::Label(head, logits));
  }
  for (int i = 0; i < QUADS_TFLM_CLASSES; i++) {
    std::printf("%d%c", logits[i], i + 1 < QUADS_TFLM_CLASSES ? ' ' : '\n');
  }
  return 0;
}

"""Whole models on emulated cores: logits, executed instructions and every byte of the arena."""

from __future__ import annotations

from quads_mcu.model.dimensions import Dimensions

SMALL = Dimensions(n_mels=8, n_frames=46, d_model=24, n_heads=3, n_layers=2, n_classes=5)
TINY = Dimensions(n_mels=8, n_frames=2, d_model=8, n_heads=1, n_layers=1, n_classes=2)
SHIM = """
#include "model.h"
#include "quads.h"
int infer(quads_t *q, uint8_t *arena, const int8_t *mel);
int run(quads_t *q, int32_t *logits);
int infer(quads_t *q, uint8_t *arena, const int8_t *mel) {
  const int status = quads_init(q, &quads_model, arena, QUADS_MODEL_ARENA_BYTES);
  return status ? status : quads_set_features(q, mel);
}
int run(quads_t *q, int32_t *logits) {
  return quads_infer(q, logits, NULL);
}
"""

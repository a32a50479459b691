"""QUADS training: teacher, distillation and quantization cycles, checkpoints (docs/training.md)."""

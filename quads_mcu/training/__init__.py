"""QUADS: distillation and codebook quantization, optimized together."""

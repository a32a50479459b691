"""Time of k-means for all matrices of a d=384x4 student, one after another.

Usage: python benchmarks/codebooks.py    (two threads)

Weights are drawn from Student's t of five degrees of freedom: all values distinct, tails heavier
than a normal's. Limit: 3 s at every number of bits; ends with 1 when it is missed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from quads_mcu import console
from quads_mcu.model import codebook
from quads_mcu.model.dimensions import dimensions
from quads_mcu.model_format import BITS, linear_shapes

LIMIT_S = 3.0


def weights() -> list[NDArray[np.float32]]:
    shapes = linear_shapes(dimensions("d384x4", n_mels=80, window_s=3, n_classes=10))
    rng = np.random.default_rng(0)
    return [rng.standard_t(5, shape).astype(np.float32) for shape in shapes.values()]


def seconds(matrices: list[NDArray[np.float32]]) -> Iterator[tuple[int, float, float]]:
    """Yield bits, seconds by the clock and seconds of processor time."""
    for bits in sorted(BITS):
        start, start_cpu = time.perf_counter(), time.process_time()
        for matrix in matrices:
            codebook.fit(matrix, bits)
        yield bits, time.perf_counter() - start, time.process_time() - start_cpu


def main() -> None:
    matrices = weights()
    rows = list(seconds(matrices))
    console.table(
        f"k-means of {len(matrices)} matrices, {sum(m.size for m in matrices):,} weights",
        ("bits", "seconds", "of the processor"),
        [(str(bits), f"{clock:.2f}", f"{cpu:.2f}") for bits, clock, cpu in rows],
    )
    sys.exit(1 if max(clock for _, clock, _ in rows) > LIMIT_S else 0)


if __name__ == "__main__":
    main()

"""Every kernel variant on its emulated cores, against the formulas of docs/arithmetic.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_encoder import FILLS

from quads_mcu import model_format
from quads_mcu.errors import BuildError
from quads_mcu.export import kernels
from quads_mcu.report import emulated_kernel
from quads_mcu.report.emulated_kernel import CORES, Call, EmulatedKernels, Record

VARIANTS = [(core, variant) for core in CORES for variant in CORES[core].kernels]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def emulated(request: pytest.FixtureRequest) -> Iterator[tuple[EmulatedKernels, str]]:
    """Return the kernels of a variant on a core, and the variant's name."""
    core, variant = request.param
    _require_tools(core)
    with EmulatedKernels(core, variant) as built:
        yield built, variant


def _require_tools(core: str) -> None:
    if tool := CORES[core].missing_tool:
        pytest.skip(f"{tool} is not installed")


@dataclass
class _Weights:
    """A quads_linear_t in the packing of a variant, and what it stands for."""

    record: Record
    weights: NDArray[np.int64]
    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]

    @classmethod
    def make(
        cls, rng: np.random.Generator, variant: str, n: int, k: int, bits: int, fill: str = "random"
    ) -> _Weights:
        centroids = FILLS[fill](rng, 1 << bits)
        indices = rng.integers(0, 1 << bits, (n, k), dtype=np.uint8)
        # Sums of about `size`, of which few saturate; one multiplier per channel or one for all.
        size = {"random": 5400 * k**0.5, "extremes": 16000 * k**0.5, "minimum": 16384 * k}[fill]
        bias = rng.integers(-round(size), round(size), n, dtype=np.int32)
        multiplier = rng.uniform(0.3, 1.7, n if rng.integers(2) else 1) * 50 / size * 2**32
        factor = multiplier.clip(0, 2**31 - 1).astype(np.int32)
        packed = kernels.kernels(variant).pack(indices, bits)
        record = emulated_kernel.linear(packed, centroids, bias, factor, n, k, bits)
        wide = centroids[indices].astype(np.int64)
        return cls(record, wide, bias.astype(np.int64), factor.astype(np.int64))

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int64]:
        return x.astype(np.int64) @ self.weights.T + self.bias

    def requantized(self, x: NDArray[Any]) -> NDArray[np.int64]:
        return (self.accumulate(x) * self.multiplier + 2**31) >> 32


def _workspace(n_bytes: int) -> NDArray[np.uint8]:
    """Exactly what the planner provides, filled with something."""
    return np.random.default_rng(n_bytes).integers(0, 256, (n_bytes + 7) // 8 * 8, dtype=np.uint8)


# (rows, n_in, n_out, x_stride or 0 for n_in): every remainder of rows, channels and inputs, rows
# that overlap as in a convolution, and the largest matrices of the presets.
SHAPES = [
    (1, 8, 4, 0), (2, 16, 4, 0), (3, 24, 8, 0), (4, 32, 12, 0), (5, 40, 8, 0), (6, 48, 4, 0),
    (7, 56, 20, 0), (8, 64, 8, 0), (9, 72, 4, 0), (13, 96, 32, 0), (5, 120, 8, 40), (3, 240, 8, 80),
    (1, 24, 96, 0), (2, 24, 8, 8), (1, 72, 24, 48), (2, 40, 8, 0), (1, 48, 8, 0), (1, 8, 32, 0),
    (6, 72, 8, 48), (2, 1536, 4, 0), (17, 384, 4, 0), (1, 96, 96, 0), (4, 288, 16, 192),
]  # fmt: skip


@pytest.mark.parametrize("bits", model_format.BITS)
@pytest.mark.parametrize("fill", FILLS)
def test_linear_s8(emulated: tuple[EmulatedKernels, str], fill: str, bits: int) -> None:
    core, variant = emulated
    rng = np.random.default_rng(bits)
    calls, expected = [], []
    for rows, k, n, stride in SHAPES:
        stride = stride or k
        first, margin = 4, 4
        w = _Weights.make(rng, variant, n + 8, k, bits, fill)
        flat = FILLS[fill](rng, (rows - 1) * stride + k)
        x = np.lib.stride_tricks.as_strided(flat, (rows, k), (stride, 1))
        y = np.full((rows, n + margin), 99, np.int8)
        workspace = _workspace(kernels.kernels(variant).linear_bytes(rows, k))
        arguments = (flat, stride, rows, w.record, first, n, y, n + margin, workspace)
        calls.append(Call("quads_linear_s8", arguments))
        wanted = y.copy()
        wanted[:, :n] = w.requantized(x)[:, first : first + n].clip(-128, 127)
        expected.append(wanted)
    if fill != "minimum":
        assert np.mean(np.abs(np.concatenate([y.ravel() for y in expected])) >= 127) < 0.3
    for shape, outcome, wanted in zip(SHAPES, core.run(calls), expected, strict=True):
        np.testing.assert_array_equal(outcome.arrays[1], wanted, err_msg=str(shape))


@pytest.mark.parametrize("bits", model_format.BITS)
@pytest.mark.parametrize("fill", FILLS)
def test_linear_add_s16(emulated: tuple[EmulatedKernels, str], fill: str, bits: int) -> None:
    core, variant = emulated
    rng = np.random.default_rng(bits)
    calls, expected = [], []
    shapes = [shape for shape in SHAPES if not shape[3]]
    for rows, k, n, _ in shapes:
        w = _Weights.make(rng, variant, n, k, bits, fill)
        x = FILLS[fill](rng, rows, k)
        residual = rng.integers(-32768, 32768, (rows, n), dtype=np.int16)
        residual[0, :2] = -32768, 32767
        workspace = _workspace(kernels.kernels(variant).linear_bytes(rows, k))
        calls.append(Call("quads_linear_add_s16", (x, rows, w.record, residual, workspace)))
        expected.append((residual + w.requantized(x)).clip(-32768, 32767))
    for shape, outcome, wanted in zip(shapes, core.run(calls), expected, strict=True):
        np.testing.assert_array_equal(outcome.arrays[1], wanted, err_msg=str(shape))


@pytest.mark.parametrize("bits", model_format.BITS)
def test_head(emulated: tuple[EmulatedKernels, str], bits: int) -> None:
    core, variant = emulated
    rng = np.random.default_rng(bits)
    calls, expected = [], []
    for n, k in [(1, 8), (2, 96), (3, 24), (4, 384), (5, 40), (31, 96)]:
        w = _Weights.make(rng, variant, n, k, bits)
        pooled = rng.choice(np.array([-8191, -1, 0, 5, 8191], np.int16), k)
        workspace = _workspace(kernels.kernels(variant).head_bytes(k))
        for first in range(min(n, 6)):  # slots begin anywhere
            last = n - (first % 2)
            logits = np.full(last - first, 99, np.int32)
            arguments = (pooled, w.record, first, last - first, logits, workspace)
            calls.append(Call("quads_head", arguments))
            expected.append(w.accumulate(pooled)[first:last])
    for outcome, wanted in zip(core.run(calls), expected, strict=True):
        np.testing.assert_array_equal(outcome.arrays[1], wanted)


# Executed instructions per multiply-accumulate, everything included: (n_out, n_in, rows, rows per
# call as an arena of the paper-size student has room for, limit).
INSTRUCTIONS = [
    (384, 384, 150, 52, 0.80),
    (1536, 384, 150, 20, 0.80),
    (384, 1536, 150, 20, 0.82),
    (96, 96, 150, 52, 0.88),
    (384, 384, 4, 4, 1.15),
    (384, 384, 1, 1, 1.62),
]


@pytest.mark.parametrize("core", ["m4", "m7", "m33"])
def test_dsp_layers_stay_within_their_instructions(core: str) -> None:
    _require_tools(core)
    rng = np.random.default_rng(0)
    per_product = {}
    with EmulatedKernels(core, "dsp") as built:
        for n, k, rows, block, limit in INSTRUCTIONS:
            w = _Weights.make(rng, "dsp", n, k, 4)
            calls = []
            for count in [block] * (rows // block) + [rows % block] * (rows % block > 0):
                x, y = FILLS["random"](rng, count, k), np.zeros((count, n), np.int8)
                workspace = _workspace(kernels.kernels("dsp").linear_bytes(count, k))
                arguments = (x, k, count, w.record, 0, n, y, n, workspace)
                calls.append(Call("quads_linear_s8", arguments))
            total = sum(outcome.instructions for outcome in built.run(calls))
            per_product[n, k, rows] = (total / (n * k * rows), limit)
    assert all(found <= limit for found, limit in per_product.values()), per_product


# The harness itself.

NOPS = """
.syntax unified
.thumb
.text
.macro function name, n
.global \\name
.thumb_func
.type \\name, %function
\\name:
.rept \\n
nop
.endr
bx lr
.endm
function nops_0, 0
function nops_1000, 1000
.global scribble
.thumb_func
.type scribble, %function
scribble:
str r0, [r0, #4]
bx lr
.global trap
.thumb_func
.type trap, %function
trap:
udf #0
"""


# What runs the assembly above.
CORTEX_M = [core for core in CORES if core.startswith("m")]


@pytest.fixture(scope="module", params=CORTEX_M)
def odd_functions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmulatedKernels]:
    _require_tools(request.param)
    source: Path = tmp_path_factory.mktemp("source") / "odd.S"
    source.write_text(NOPS)
    names = ("nops_0", "nops_1000", "scribble", "trap")
    with EmulatedKernels(request.param, "plain", names, [source]) as built:
        yield built


def test_counts_are_exact(odd_functions: EmulatedKernels) -> None:
    calls = [Call("nops_0", ()), Call("nops_1000", ()), Call("nops_1000", (1, 2))] * 3
    counts = [outcome.instructions for outcome in odd_functions.run(calls)]
    assert all(abs(a - b) <= 1 for a, b in zip(counts, [0, 1000, 1000] * 3, strict=True)), counts


def test_writes_outside_the_arguments_are_found(odd_functions: EmulatedKernels) -> None:
    with pytest.raises(BuildError, match="scribble wrote outside"):
        odd_functions.call("scribble", np.zeros(1, np.int32))


def test_a_fault_is_an_error(odd_functions: EmulatedKernels) -> None:
    with pytest.raises(BuildError, match="70: a fault"):
        odd_functions.call("trap")

"""Helium kernels: their packing, and every kernel against its plain twin on an emulated M55.

Both variants run the same calls on the same core; the plain kernels are compared with the formulas
of docs/arithmetic.md elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from quads_mcu import model_format
from quads_mcu.export import helium, kernels
from quads_mcu.report import emulated_kernel
from quads_mcu.report.emulated_kernel import CORES, Call, EmulatedKernels, Outcome, Record

VARIANTS = ("plain", "helium")
Int8 = NDArray[np.int8]


# --- packing -------------------------------------------------------------------------------------


def test_worked_examples() -> None:
    """The bytes of docs/arithmetic.md, section 9, written down there by hand."""
    indices = np.zeros((8, 16), np.uint8)
    indices[:4, :2] = [[1, 2], [3, 4], [5, 6], [7, 0]]
    assert bytes(helium.pack(indices, 3)[0, 0, 0:24:8]) == bytes.fromhex("D16335")
    assert bytes(helium.pack(indices, 4)[0, 0, 0:32:8]) == bytes.fromhex("21436507")
    indices[:4, :2] = [[1, 2], [3, 0], [2, 2], [0, 1]]
    assert bytes(helium.pack(indices, 2)[0, 0, 0:16:8]) == bytes.fromhex("394A")


@pytest.mark.parametrize("bits", model_format.BITS)
@pytest.mark.parametrize(("n_out", "n_in"), [(1, 8), (8, 16), (31, 24), (12, 40)])
def test_every_index_has_its_place(n_out: int, n_in: int, bits: int) -> None:
    """Set one index at a time and read it back where the table of section 9 says it lies."""
    rng = np.random.default_rng(bits)
    indices = rng.integers(0, 1 << bits, (n_out, n_in), dtype=np.uint8)
    packed = helium.pack(indices, bits)
    assert packed.shape == (-(-n_out // 8), -(-n_in // 16), 16 * bits)
    assert packed.nbytes == helium.index_bytes(n_out, n_in, bits)
    whole = np.zeros((packed.shape[0] * 8, packed.shape[1] * 16), int)
    for n, k in np.ndindex(*whole.shape):
        half = packed[n // 8, k // 16, n % 8 // 4 * 8 * bits :]
        whole[n, k] = _index(half, n % 4, k % 16, bits)
    np.testing.assert_array_equal(whole[:n_out, :n_in], indices)
    assert not whole[n_out:].any()
    assert not whole[:, n_in:].any()


def _index(half: NDArray[np.uint8], c: int, k: int, bits: int) -> int:
    if bits == 8:
        return int(half[16 * c + k])
    j = k // 2
    if bits == 4:
        pair = int(half[8 * c + j])
    elif bits == 2:
        pair = int(half[8 * (c // 2) + j]) >> 4 * (c % 2) & 15
    elif c < 3:
        pair = int(half[8 * c + j]) & 63
    else:
        pair = sum((int(half[8 * r + j]) >> 6) << 2 * r for r in range(3))
    return pair >> bits * (k % 2) & (1 << bits) - 1


# --- kernels -------------------------------------------------------------------------------------


# As the encoder calls it: the input is the upper half of the output's memory.
IN_PLACE = """
#include "kernels/quads_kernels.h"
void in_place(int16_t *y, size_t n, const int16_t *gelu, const int8_t *positions, int32_t m);
void in_place(int16_t *y, size_t n, const int16_t *gelu, const int8_t *positions, int32_t m) {
  quads_gelu_positions_s16((const int8_t *)y + n, n, gelu, positions, m, y);
}
"""


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmulatedKernels]]:
    if tool := CORES["m55"].missing_tool:
        pytest.skip(f"{tool} is not installed")
    source = tmp_path_factory.mktemp("source") / "in_place.c"
    source.write_text(IN_PLACE)
    with contextlib.ExitStack() as stack:
        yield {
            variant: stack.enter_context(EmulatedKernels("m55", variant, ("in_place",), [source]))
            for variant in VARIANTS
        }


def compare(
    cores: dict[str, EmulatedKernels], calls: dict[str, list[Call]], arrays: int
) -> dict[str, list[Outcome]]:
    """Run each variant's calls; their first `arrays` arrays must end equal."""
    outcomes = {variant: cores[variant].run(calls[variant]) for variant in VARIANTS}
    for call, plain, fast in zip(calls["plain"], *outcomes.values(), strict=True):
        sizes = [argument for argument in call.arguments if isinstance(argument, int)]
        for expected, found in zip(plain.arrays[:arrays], fast.arrays[:arrays], strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=str(sizes))
    return outcomes


def fill(kind: str, rng: np.random.Generator, *shape: int) -> Int8:
    if kind == "random":
        return rng.integers(-128, 128, shape, dtype=np.int8)
    if kind == "extremes":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return np.full(shape, -128, np.int8)


def weights(
    kind: str, rng: np.random.Generator, n_out: int, n_in: int, bits: int, head: bool = False
) -> dict[str, Record]:
    """Return the same random layer in the packing of each variant."""
    indices = rng.integers(0, 1 << bits, (n_out, n_in), dtype=np.uint8)
    centroids = fill(kind, rng, 1 << bits)
    bias = rng.integers(-(2**24), 2**24, n_out, dtype=np.int32)
    channels = n_out if rng.integers(2) else 1
    largest = 2**31 if kind == "extremes" else 2**24
    multiplier = None if head else rng.integers(0, largest, channels).astype(np.int32)
    return {
        variant: emulated_kernel.linear(
            kernels.kernels(variant).pack(indices, bits),
            centroids, bias, multiplier, n_out, n_in, bits,
        )
        for variant in VARIANTS
    }  # fmt: skip


def workspace(n_bytes: int) -> NDArray[np.uint8]:
    return np.random.default_rng(n_bytes).integers(0, 256, -(-n_bytes // 8) * 8, np.uint8)


# (rows, n_in, first_out, n_out): rows decoded on the fly (to 3), by fours with every remainder, and
# around the number that one round of sums holds; whole and half blocks of inputs, more blocks than
# the unrolled loop; whole and half groups of channels, more than the sums hold.
SHAPES = [
    (0, 16, 0, 8), (1, 8, 0, 4), (1, 24, 4, 8), (1, 1536, 0, 12), (1, 40, 0, 300), (2, 16, 4, 4),
    (3, 120, 0, 136), (4, 8, 0, 4), (4, 16, 0, 8), (5, 24, 4, 4), (6, 128, 8, 8), (7, 136, 0, 20),
    (8, 144, 4, 12), (9, 1280, 0, 4), (63, 40, 0, 4), (64, 48, 0, 8), (65, 24, 0, 4),
    (66, 16, 0, 4), (67, 72, 0, 4), (68, 80, 0, 4), (69, 16, 0, 4), (128, 8, 0, 4),
    (131, 32, 0, 8), (150, 96, 0, 8),
]  # fmt: skip


@pytest.mark.parametrize("bits", model_format.BITS)
@pytest.mark.parametrize("kind", ["random", "extremes", "minimum"])
def test_linear_layers(cores: dict[str, EmulatedKernels], kind: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    s8: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    s16: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    for rows, n_in, first, n_out in SHAPES:
        layer = weights(kind, rng, first + n_out + 4, n_in, bits)
        whole = weights(kind, rng, n_out, n_in, bits)
        x = fill(kind, rng, rows, n_in)
        y = np.full((rows, n_out + 4), 99, np.int8)
        residual = rng.integers(-32768, 32768, (rows, n_out), dtype=np.int16)
        for variant in VARIANTS:
            work = workspace(kernels.kernels(variant).linear_bytes(rows, n_in))
            arguments = (x, n_in, rows, layer[variant], first, n_out, y, n_out + 4, work)
            s8[variant].append(Call("quads_linear_s8", arguments))
            arguments = (x, rows, whole[variant], residual, work)
            s16[variant].append(Call("quads_linear_add_s16", arguments))
    compare(cores, s8, 2)
    compare(cores, s16, 2)


@pytest.mark.parametrize("bits", model_format.BITS)
def test_convolution_rows_overlap(cores: dict[str, EmulatedKernels], bits: int) -> None:
    rng = np.random.default_rng(bits)
    calls: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    for rows, n_in, stride in [(1, 120, 40), (13, 120, 40), (70, 24, 8), (9, 288, 192)]:
        layer = weights("random", rng, 8, n_in, bits)
        x = fill("random", rng, (rows - 1) * stride + n_in)
        y = np.zeros((rows, 8), np.int8)
        for variant in VARIANTS:
            work = workspace(kernels.kernels(variant).linear_bytes(rows, n_in))
            arguments = (x, stride, rows, layer[variant], 0, 8, y, 8, work)
            calls[variant].append(Call("quads_linear_s8", arguments))
    compare(cores, calls, 2)


@pytest.mark.parametrize("bits", model_format.BITS)
def test_head(cores: dict[str, EmulatedKernels], bits: int) -> None:
    rng = np.random.default_rng(bits)
    calls: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    for n_out in range(1, 18):
        n_in = 8 * int(rng.integers(1, 50))
        layer = weights("random", rng, n_out, n_in, bits, head=True)
        pooled = rng.choice(np.array([-8191, -1, 0, 1, 8191], np.int16), n_in)
        logits = np.zeros(n_out, np.int32)
        for variant in VARIANTS:
            work = workspace(kernels.kernels(variant).head_bytes(n_in))
            arguments = (pooled, layer[variant], 0, n_out, logits, work)
            calls[variant].append(Call("quads_head", arguments))
    compare(cores, calls, 2)


@pytest.mark.parametrize("kind", ["random", "extremes", "minimum"])
def test_attention(cores: dict[str, EmulatedKernels], kind: str) -> None:
    rng = np.random.default_rng(6)
    calls: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    heads = [(n, 8 * (1 + n % 9)) for n in range(1, 20)] + [(75, 64), (150, 24), (301, 8)]
    for n_tokens, d_head in heads:
        query = fill(kind, rng, n_tokens, d_head + 8)
        key, value = fill(kind, rng, n_tokens, d_head), fill(kind, rng, n_tokens, d_head)
        score = int(rng.choice([0, 1000, 2**20, 2**31 - 1]))
        for variant in VARIANTS:
            work = workspace(helium.attention_bytes(n_tokens, d_head) + 16 * n_tokens)
            if variant == "helium":
                work = workspace(helium.attention_bytes(n_tokens, d_head))
            arguments = (query, d_head + 8, key, value, n_tokens, d_head, score, 9000, work)
            calls[variant].append(Call("quads_attention_head", arguments))
    compare(cores, calls, 3)


@pytest.mark.parametrize("rows", ["random", "small", "highest", "equal", "one low"])
def test_layer_norm(cores: dict[str, EmulatedKernels], rows: str) -> None:
    rng = np.random.default_rng(len(rows))
    calls: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    for d in (8, 24, 96, 384, 1280):
        x = rng.integers(-32768, 32768, (3, d)).astype(np.int16)
        if rows == "small":
            x = rng.integers(-1, 2, (3, d)).astype(np.int16)
        elif rows != "random":
            x[:] = -32768 if rows == "equal" else 32767
            x[:, ::2] = {"highest": -32768, "equal": -32768, "one low": 32767}[rows]
            x[:, 3] = -32768
        gamma = rng.integers(-800, 801, d).astype(np.int16)
        beta = rng.integers(-(2**24), 2**24, d).astype(np.int32)
        record = emulated_kernel.norm(gamma, beta, int(rng.choice([1, 2**31])), 12)
        y = np.zeros((3, d), np.int8)
        for variant in VARIANTS:
            arguments = (x, 3, d, record, int(np.sqrt(float(d)) * 2**26), y)
            calls[variant].append(Call("quads_layer_norm", arguments))
    compare(cores, calls, 2)


def test_tables_and_sums(cores: dict[str, EmulatedKernels]) -> None:
    rng = np.random.default_rng(1)
    calls: dict[str, list[Call]] = {variant: [] for variant in VARIANTS}
    table, wide = fill("random", rng, 256), rng.integers(-32768, 32768, 256).astype(np.int16)
    for n in (0, 8, 16, 24, 40, 336):
        both = fill("random", rng, 2 * n).view(np.int16)  # the upper half is the input
        for variant in VARIANTS:
            x = fill("random", np.random.default_rng(n), n)
            calls[variant].append(Call("quads_gelu_s8", (x, n, table)))
            arguments = (x, n, wide, x, 317, np.zeros(n, np.int16))
            calls[variant].append(Call("quads_gelu_positions_s16", arguments))
            calls[variant].append(Call("in_place", (both, n, wide, x, -40)))
    for rows, d in ((0, 8), (1, 8), (7, 24), (150, 96)):
        y, sums = fill("minimum", rng, rows, d), rng.integers(-9, 9, d).astype(np.int32)
        for variant in VARIANTS:
            calls[variant].append(Call("quads_sum_rows", (y, rows, d, sums)))
    compare(cores, calls, 4)

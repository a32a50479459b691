"""Attention, LayerNorm and tables of every kernel variant, on its emulated cores.

Expected values are the formulas of docs/arithmetic.md, sections 3 to 7, in numpy's int64.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from quads_mcu.export import kernels
from quads_mcu.report import emulated_kernel
from quads_mcu.report.emulated_kernel import CORES, Call, EmulatedKernels

Int = NDArray[np.int64]
VARIANTS = [(core, variant) for core in CORES for variant in CORES[core].kernels]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def emulated(request: pytest.FixtureRequest) -> Iterator[tuple[EmulatedKernels, str]]:
    """Return the kernels of a variant on a core, and the variant's name."""
    for tool in (emulated_kernel.COMPILER, emulated_kernel.EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    core, variant = request.param
    with EmulatedKernels(core, variant) as built:
        yield built, variant


def requantize(a: Int, m: Int | int) -> Int:
    return (a * m + 2**31) >> 32


# --- attention -----------------------------------------------------------------------------------

# (n_tokens, d_head, stride): one token, one pair, blocks of queries that end early or with an odd
# one, tokens around multiples of 4 and 8, the presets' heads, a head as wide as the model.
HEADS = [
    (1, 24, 48), (2, 24, 96), (3, 32, 96), (4, 8, 64), (5, 64, 64), (7, 8, 8), (8, 16, 32),
    (9, 64, 384), (33, 40, 80), (49, 24, 72), (50, 128, 256), (150, 32, 96), (75, 64, 384),
]  # fmt: skip


def attention_arguments(
    fill: str, n_tokens: int, d_head: int, stride: int
) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int8], int, int]:
    """Return query rows, keys, values, score multiplier and value multiplier."""
    rng = np.random.default_rng(n_tokens * 1000 + d_head)
    query = rng.integers(-128, 128, (n_tokens, stride), dtype=np.int8)
    key = rng.integers(-128, 128, (n_tokens, d_head), dtype=np.int8)
    value = rng.integers(-128, 128, (n_tokens, d_head), dtype=np.int8)
    score, weight = 2**32 * 64 // (16 * 2000), 4096
    if fill == "sharp":  # the greatest score alone has a power
        score = 2**31 - 1
    elif fill == "flat":  # all powers are 1.0, outputs saturate
        score, weight = 0, 3 * 4096
        value[:] = rng.choice(np.array([-128, 127], np.int8), d_head)
    elif fill == "extremes":
        query = rng.choice(np.array([-128, 127], np.int8), query.shape)
        key = np.repeat(rng.choice(np.array([[-128], [127]], np.int8), n_tokens), d_head)
        key = key.reshape(n_tokens, d_head)
        value[:] = -128
        score = 2**32 * 64 // (16 * 128 * 128 * d_head)
    return query, key, value, score, weight


def attended(query: Int, key: Int, value: Int, score: int, weight: int) -> Int:
    scores = query @ key.T
    z = requantize((scores.max(axis=1, keepdims=True) - scores) << 4, score)
    table = np.round(8192 * 2 ** (-np.arange(64) / 64)).astype(np.int64)
    powers = np.where(z >> 6 > 13, 0, table[z & 63] >> np.minimum(z >> 6, 14))
    total = powers.sum(axis=1, keepdims=True)
    n = np.array([[32 - int(each).bit_length()] for each in total.ravel()])
    multiplier = (weight * (0xFFFFFFFF // ((total << n) >> 16))) >> (28 - n)
    return requantize(powers @ value, multiplier).clip(-128, 127)


@pytest.mark.parametrize("fill", ["random", "sharp", "flat", "extremes"])
def test_attention_head(emulated: tuple[EmulatedKernels, str], fill: str) -> None:
    core, variant = emulated
    calls, expected = [], []
    for n_tokens, d_head, stride in HEADS:
        query, key, value, score, weight = attention_arguments(fill, n_tokens, d_head, stride)
        n_bytes = kernels.kernels(variant).attention_bytes(n_tokens, d_head, stride)
        workspace = np.random.default_rng(1).integers(0, 256, -(-n_bytes // 8) * 8, np.uint8)
        arguments = (query, stride, key, value, n_tokens, d_head, score, weight, workspace)
        calls.append(Call("quads_attention_head", arguments))
        wanted = query.astype(np.int64)
        wanted[:, :d_head] = attended(
            wanted[:, :d_head], key.astype(np.int64), value.astype(np.int64), score, weight
        )
        expected.append(wanted)
    for head, outcome, wanted in zip(HEADS, core.run(calls), expected, strict=True):
        np.testing.assert_array_equal(outcome.arrays[0], wanted, err_msg=str(head))


# --- LayerNorm -----------------------------------------------------------------------------------

ROWS = ("random", "small", "highest", "alternating", "one low")


def norm_rows(kind: str, rng: np.random.Generator, d: int) -> NDArray[np.int16]:
    """Return int16 (3, d)."""
    if kind == "random":
        return rng.integers(-32768, 32768, (3, d)).astype(np.int16)
    if kind == "small":
        return rng.integers(-1, 2, (3, d)).astype(np.int16)
    row = np.full(d, 32767, np.int16)
    if kind == "alternating":
        row[::2] = -32768
    elif kind == "one low":
        row[3] = -32768
    return np.repeat(row[None], 3, axis=0)


def layer_norm(x: Int, gamma: Int, beta: Int, epsilon: int, shift: int, sqrt_d: int) -> Int:
    d = x.shape[1]
    centred = x - (2 * x.sum(axis=1, keepdims=True) + d) // (2 * d)
    out = np.empty_like(x)
    for row, c in zip(out, centred, strict=True):
        vs = int((c * c).sum()) + epsilon
        n = (32 - vs.bit_length()) & ~1
        root = int(np.floor(np.sqrt(float(vs << n if n >= 0 else vs >> -n))))
        h = requantize(c << (14 + n // 2), sqrt_d // root << 2)
        row[:] = (h * gamma + beta + (1 << (shift - 1))) >> shift
    return out.clip(-128, 127)


@pytest.mark.parametrize("rows", ROWS)
def test_layer_norm(emulated: tuple[EmulatedKernels, str], rows: str) -> None:
    core, _ = emulated
    rng = np.random.default_rng(len(rows))
    calls, expected = [], []
    for d in (8, 24, 96, 384, 1280):
        for shift in (1, 2, 15, 30):
            x = norm_rows(rows, rng, d)
            # |h| <= sqrt(d) 2^10, and the sum with beta stays within int32
            most = min(32767, 2**30 // int(np.sqrt(d) * 1024))
            gamma = rng.integers(-most, most + 1, d).astype(np.int16)
            beta = rng.integers(-(2**29), 2**29, d).astype(np.int32)
            epsilon = int(rng.choice([1, 1000, 2**31]))
            sqrt_d = int(np.sqrt(float(d)) * 2**26)
            y = np.zeros((3, d), np.int8)
            record = emulated_kernel.norm(gamma, beta, epsilon, shift)
            calls.append(Call("quads_layer_norm", (x, 3, d, record, sqrt_d, y)))
            wide = (x.astype(np.int64), gamma.astype(np.int64), beta.astype(np.int64))
            expected.append(layer_norm(*wide, epsilon, shift, sqrt_d))
    for call, outcome, wanted in zip(calls, core.run(calls), expected, strict=True):
        np.testing.assert_array_equal(outcome.arrays[1], wanted, err_msg=str(call.arguments[2]))


# --- tables, sums --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 16, 40, 1536])
def test_gelu_tables(emulated: tuple[EmulatedKernels, str], n: int) -> None:
    core, _ = emulated
    rng = np.random.default_rng(n)
    x = np.resize(np.arange(-128, 128), n).astype(np.int8)
    table = rng.integers(-128, 128, 256).astype(np.int8)
    wide_table = rng.integers(-32768, 32768, 256).astype(np.int16)
    positions = rng.integers(-128, 128, n).astype(np.int8)
    residual = np.zeros(n, np.int16)
    outcomes = core.run(
        [
            Call("quads_gelu_s8", (x, n, table)),
            Call("quads_gelu_positions_s16", (x, n, wide_table, positions, 300, residual)),
        ]
    )
    index = x.astype(np.int64) + 128
    np.testing.assert_array_equal(outcomes[0].arrays[0], table[index])
    wanted = wide_table[index].astype(np.int64) + 300 * positions.astype(np.int64)
    np.testing.assert_array_equal(outcomes[1].arrays[3], wanted.clip(-32768, 32767))


@pytest.mark.parametrize(("rows", "d"), [(1, 8), (2, 24), (7, 96), (255, 8), (300, 16)])
def test_sums_and_mean(emulated: tuple[EmulatedKernels, str], rows: int, d: int) -> None:
    core, _ = emulated
    rng = np.random.default_rng(rows)
    y = rng.integers(-128, 128, (rows, d), dtype=np.int8)
    y[:, 0], y[:, 1] = -128, 127
    sums = rng.integers(-1000, 1000, d).astype(np.int32)
    pooled = np.zeros(d, np.int16)
    multiplier = 2**31 - 1
    outcomes = core.run(
        [
            Call("quads_sum_rows", (y, rows, d, sums)),
            Call("quads_mean_pool", (sums, d, multiplier, pooled)),
        ]
    )
    np.testing.assert_array_equal(outcomes[0].arrays[1], sums + y.astype(np.int64).sum(axis=0))
    wanted = requantize(sums.astype(np.int64) << 8, multiplier).clip(-8191, 8191)
    np.testing.assert_array_equal(outcomes[1].arrays[1], wanted)

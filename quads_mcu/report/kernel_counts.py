"""Counts of executed instructions per kernel call, measured on emulated cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from quads_mcu.console import Progress
from quads_mcu.device import boards, build
from quads_mcu.device.boards import Board
from quads_mcu.export.blank import blank
from quads_mcu.export.kernels import Kernels, attention_pool_bytes, kernels
from quads_mcu.export.work import Call
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.report import costs, emulated_kernel, profile
from quads_mcu.report.emulated_kernel import CORES, Array, EmulatedKernels, Record

# Shapes that costs are fitted to; n_out x n_in covers every preset's matrices at 40 and 80 mels.
FIT_ROWS = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 18, 21, 24, 27, 30, 32, 38, 50, 75, 100,
)  # fmt: skip
FIT_SHAPES = (
    (8, 64), (16, 120), (24, 72), (32, 96), (32, 128), (40, 120), (64, 64), (64, 240), (64, 288),
    (64, 384), (96, 96), (128, 192), (192, 240), (32, 768), (48, 1152), (40, 1536), (384, 96),
    (256, 64), (136, 128), (160, 104),
)  # fmt: skip
FIT_CLASSES = (2, 3, 4, 5, 6, 7, 8, 10, 15, 31, 64, 100, 129, 150)
# Half a second and more, the shortest window that [audio] allows.
FIT_TOKENS = (
    25, 26, 27, 28, 29, 30, 31, 32, 43, 50, 51, 62, 75, 76, 93, 98, 100, 125, 149, 150, 151, 200,
)  # fmt: skip
# (d_model, d_head)
FIT_HEADS = (
    (32, 8), (32, 16), (64, 24), (64, 32), (96, 32), (128, 32), (160, 40), (192, 48), (192, 64),
    (384, 64),
)  # fmt: skip
FIT_WIDTHS = (
    8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 104, 120, 128, 144, 160, 192, 240, 256, 320, 384,
)  # fmt: skip
FIT_FRONTENDS = (
    (40, 100), (40, 200), (40, 300), (64, 100), (64, 200), (80, 100), (80, 200), (80, 300),
)  # fmt: skip
BITS = (2, 3, 4, 8)


def stand_in(board: Board) -> Board:
    """Return the emulated board that runs what is compiled for a chip's core; others as they are.

    Of a core that has no emulated board of its own it gets flags, kernels and frontend.
    """
    if not board.nearest:
        return board
    machine = boards.load(board.nearest)
    core = CORES.get(costs.core(board))
    if core is None or costs.core(machine) == costs.core(board):
        return machine
    toolchain = dataclasses.replace(machine.toolchain, flags=core.flags)
    return dataclasses.replace(
        machine, kernels=board.kernels, frontend=board.frontend, toolchain=toolchain
    )


def measure(core: EmulatedKernels, variant: str, calls: Sequence[Call]) -> list[int]:
    """Return the executed instructions of each call with random operands.

    Raises:
        BuildError: as EmulatedKernels.run.
    """
    chosen = kernels(variant)
    rng = np.random.default_rng(0)
    outcomes = core.run([_harness_call(call, chosen, rng) for call in calls])
    return [outcome.instructions for outcome in outcomes]


def fit(board: Board, progress: Progress) -> costs.Costs:
    """Measure frontend and kernels over the FIT shapes on a board's core; return the fitted costs.

    Raises:
        BuildError: compiler or emulator are missing.
    """
    core_name, variant = costs.core(board), board.kernels
    compiler = build.find_compiler(board)[1]
    fits = {"frontend": _fit_frontend(board, progress)}
    groups = list(_groups())
    with EmulatedKernels(core_name, variant) as core:
        for index, calls in enumerate(groups):
            progress(f"counting on {core_name}, {variant}", index, len(groups))
            counts = measure(core, variant, calls)
            measured: dict[str, list[tuple[Call, int]]] = {}
            for call, count in zip(calls, counts, strict=True):
                measured.setdefault(costs.key(call), []).append((call, count))
            for name, pairs in measured.items():
                few = pairs[0][0].rows if name.count("/") == 2 else 0
                fits[name] = costs.fit(pairs, costs.forms(pairs[0][0].kernel, few))
    progress(f"counting on {core_name}, {variant}", len(groups), len(groups))
    return costs.Costs(core_name, variant, compiler, fits)


def _fit_frontend(board: Board, progress: Progress) -> costs.Fit:
    """Count the frontend inside firmware with the smallest encoder."""
    measured = []
    for n_mels, n_frames in FIT_FRONTENDS:
        dims = Dimensions(n_mels, n_frames, d_model=8, n_heads=1, n_layers=1, n_classes=2)
        found = profile.measure(blank(dims, 4), board, progress)
        call = Call("frontend", 0, "frontend", n_frames, n_mels)
        measured.append((call, int(found.instructions[0, 0])))
    return costs.fit(measured, costs.forms("frontend"))


def _groups() -> Iterator[list[Call]]:
    most = max(FIT_ROWS)
    for bits in BITS:
        for kernel in ("linear_s8", "linear_add_s16"):
            yield [
                Call(kernel, 0, "", rows, n, k, bits)
                for rows in FIT_ROWS
                for n, k in FIT_SHAPES
                if rows * n * k < most * 40 * 1536
            ]
        yield [
            Call("head", 0, "", 1, n, d, bits) for n in FIT_CLASSES for d in FIT_WIDTHS if d >= 32
        ]
    yield [
        Call("attention_head", 0, "", t, d_model, d_head)
        for t in FIT_TOKENS
        for d_model, d_head in FIT_HEADS
    ]
    yield [Call("attention_pool", 0, "", t, d) for t in FIT_TOKENS for d in FIT_WIDTHS]
    for kernel in ("layer_norm", "sum_rows"):
        yield [Call(kernel, 0, "", rows, d) for rows in (1, 2, 7, 32, 50) for d in FIT_WIDTHS]
    for kernel in ("gelu_s8", "gelu_positions_s16", "mean_pool"):
        yield [Call(kernel, 0, "", 1, n) for n in (*FIT_WIDTHS, 1000, 1536, 12288)]


def _harness_call(call: Call, chosen: Kernels, rng: np.random.Generator) -> emulated_kernel.Call:
    rows, n, k = call.rows, call.n_out, call.n_in

    def int8(*shape: int) -> Array:
        return rng.integers(-128, 128, shape).astype(np.int8)

    def workspace(size: int) -> Array:
        return np.zeros(max(8, size), np.uint8)

    arguments: tuple[emulated_kernel.Argument, ...]
    match call.kernel:
        case "linear_s8":
            w, work = _linear(call, chosen, rng), workspace(chosen.linear_bytes(rows, k))
            arguments = (int8(rows, k), k, rows, w, 0, n, np.zeros((rows, n), np.int8), n, work)
        case "linear_add_s16":
            w, work = _linear(call, chosen, rng), workspace(chosen.linear_bytes(rows, k))
            arguments = (int8(rows, k), rows, w, np.zeros((rows, n), np.int16), work)
        case "head":
            w, work = _linear(call, chosen, rng), workspace(chosen.head_bytes(k))
            pooled = rng.integers(-8191, 8192, k).astype(np.int16)
            arguments = (pooled, w, 0, n, np.zeros(n, np.int32), work)
        case "attention_head":
            work = workspace(chosen.attention_bytes(rows, k, n))
            score = round(96 / 16 / (40**2 * k**0.5) * 2**32 / 16)
            arguments = (int8(rows, n), n, int8(rows, k), int8(rows, k), rows, k, score, 8192, work)
        case "attention_pool":
            work = workspace(attention_pool_bytes(rows))
            score = round(96 / 16 / (40**2 * n**0.5) * 2**32 / 16)
            pooled = np.zeros(n, np.int16)
            arguments = (int8(n), int8(rows, n), rows, n, score, 1 << 17, pooled, work)
        case "layer_norm":
            norm = emulated_kernel.norm(
                rng.integers(-4000, 4000, n).astype(np.int16),
                rng.integers(-100000, 100000, n).astype(np.int32), 1000, 12,
            )  # fmt: skip
            x = rng.normal(0, 3000, (rows, n)).clip(-32768, 32767).astype(np.int16)
            sqrt_d = int((n << 52) ** 0.5)
            arguments = (x, rows, n, norm, sqrt_d, np.zeros((rows, n), np.int8))
        case "sum_rows":
            arguments = (int8(rows, n), rows, n, np.zeros(n, np.int32))
        case "gelu_s8":
            arguments = (int8(n), n, int8(256))
        case "gelu_positions_s16":
            gelu = rng.integers(-32768, 32768, 256).astype(np.int16)
            arguments = (int8(n), n, gelu, int8(n), 40, np.zeros(n, np.int16))
        case "mean_pool":
            sums = rng.integers(-9000, 9000, n).astype(np.int32)
            arguments = (sums, n, 1 << 24, np.zeros(n, np.int16))
        case other:
            raise ValueError(other)
    return emulated_kernel.Call("quads_" + call.kernel, arguments)


def _linear(call: Call, chosen: Kernels, rng: np.random.Generator) -> Record:
    n, k, bits = call.n_out, call.n_in, call.bits
    indices = rng.integers(0, 1 << bits, (n, k), dtype=np.uint8)
    centroids = np.sort(rng.integers(-128, 128, 1 << bits)).astype(np.int8)
    bias = rng.integers(-100000, 100000, n).astype(np.int32)
    multiplier = None if call.kernel == "head" else np.array([2**21], np.int32)
    packed = chosen.pack(indices, bits)
    return emulated_kernel.linear(packed, centroids, bias, multiplier, n, k, bits)

"""Whole models on emulated cores: logits, and every byte of the planned arena."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from random_model import random_model

from quads_mcu.export import csource, planner
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions, dimensions
from quads_mcu.paths import data_dir
from quads_mcu.report.emulated_kernel import CORES, Call, EmulatedKernels, Outcome

SMALL = Dimensions(n_mels=8, n_frames=46, d_model=24, n_heads=3, n_layers=2, n_classes=5)
TINY = Dimensions(n_mels=8, n_frames=2, d_model=8, n_heads=1, n_layers=1, n_classes=2)
POOLS = Dimensions(8, 46, 24, 3, 2, 9, pools=(2, 3, 4))
WAKEWORDS = dimensions("d96x2", n_mels=80, window_s=3, n_classes=31)
PAPER = dimensions("d384x4", n_mels=80, window_s=3, n_classes=31)
SHIM = """
#include "model.h"
#include "quads.h"
int32_t infer(uint8_t *arena, const int8_t *mel, int32_t *logits);
int32_t infer(uint8_t *arena, const int8_t *mel, int32_t *logits) {
  quads_t q;
  const int status = quads_init(&q, &quads_model, arena, QUADS_MODEL_ARENA_BYTES);
  return status || quads_set_features(&q, mel) || quads_infer(&q, logits, NULL);
}
"""
VARIANTS = [(core, variant) for core in CORES for variant in CORES[core].kernels]


class _Emulated:
    """A random model on a core."""

    def __init__(self, dims: Dimensions, core: str, variant: str, folder: Path, bits: int = 4):
        if tool := CORES[core].missing_tool:
            pytest.skip(f"{tool} is not installed")
        self.model = random_model(dims, bits=bits, seed=5)
        self.plan = planner.plan(dims, variant)
        csource.write_sources(self.model, folder, variant)
        shim = folder / "shim.c"
        shim.write_text(SHIM, encoding="utf-8")
        source = data_dir("firmware") / "src"
        files = [shim, folder / "model_data.c", source / "quads.c", source / "encoder.c",
                 *sorted((source / "frontend").glob("*.c"))]  # fmt: skip
        self._built = (core, variant, ["infer"], files, [folder])

    def run(self, mel: NDArray[np.int8], fills: list[int]) -> list[Outcome]:
        """Infer once for each fill of the arena."""
        calls = []
        for fill in fills:
            arena = np.full(self.plan.arena_bytes, fill, np.uint8)
            logits = np.full(self.model.dims.n_classes, 99, np.int32)
            calls.append(Call("infer", (arena, mel, logits)))
        with EmulatedKernels(*self._built) as kernels:
            return kernels.run(calls)


def _mel(dims: Dimensions) -> NDArray[np.int8]:
    rng = np.random.default_rng(1)
    return rng.normal(-40, 30, (dims.n_frames, dims.n_mels)).clip(-128, 127).astype(np.int8)


@pytest.fixture(params=VARIANTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def core_and_variant(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    yield request.param


@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize("dims", [TINY, SMALL, POOLS], ids=["tiny", "small", "pools"])
def test_logits_equal_the_reference_and_the_arena_is_used_to_its_last_byte(
    core_and_variant: tuple[str, str], dims: Dimensions, bits: int, tmp_path: Path
) -> None:
    """Guard bytes around the arena find what is written outside it (EmulatedKernels.run)."""
    emulated = _Emulated(dims, *core_and_variant, tmp_path, bits)
    mel = _mel(dims)
    fills = [0x00, 0xFF]
    outcomes = emulated.run(mel, fills)
    expected = Reference(emulated.model).logits(mel[None])[0]
    touched = np.zeros(emulated.plan.arena_bytes, bool)
    for fill, outcome in zip(fills, outcomes, strict=True):
        arena, _, logits = outcome.arrays
        assert outcome.value == 0
        np.testing.assert_array_equal(logits, expected)
        touched |= arena != fill
    if dims == TINY:  # one token: most of a workspace is room for the rows of a group
        return
    high_water = int(np.flatnonzero(touched)[-1]) + 1
    assert emulated.plan.arena_bytes - planner.ALIGNMENT < high_water
    # What is not touched is padding: of tensors to ALIGNMENT, of rows to whole groups.
    assert touched.mean() > 0.9


# Executed instructions of the encoder, and bytes of arena.
LIMITS = {
    ("m4", "d96x2"): (52_500_000, 82_000),
    ("m7", "d96x2"): (52_500_000, 82_000),
    ("m4", "d384x4"): (1_044_000_000, 270_000),
    ("m7", "d384x4"): (1_044_000_000, 270_000),
}


@pytest.mark.slow
@pytest.mark.parametrize(("core", "preset"), LIMITS)
def test_whole_models_stay_within_their_limits(core: str, preset: str, tmp_path: Path) -> None:
    dims = WAKEWORDS if preset == "d96x2" else PAPER
    emulated = _Emulated(dims, core, "dsp", tmp_path)
    mel = _mel(dims)
    (outcome,) = emulated.run(mel, [0xA5])
    np.testing.assert_array_equal(outcome.arrays[2], Reference(emulated.model).logits(mel[None])[0])
    instructions, arena_bytes = LIMITS[core, preset]
    assert outcome.instructions <= instructions
    assert emulated.plan.arena_bytes <= arena_bytes

"""The same C, unchanged, on an emulated Xtensa core: bit-equal to the references and to this PC.

`make test-xtensa` runs these alone. Whole models take every kernel through every step; the arenas
are compared, so that intermediate tensors count too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from firmware_build import DIMS
from random_model import random_model
from xtensa_build import (
    ICOUNT,
    PLAIN,
    TICKS_PER_INSTRUCTION,
    Kernels,
    build_host,
    build_xtensa,
    require_xtensa,
    run_host,
    run_xtensa,
)

from quads_mcu.audio import frontend
from quads_mcu.device import boards
from quads_mcu.export import csource
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions, dimensions
from quads_mcu.report import analysis

ESP = Path(__file__).resolve().parent / "esp_idf"
SIZES = {
    "2 bit": (DIMS, 2),
    "3 bit": (replace(DIMS, d_model=24, n_heads=3, n_layers=1, n_frames=30), 3),
    "4 bit": (DIMS, 4),
    "8 bit": (replace(DIMS, n_heads=4, n_classes=2), 8),
    "80 mels": (replace(DIMS, n_mels=80, d_model=40, n_heads=5), 4),
    "least": (Dimensions(n_mels=40, n_frames=2, d_model=8, n_heads=1, n_layers=1, n_classes=2), 4),
    "d64x2, 3 s": (
        Dimensions(n_mels=80, n_frames=300, d_model=64, n_heads=2, n_layers=2, n_classes=31),
        4,
    ),
}
FEATURES = {
    "random": lambda rng, shape: rng.integers(-128, 128, shape),
    "greatest": lambda rng, shape: np.full(shape, 127),
    "least": lambda rng, shape: np.full(shape, -128),
    "alternating": lambda rng, shape: np.where(rng.random(shape) < 0.5, -128, 127),
}


# The kernels of ESP32 and ESP32-S3, with both halves on one core, and with a C twin of what only
# the vector unit of an ESP32-S3 can execute.
ESP_FLAGS = ("-DQUADS_KERNELS=QUADS_KERNELS_ESP", "-DQUADS_CORES=2")
ESP_FILES = (ESP / "one_core.c", ESP / "pie_dot.c")
KERNELS = {
    "plain": PLAIN,
    "esp": Kernels("esp", (*ESP_FLAGS, "-DQUADS_PIE=0"), ESP_FILES),
    "esp, vectors": Kernels("esp", (*ESP_FLAGS, "-DQUADS_PIE=1"), ESP_FILES),
}
RUNS = [("plain", size) for size in SIZES]
RUNS += [
    (kernels, size) for kernels in KERNELS if kernels != "plain" for size in ("3 bit", "80 mels")
]


@pytest.mark.parametrize(("kernels", "size"), RUNS)
def test_xtensa_equals_the_references(tmp_path: Path, size: str, kernels: str) -> None:
    require_xtensa()
    dims, bits = SIZES[size]
    variant = KERNELS[kernels]
    model = random_model(dims, bits, seed=len(size))
    source = tmp_path / "source"
    csource.write_sources(model, source, variant.name)
    programs = (
        (build_xtensa(source, tmp_path, variant), run_xtensa),
        (build_host(source, tmp_path, variant), run_host),
    )
    rng = np.random.default_rng(4)
    for index, (kind, make) in enumerate(FEATURES.items()):
        mel = make(rng, (dims.n_frames, dims.n_mels)).astype(np.int8)
        pcm = (rng.normal(size=160 * dims.n_frames + 77) * 10.0 ** (index + 1)).clip(-32768, 32767)
        pcm = pcm.astype(np.int16)
        features = frontend.features(pcm, dims.n_mels, dims.n_frames)
        logits = Reference(model).logits(np.stack([features, mel]))
        outputs = []
        for program, run in programs:
            folder = tmp_path / f"{program.name}-{index}"
            folder.mkdir()
            pcm.tofile(folder / "pcm")
            mel.tofile(folder / "mel")
            run(program, folder)
            outputs.append(
                {name: (folder / name).read_bytes() for name in ("features", "logits", "arena")}
            )
        on_core, on_host = outputs
        assert on_core["features"] == features.tobytes(), kind
        assert on_core["logits"] == logits.astype(np.int32).tobytes(), kind
        assert on_core == on_host, kind


@pytest.mark.parametrize(
    ("preset", "window_s", "n_mels"), [("d64x2", 1.0, 40), ("d96x2", 2.0, 40), ("d96x2", 1.0, 80)]
)
def test_xtensa_executes_a_third_more_than_riscv(
    tmp_path: Path, preset: str, window_s: float, n_mels: int
) -> None:
    """What the estimates of ESP32 and ESP32-S3 take from: counts of RISC-V and this ratio."""
    require_xtensa()
    model = random_model(dimensions(preset, n_mels=n_mels, window_s=window_s, n_classes=31))
    source = tmp_path / "source"
    csource.write_sources(model, source)
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 3000, 160 * model.dims.n_frames).astype(np.int16)
    pcm.tofile(tmp_path / "pcm")
    np.zeros((model.dims.n_frames, n_mels), np.int8).tofile(tmp_path / "mel")
    run_xtensa(build_xtensa(source, tmp_path), tmp_path, ICOUNT)
    ticks = int(np.fromfile(tmp_path / "ticks", "<u4")[0])
    riscv = analysis.analyze(preset, model, boards.load("qemu-riscv32")).instructions
    assert riscv is not None
    assert ticks / TICKS_PER_INSTRUCTION / riscv == pytest.approx(1.3, abs=0.03)
    figures = boards.load("esp32s3").energy
    assert figures and figures.cycles_per_instruction == pytest.approx(1.3 * 1.3, abs=0.02)

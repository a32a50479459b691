"""Kernels for ESP32 and ESP32-S3: two cores and the vector unit, against the numpy reference.

The other core is a thread here and the vector unit's function a C twin; the assembly file itself is
executed by a model of its instructions (tests/pie.py). Nothing was ever executed on a chip.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xtensa_build
from c_build import FIRMWARE, STRICT_FLAGS, require_tool
from firmware_build import DIMS
from pie import Core
from random_model import random_model
from test_encoder import FILLS

from quads_mcu.audio import frontend
from quads_mcu.device import build
from quads_mcu.export import csource
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions

HERE = Path(__file__).resolve().parent
ASSEMBLY = FIRMWARE / "src" / "kernels" / "esp" / "quads_pie_dot_4.S"
MODELS = {
    "4 bit": (DIMS, 4),
    "2 bit, 3 heads of 8": (replace(DIMS, d_model=24, n_heads=3, n_layers=1, n_frames=30), 2),
    "3 bit, d_model 40": (replace(DIMS, d_model=40, n_heads=5), 3),
    "8 bit, 80 mels": (replace(DIMS, n_mels=80, n_classes=2), 8),
    "least": (Dimensions(n_mels=40, n_frames=2, d_model=8, n_heads=1, n_layers=1, n_classes=2), 4),
    "d64x2, 3 s": (
        Dimensions(n_mels=80, n_frames=300, d_model=64, n_heads=2, n_layers=2, n_classes=31), 4,
    ),
}  # fmt: skip
# Threads are checked for races, everything else for addresses and undefined behaviour.
SANITIZERS = {1: "address,undefined", 2: "thread"}


def built(folder: Path, source: Path, cores: int, pie: int) -> Path:
    """Return the test program of the emulated Xtensa with these kernels, for this PC."""
    program = folder / f"cores{cores}-pie{pie}"
    files = [path for path in build.runtime_sources("esp") if path.suffix == ".c"]
    files += [source / "model_data.c", xtensa_build.HERE / "main.c"]
    files += [xtensa_build.HERE / "files_host.c", HERE / "esp_idf" / "other_core.c"]
    files += [HERE / "esp_idf" / "pie_dot.c"]
    flags = [*STRICT_FLAGS, "-O1", "-g", "-pthread", f"-fsanitize={SANITIZERS[cores]}"]
    flags += ["-fno-sanitize-recover=all", "-DQUADS_KERNELS=QUADS_KERNELS_ESP"]
    flags += [f"-DQUADS_CORES={cores}", f"-DQUADS_PIE={pie}", *xtensa_build.includes(source)]
    command = [require_tool("gcc"), *flags, *map(str, files), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


# Every model on two cores with vectors; the other three builds on some.
BUILDS = [(name, 2, 1) for name in MODELS]
BUILDS += [(name, *build) for build in [(1, 0), (1, 1), (2, 0)] for name in ("4 bit", "least")]


@pytest.mark.parametrize(("name", "cores", "pie"), BUILDS)
def test_models_equal_the_reference(tmp_path: Path, name: str, cores: int, pie: int) -> None:
    dims, bits = MODELS[name]
    model = random_model(dims, bits, seed=len(name))
    source = tmp_path / "source"
    csource.write_sources(model, source, "esp")
    program = built(tmp_path, source, cores, pie)
    rng = np.random.default_rng(8)
    mel = rng.integers(-128, 128, (dims.n_frames, dims.n_mels)).astype(np.int8)
    pcm = (rng.normal(size=160 * dims.n_frames) * 3000).clip(-32768, 32767).astype(np.int16)
    pcm.tofile(tmp_path / "pcm")
    mel.tofile(tmp_path / "mel")
    xtensa_build.run_host(program, tmp_path)
    features = frontend.features(pcm, dims.n_mels, dims.n_frames)
    assert (tmp_path / "features").read_bytes() == features.tobytes()
    logits = Reference(model).logits(np.stack([features, mel])).astype(np.int32)
    assert (tmp_path / "logits").read_bytes() == logits.tobytes()
    wakes = int((tmp_path / "wakes").read_text())
    assert (wakes > 0) == (cores == 2 and name != "least")


# --- the assembly file, by a model of its instructions ----------------------------------------


def dot_4(tile: np.ndarray, x: np.ndarray, bias: np.ndarray, x_offset: int) -> np.ndarray:
    """Lay everything into a memory, run the assembly, return the sums; reads no byte too many."""
    n_in = len(x)
    row = (n_in + 15) // 16 * 16
    padded = np.zeros((4, row), np.int8)
    padded[:, :n_in] = tile
    x_at = 4 * row + 64 + x_offset
    bias_at = (x_at + n_in + 31) // 16 * 16
    memory = bytearray(b"\x55" * (bias_at + 48))
    memory[: 4 * row] = padded.tobytes()
    memory[x_at : x_at + n_in] = x.tobytes()
    memory[bias_at : bias_at + 16] = bias.astype("<i4").tobytes()
    core = Core(memory)
    core.registers = {"a2": 0, "a3": x_at, "a4": n_in, "a5": bias_at, "a6": bias_at + 16}
    core.run(ASSEMBLY.read_text(), "quads_pie_dot_4")
    allowed = {*range(4 * row), *range(x_at, x_at + n_in), *range(bias_at, bias_at + 32)}
    assert core.touched == allowed
    return np.frombuffer(memory[bias_at + 16 : bias_at + 32], "<i4")


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("x_offset", [0, 8])
@pytest.mark.parametrize("n_in", [8, 16, 24, 32, 40, 72, 96, 120, 240, 1536])
def test_assembly_makes_exact_sums(n_in: int, x_offset: int, fill: str) -> None:
    rng = np.random.default_rng(n_in + x_offset)
    tile, x = FILLS[fill](rng, 4, n_in), FILLS[fill](rng, n_in)
    bias = rng.integers(-(2**29), 2**29, 4)
    expected = tile.astype(np.int64) @ x.astype(np.int64) + bias
    np.testing.assert_array_equal(dot_4(tile, x, bias, x_offset), expected)


def test_assembly_wraps_nothing_at_the_longest_row() -> None:
    """n_in * 2^14 stays below 2^31 for every matrix that a packed model can hold."""
    n_in = 8192
    tile, x = np.full((4, n_in), -128, np.int8), np.full(n_in, -128, np.int8)
    expected = np.full(4, n_in << 14) - 5
    np.testing.assert_array_equal(dot_4(tile, x, np.full(4, -5), 8), expected)

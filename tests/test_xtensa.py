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
from xtensa_build import build_host, build_xtensa, require_xtensa, run_host, run_xtensa

from quads_mcu.audio import frontend
from quads_mcu.export import csource
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions

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


@pytest.mark.parametrize("size", SIZES)
def test_xtensa_equals_the_references(tmp_path: Path, size: str) -> None:
    require_xtensa()
    dims, bits = SIZES[size]
    model = random_model(dims, bits, seed=len(size))
    source = tmp_path / "source"
    csource.write_sources(model, source)
    programs = (
        (build_xtensa(source, tmp_path), run_xtensa),
        (build_host(source, tmp_path), run_host),
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

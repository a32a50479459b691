"""The accuracy table of docs/results.md: what benchmarks/results/accuracy.json holds, no less."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quads_mcu import config

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy", ROOT / "benchmarks" / "accuracy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_was_measured(accuracy: ModuleType) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text())
    assert accuracy.page(text, results) == text


def test_every_row_is_a_recipe(accuracy: ModuleType) -> None:
    for row in accuracy.ROWS.values():
        assert config.load(ROOT / "examples" / row.recipe).teacher.weights


def measured(seed: int, packed: float, **more: Any) -> dict[str, Any]:
    return {
        "seed": seed, "bits": 4, "student": "d96x2", "n_mels": 40, "window_s": 2.0,
        "weight_bytes": 152224, "utterances": 354, "float": 99.0, "packed": packed,
        "macro_f1": 0.9, "training_s": 300,
    } | more  # fmt: skip


def test_a_row_has_the_mean_every_seed_and_the_interval_of_the_mean(accuracy: ModuleType) -> None:
    seeds = [measured(0, 99.0, in_noise=97.0), measured(1, 96.0, in_noise=96.0)]
    (line,) = accuracy.table({"wakewords": seeds}).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "six wake words", "d96×2, 4 bit, 40 mels, 2 s", "152,224", "2", "99.0 %",
        "97.5 % (99.0, 96.0)", "95.3-98.7", "0.900", "96.5 % (97.0, 96.0)", "98.5; 96 in noise",
    ]  # fmt: skip

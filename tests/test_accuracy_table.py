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


def test_false_accepts_of_all_seeds_are_added_up(accuracy: ModuleType) -> None:
    def heard(accepts: int, rejects: float) -> dict[str, Any]:
        point = {
            "false_accepts": accepts, "false_accepts_per_hour": accepts / 0.5,
            "false_accepts_per_hour_interval_95": [0.0, 1.0],
            "false_rejects": 7, "false_reject_percent": rejects,
        }  # fmt: skip
        return {"rejection": {"unknown_hours": 0.5, "point": point}}

    seeds = [measured(n, 98.0, **heard(n, 2.0 + n)) for n in range(3)]
    *_, last = accuracy.table({"wakewords-unknown": seeds}).splitlines()
    # Garwood's interval of 3: 0.619 to 8.767 (scipy.stats.chi2.ppf([0.025, 0.975], [6, 8]) / 2).
    assert last == (
        "- all 3 seeds: 3.0 % rejected in the mean, 3 false accepts in 1.50 h: 2.00 per hour "
        "(0.41-5.84)"
    )
    assert "all" not in accuracy.table({"wakewords-unknown": seeds[:1]}).splitlines()[-1]

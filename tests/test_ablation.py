"""The ablation: equal epochs for every strategy, tables and plot, and one small one in full."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from silent import silent
from test_narrow import whisper_file
from tiny_run import tiny_config

from quads_mcu.config import Config, StudentSection, TrainSection
from quads_mcu.errors import ConfigError
from quads_mcu.report import ablation
from quads_mcu.report.ablation import Row
from quads_mcu.report.statistics import Accuracy
from quads_mcu.training.schedule import schedule


def test_strategies_train_equally_long() -> None:
    settings = TrainSection(
        warmup_epochs=3, cycles=2, distill_epochs=2, quant_epochs=1, final_epochs=4
    )
    phases = {
        name: [epoch.phase[0] for epoch in schedule(ablation.strategy(settings, name))]
        for name in ablation.STRATEGIES
    }
    assert phases["mct"] == list("wwwddqddqffff")
    assert phases["quantization"] == list("wwwwwwwffffff")
    assert phases["distillation"] == list("wwwwwwwwwwwww")


def test_a_cell_changes_only_what_it_is_about() -> None:
    config = Config(student=StudentSection(init="w.npz"))
    cell = ablation.cell_config(config, ablation.Cell("pre-trained", "mct", 4, 0))
    assert cell == config
    cell = ablation.cell_config(config, ablation.Cell("random", "mct", 2, 2))
    assert cell.student.init == "random" and cell.train.seed == 2 and cell.quantization.bits == 2
    assert cell.train == dataclasses.replace(config.train, seed=2)


def test_refusals(tmp_path: Path) -> None:
    pretrained = Config(student=StudentSection(init="w.npz"))
    with pytest.raises(ConfigError, match=r'set \[student\] init = "FILE"'):
        ablation.ablate(Config(), tmp_path, [4], 1, "test", silent)
    with pytest.raises(ConfigError, match="--bits 5: one of 32, 16, 8, 4, 3, 2"):
        ablation.ablate(pretrained, tmp_path, [4, 5], 1, "test", silent)


def test_rows_carry_mean_and_sample_deviation() -> None:
    found = tuple(Accuracy(correct, 10, correct / 20) for correct in (7, 8, 10))
    row = Row("random", "mct", 4, 12345, found)
    assert row.percent == pytest.approx((np.mean([70, 80, 100]), np.std([70, 80, 100], ddof=1)))
    assert row.text() == ("random", "mct", "4", "12,345", "83.3 ± 15.3 %", "0.417 ± 0.076")
    assert Row("random", "mct", 4, 1, found[:1]).percent == (70.0, 0.0)
    assert ablation.markdown([row]).splitlines()[2] == "| " + " | ".join(row.text()) + " |"
    bars = ET.fromstring(ablation.plot([row, row])).findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 3


def test_a_whole_ablation(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whisper_file(tmp_path / "w.safetensors", 40, 128, 2, positions=25)
    config = tiny_config(tmp_path)
    student = dataclasses.replace(config.student, init="w.safetensors")
    schedule = dataclasses.replace(
        config.train, warmup_epochs=1, distill_epochs=1, quant_epochs=1, final_epochs=1
    )
    config = dataclasses.replace(config, student=student, train=schedule)
    rows = ablation.ablate(config, tmp_path / "out", [16, 4], 1, "test", silent)
    assert [(row.init, row.strategy, row.bits) for row in rows] == [
        (init, strategy, bits)
        for init in ("random", "pre-trained")
        for strategy in ("distillation", "quantization", "mct")
        for bits in (16, 4)
    ]
    assert all(row.accuracies[0].total == 12 for row in rows)
    assert rows[0].model_bytes > 2 * rows[1].model_bytes
    stored = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert stored == ablation.to_json(rows, "test")
    checkpoints = (tmp_path / "out").rglob("checkpoint.safetensors")
    times = {path: path.stat().st_mtime_ns for path in checkpoints}
    assert len(times) == 12
    assert ablation.ablate(config, tmp_path / "out", [16, 4], 1, "test", silent) == rows
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())

"""Rejection: the threshold by hand, the curve by brute force, a trained run end to end."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from quads_mcu import config as project
from quads_mcu import model_format
from quads_mcu.audio import unknown
from quads_mcu.audio.datasets import load_pcm
from quads_mcu.audio.utterances import Dataset
from quads_mcu.cli import app
from quads_mcu.config import AugmentSection, Config, DataSection, TrainSection
from quads_mcu.device import boards, build
from quads_mcu.errors import ExportError
from quads_mcu.export import project as exporter
from quads_mcu.export import rejection
from quads_mcu.export.rejection import Heard
from quads_mcu.report import evaluation, statistics
from quads_mcu.report import rejection as report
from quads_mcu.run_dir import RunDir
from quads_mcu.training import data, train


def heard(commands: list[int], others: list[int], hours: float = 1.0) -> Heard:
    return Heard("valid", np.array(commands, np.int64), np.array(others, np.int64), hours)


# --- the threshold ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "others", "per_hour", "hours", "expected"),
    [
        # No false accept allowed: between 11, which lets none through, and 30, which rejects none.
        ([30, 40, 50], [-5, 3, 10], 0.0, 1.0, 20),
        # Half an hour, two per hour: one may pass; 4 .. 30.
        ([30, 40, 50], [-5, 3, 10], 2.0, 0.5, 17),
        # A command below the limit is lost, the rest keep room: 11 .. 40.
        ([5, 40, 50], [-5, 3, 10], 0.0, 1.0, 25),
        # Ties pass or fail together.
        ([30], [7, 7, 7], 2.0, 1.0, 19),
        # Nothing survives: just above the worst.
        ([1, 2], [9], 0.0, 1.0, 10),
        # Everything may pass: below everything heard.
        ([30], [-9, 5], 9.0, 1.0, 10),
        # Thresholds are int32, scores may be more.
        ([2**32 - 1], [2**32 - 5], 0.0, 1.0, 2**31 - 1),
        ([-(2**32)], [-(2**32) - 9], 0.0, 1.0, -(2**31)),
    ],
)
def test_threshold(
    commands: list[int], others: list[int], per_hour: float, hours: float, expected: int
) -> None:
    assert rejection.threshold(heard(commands, others, hours), per_hour) == expected


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=12),
    st.lists(st.integers(-50, 50), min_size=1, max_size=12),
    st.integers(0, 12),
)
def test_no_threshold_within_the_limit_rejects_fewer(
    commands: list[int], others: list[int], limit: int
) -> None:
    found = rejection.threshold(heard(commands, others), float(limit))
    assert sum(score >= found for score in others) <= limit
    rejected = sum(score < found for score in commands)
    for other in range(-52, 53):
        if sum(score >= other for score in others) <= limit:
            assert sum(score < other for score in commands) >= rejected


@pytest.mark.parametrize("expected", [0.05, 0.2, 3.0])
def test_the_tail_tells_of_rates_too_low_to_be_seen(expected: float) -> None:
    """Laplace-distributed scores have an exponential tail, so that its probability is known."""
    scale, size = 1e5, 2000
    ratios = []
    for seed in range(50):
        others = np.random.default_rng(seed).laplace(0, scale, size).astype(np.int64)
        found = rejection.tail_threshold(others, expected)
        ratios.append(size * scipy.stats.laplace.sf(found, scale=scale) / expected)
    # The mean of 100 exceedances errs by a tenth, and the exponent with it.
    assert 0.8 < np.exp(np.mean(np.log(ratios))) < 1.25
    spread = 1.5 * np.log(size / 20 / expected) / np.sqrt(size / 20)
    assert np.std(np.log(ratios)) < spread


@pytest.mark.parametrize(("expected", "size"), [(0.0, 2000), (100.0, 2000), (0.2, 199)])
def test_no_tail_to_go_by(expected: float, size: int) -> None:
    assert rejection.tail_threshold(np.arange(size, dtype=np.int64), expected) == -(2**31)


def test_the_threshold_is_no_less_than_the_tail_asks_for() -> None:
    """Of 200 scores the highest ten: 11 above the eleventh each; 0.5 of them, in one hour."""
    others = [0] * 190 + [11] * 10
    tail = 11 * np.log(10 / 0.5)
    assert rejection.threshold(heard([20, 90], others), 0.5) == math.ceil(tail) == 33
    # Where the middle is above that already (12 .. 90), it stays.
    assert rejection.threshold(heard([90], others), 0.5) == 51


@pytest.mark.parametrize(("commands", "others"), [([], [1]), ([1], [])])
def test_threshold_needs_both(commands: list[int], others: list[int]) -> None:
    with pytest.raises(ExportError, match=r"split valid has . commands and . windows of unknown"):
        rejection.threshold(heard(commands, others), 1.0)


def test_curve_goes_through_every_step() -> None:
    found = rejection.curve(heard([1, 5, 9, 9], [2, 2, 7, -3], hours=0.5))
    points = [
        (p["threshold"], p["false_accepts_per_hour"], p["false_reject_percent"]) for p in found
    ]
    assert points == [(8, 0, 50), (3, 2, 25), (-2, 6, 0), (-3, 8, 0)]


# --- figures and plot ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Garwood's table.
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390)],
)
def test_poisson_interval(count: int, low: float, high: float) -> None:
    assert report.poisson_interval(count) == pytest.approx((low, high), abs=1e-3)


def test_figures_and_plot_of_an_operating_point() -> None:
    found = report.figures(heard([1, 5, 9, 9], [2, 2, 7, -3], hours=0.5), 3)
    point = found["point"]
    assert (point["false_accepts"], point["false_accepts_per_hour"]) == (1, 2)
    assert (point["false_rejects"], point["false_reject_percent"]) == (1, 25)
    assert point["false_accepts_per_hour_interval_95"] == [0.051, 11.143]
    low, high = statistics.wilson_interval(1, 4)
    assert point["false_reject_interval_95_percent"] == [
        pytest.approx(100 * low, abs=1e-3),
        pytest.approx(100 * high, abs=1e-3),
    ]
    assert report.rows(found)[1][1:] == ("1 in 0.50 h", "2.00 per hour (0.05-11.14)")
    space = "{http://www.w3.org/2000/svg}"
    svg = ET.fromstring(report.plot(found))
    line = svg.find(f"{space}polyline").get("points").split()
    assert len(line) == len(found["curve"])
    assert [float(pair.split(",")[0]) for pair in line] == sorted(
        float(pair.split(",")[0]) for pair in line
    )


# --- training with unknown speech ---------------------------------------------------------------


def test_an_epoch_holds_all_commands_and_its_share_of_unknown_speech() -> None:
    other = np.arange(50) >= 12
    utterances = data.Utterances(
        np.zeros((50, 3200), np.int16), np.zeros((50, 1), int), other & False, other
    )
    config = Config(
        data=DataSection(unknown_share=0.25),
        train=TrainSection(batch_size=5),
        augment=AugmentSection(noise_probability=0, reverb_probability=0, speed=0),
    )
    batches = data.AugmentedBatches(utterances, config, [], 40, 20, 0)
    assert len(batches) == 4  # 12 + 4 utterances
    epochs = [np.concatenate([batch.rows for batch in batches(epoch, True)]) for epoch in range(12)]
    for rows in epochs:
        assert sorted(rows[rows < 12]) == list(range(12))
        assert len(set(rows)) == len(rows) == 16
    assert len(set(np.concatenate(epochs))) > 30
    assert epochs[0].tolist() == np.concatenate([batch.rows for batch in batches(0, True)]).tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Two tones to be told from noise and from a third tone, trained in seconds."""
    folder = tmp_path_factory.mktemp("unknown")
    tiny_run.write_corpus(folder)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, wanted in (("commands", ("high", "low")), ("other", ("middle",))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row for row in rows if row["label"] in wanted)
    tree = json.loads(json.dumps(tiny_run.SETTINGS))
    tree["data"] = {"manifests": ["commands.csv"], "unknown": ["other.csv"]}
    tree["rejection"] = {"false_accepts_per_hour": 0.0}
    config = project.from_tree(tree, where="test", root=folder)
    found = RunDir(folder / "run")
    train.train(config, found, lambda *_: None)
    host = boards.load("host")
    exporter.export(found, host, bits=None, out=None)
    build.build(host, found.source_dir("host"), found.build_dir("host"))
    return found


def test_export_packs_the_threshold_of_split_valid(run: RunDir) -> None:
    model = model_format.read(run.model_path)
    assert model.slots[0].labels == ("high", "low", "unknown")
    assert model.unknown_class == 2
    config = run.config()
    once = rejection.listen(model, config, "valid", lambda *_: None)
    assert (len(once.commands), len(once.others)) == (8, 4 + 1)
    assert once.hours == pytest.approx(5 * 0.5 / 3600)
    found = rejection.listen(model, config, "valid", lambda *_: None, rejection.SPEEDS)
    assert (len(found.commands), len(found.others)) == (8, 9 * 4 + 1)
    assert found.hours == pytest.approx(37 * 0.5 / 3600)
    assert set(once.others) < set(found.others)
    assert model.reject_threshold == rejection.threshold(found, 0.0)
    assert "false accepts in 0.005 h at 9 speeds" in model.provenance["rejection"]


def test_evaluation_keeps_commands_and_unknown_speech_apart(run: RunDir) -> None:
    outcome = evaluation.evaluate(run, "test", lambda *_: None)
    assert outcome.truth.shape == (8, 1)
    assert set(outcome.truth[:, 0]) == {0, 1}
    assert 2 not in outcome.reference_answers
    found = report.evaluate(run, "test", lambda *_: None)
    assert found is not None
    assert json.loads((run.path / "rejection.json").read_text()) == found
    assert (run.path / "rejection.svg").read_text() == report.plot(found)
    assert found["unknown_windows"] == 5
    point = found["point"]
    assert point["threshold"] == model_format.read(run.model_path).reject_threshold
    clips = load_pcm(
        evaluation_dataset(run), "test", 8000, False, lambda *_: None, keep=unknown.is_unknown
    )
    assert clips.labels.tolist() == [2] * 4


def evaluation_dataset(run: RunDir) -> Dataset:
    from quads_mcu.audio import sources

    return sources.load(run.config(), lambda *_: None)


def test_a_run_without_unknown_speech_has_no_curve(run: RunDir, tmp_path: Path) -> None:
    settings = run.config()
    plain = dataclasses.replace(settings, data=dataclasses.replace(settings.data, unknown=[]))
    other = RunDir(tmp_path)
    other.write_config(plain)
    assert report.evaluate(other, "test", lambda *_: None) is None


def test_a_split_without_unknown_speech_has_accuracy_and_no_curve(
    run: RunDir, tmp_path: Path
) -> None:
    other = RunDir(shutil.copytree(run.path, tmp_path / "run"))
    for figures in ("rejection.json", "rejection.svg"):
        (other.path / figures).unlink(missing_ok=True)
    stored = json.loads(other.config_path.read_text())
    stored["settings"]["data"]["unknown"] = ["other.csv#train,valid"]
    other.config_path.write_text(json.dumps(stored))
    done = CliRunner().invoke(app, ["evaluate", "-r", str(other.path)])
    assert done.exit_code == 0, done.output
    assert "8 utterances of split test, accuracy" in done.output
    assert "split test has no unknown speech" in done.output
    assert not (other.path / "rejection.json").exists()


def test_the_board_rejects_what_the_reference_does(run: RunDir) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "quads_mcu.cli", "test", "--run", str(run.path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    model = model_format.read(run.model_path)
    found = rejection.listen(model, run.config(), "test", lambda *_: None)
    expected = found.false_rejects(model.reject_threshold)
    assert (values["rejected"]["commands"], values["rejected"]["of"]) == (expected, 8)
    assert "The board rejects" in (run.report_dir("host") / "report.html").read_text()

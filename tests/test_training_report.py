"""training.html after `quads-mcu train`, parsed and compared with the run's own files."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_run import tiny_config

from quads_mcu import config as project
from quads_mcu.errors import TrainingError
from quads_mcu.report import training as report
from quads_mcu.run_dir import RunDir
from quads_mcu.training.train import TrainResult


def quads_mcu(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "quads_mcu.cli", *arguments]
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project and its run, of two cycles."""
    place = tmp_path_factory.mktemp("training_report")
    config = tiny_config(place)
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, warmup_epochs=3, cycles=2),
        quantization=dataclasses.replace(config.quantization, reconstruction_passes=2),
    )
    (place / "quads.toml").write_text(project.render(config))
    said = quads_mcu(place, "train", "--run", "run")
    assert "run/training.html" in said
    return place


def drawings(text: str) -> list[ElementTree.Element]:
    """Return every svg but those of the legends."""
    found = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    return [svg for svg in found if svg.get("role") == "img"]


def history_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "run" / "history.json").read_text())
    return found


def test_charts_show_every_epoch(folder: Path) -> None:
    history = history_of(folder)
    loss, valid = drawings((folder / "run" / "training.html").read_text())[:2]
    assert [entry["phase"][0] for entry in history] == list("wwwdqdqf")
    assert len(loss.findall("polyline")) == 6
    assert [line.get("class") for line in valid.findall("polyline")] == [
        "line float",
        "line quantized",
    ]
    for chart, names in ((loss, ["loss"]), (valid, ["valid_float", "valid_quantized"])):
        assert len(chart.findall("rect")) == 6
        marks = chart.findall("circle")
        values = [entry[name] for name in names for entry in history]
        assert len(marks) == len(values)
        heights = [-float(mark.get("cy", "")) for mark in marks]
        for i in range(len(values)):
            for k in range(len(values)):
                if values[i] > values[k] + 0.005:
                    assert heights[i] > heights[k]
        for mark in marks:
            assert 0 <= float(mark.get("cx", "")) <= float(chart.get("width", ""))
            assert 0 <= float(mark.get("cy", "")) <= float(chart.get("height", ""))
        across = [float(mark.get("cx", "")) for mark in marks[: len(history)]]
        np.testing.assert_allclose(np.diff(across), across[1] - across[0], atol=0.11)


def test_histograms_show_every_centroid_and_its_members(folder: Path) -> None:
    text = (folder / "run" / "training.html").read_text()
    stored = load_file(folder / "run" / "student_quantized.safetensors")
    names = [n.split(".", 1)[1].rsplit(".", 1)[0] for n in stored if n.endswith(".centroids")]
    shown = {svg.get("aria-label", ""): svg for svg in drawings(text)[2:]}
    assert sorted(shown) == sorted(f"codebook of {name}" for name in names)
    assert len(names) == 3 + 6 * 2
    for name in names:
        bars = shown[f"codebook of {name}"].findall("rect")
        centroids = stored[f"codebook.{name}.centroids"]
        indices = stored[f"codebook.{name}.indices"].ravel()
        expected = [
            (f"{centroids[at]:.4g}", int((indices == at).sum())) for at in np.argsort(centroids)
        ]
        titles = [bar.findtext("title", "").removesuffix(" weights").split(": ") for bar in bars]
        assert [(at, int(count.replace(",", ""))) for at, count in titles] == expected
        middles = [float(b.get("x", "")) + float(b.get("width", "")) / 2 for b in bars]
        slope = np.polyfit(np.sort(centroids), middles, 1)
        np.testing.assert_allclose(np.polyval(slope, np.sort(centroids)), middles, atol=0.1)
        heights = [float(bar.get("height", "")) for bar in bars]
        counts = np.array([count for _, count in expected])
        np.testing.assert_allclose(heights, 64 * counts / counts.max(), atol=0.01)


def test_table_of_cycles_and_bits(folder: Path) -> None:
    text = (folder / "run" / "training.html").read_text()
    rows = re.findall(r'<tr class="cycle">(.*?)</tr>', text)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    history = history_of(folder)
    at_end = [history[2], history[3], history[5]]
    assert [row[:2] for row in cells] == [["warm-up", "3"], ["cycle 1", "4"], ["cycle 2", "6"]]
    for row, entry in zip(cells, at_end, strict=True):
        shares = [entry["valid_float"], *(entry["valid_by_bits"][b] for b in "8432")]
        assert row[2:7] == [f"{100 * share:.1f} %" for share in shares]
    trained = [history[4]["valid_quantized"], history[6]["valid_quantized"]]
    assert [row[7] for row in cells] == ["–", *(f"{100 * share:.1f} %" for share in trained)]


def test_table_of_blocks(folder: Path) -> None:
    text = (folder / "run" / "training.html").read_text()
    section = text.split("<h2>Blocks before the final phase</h2>")[1].split("</table>")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", section)]
    (told,) = [entry["reconstruction"] for entry in history_of(folder) if "reconstruction" in entry]
    assert rows[1:] == [[name, f"{a:.4f}", f"{b:.4f}"] for name, (a, b) in told.items()]
    assert [row[0] for row in rows[1:]] == ["conv", "layers.0", "layers.1"]


def test_page_tells_settings_time_and_no_teacher(folder: Path) -> None:
    text = html.unescape((folder / "run" / "training.html").read_text())
    assert "No teacher" in text
    assert '<div class="changed"><code>warmup_epochs = 3</code>' in text
    assert "<div><code>quant_epochs = 1</code>" in text
    total = round(sum(entry["duration_s"] for entry in history_of(folder)))
    assert f"8 epochs in 0:{total // 60:02d}:{total % 60:02d}" in text
    assert "http" not in text, "the page stands alone"


def test_restart_clears_report_and_log(folder: Path) -> None:
    run = folder / "run"
    before = history_of(folder)
    stray = run / "tensorboard" / "events.out.tfevents.0.stray"
    stray.write_bytes(b"")
    quads_mcu(folder, "train", "--run", "run")
    assert stray.exists()
    (run / "training.html").write_text("stale")
    quads_mcu(folder, "train", "--run", "run", "--restart")
    assert not stray.exists()
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert "<svg" in (run / "training.html").read_text()
    assert [e["loss"] for e in history_of(folder)] == [e["loss"] for e in before]


def outcome(folder: Path, history: list[dict[str, Any]], teacher: float | None) -> TrainResult:
    return TrainResult(folder, (), 4, teacher, 0.5, 0.5, history)


def entry(epoch: int, loss: float, phase: str = "final", cycle: int = 1) -> dict[str, Any]:
    accuracies = {"valid_float": 1.0, "valid_quantized": 1.0}
    return {"epoch": epoch, "phase": phase, "cycle": cycle, "loss": loss, "duration_s": 0.4} | (
        accuracies
    )


@pytest.mark.parametrize("losses", [[], [0.0], [0.3], [0.25, 0.25], [1e-3] * 101, [1e4, 1e-9]])
def test_histories_at_the_edge(tmp_path: Path, losses: list[float]) -> None:
    codebooks: dict[str, Any] = {
        "codebook.head.centroids": np.zeros(256, np.float32),
        "codebook.head.indices": np.zeros((3, 2), np.uint8),
    }
    metadata = {"quads": json.dumps({})}
    save_file(codebooks, tmp_path / "student_quantized.safetensors", metadata=metadata)
    config = project.from_tree({"project": {"name": "<b>&"}}, where="test")
    history = [entry(at, loss) for at, loss in enumerate(losses)]
    path = report.write(RunDir(tmp_path), config, outcome(tmp_path, history, 0.975))
    text = path.read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text
    assert "97.5 %" in text and "No teacher" not in text
    shown = drawings(text)
    assert len(shown) == (3 if losses else 1)
    assert len(shown[-1].findall("rect")) == 256
    for chart in shown[:-1]:
        for mark in chart.findall("circle"):
            assert 10 <= float(mark.get("cy", "")) <= 226
            assert 56 <= float(mark.get("cx", "")) <= 850
        for side in ("end", "middle"):
            labels = [t.text for t in chart.findall("text") if t.get("text-anchor") == side]
            assert 1 + (side == "end") <= len(labels) == len(set(labels)) <= 20


def test_float_students_have_no_codebooks(tmp_path: Path) -> None:
    stored: dict[str, Any] = {"student.head.bias": np.zeros(3, np.float32)}
    path = tmp_path / "student_quantized.safetensors"
    save_file(stored, path, metadata={"quads": json.dumps({})})
    config = project.from_tree({"quantization": {"bits": 32}}, where="test")
    text = report.write(RunDir(tmp_path), config, outcome(tmp_path, [entry(0, 1.0)], None))
    assert "at 32 bits weights stay numbers of their own" in text.read_text()
    stored = {
        "codebook.head.centroids": np.zeros(4, np.float32),
        "codebook.head.indices": np.full((3, 2), 4, np.uint8),
    }
    save_file(stored, path, metadata={"quads": json.dumps({})})
    with pytest.raises(TrainingError, match=r"damaged: head; train with --restart"):
        report.write(RunDir(tmp_path), config, outcome(tmp_path, [], None))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (36061, "10:01:01")]
)
def test_wall_time(seconds: float, text: str) -> None:
    assert report.wall_time(seconds) == text

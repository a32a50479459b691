"""`analyze` and `profile`: what is counted, what fits, what would, and predictions that hold."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from firmware_build import require
from random_model import random_model

from quads_mcu import cli, model_format
from quads_mcu.device import boards
from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError, DeviceError, ExportError, ModelFormatError
from quads_mcu.export import planner, work
from quads_mcu.export.blank import blank
from quads_mcu.model import dimensions
from quads_mcu.model.dimensions import PRESETS, Dimensions
from quads_mcu.report import analysis, analysis_tables, costs, fitting, profile

AN386 = boards.load("qemu-an386")
EMULATED = [board.name for board in boards.all_boards() if board.emulated]
SMALL = Dimensions(n_mels=40, n_frames=98, d_model=48, n_heads=2, n_layers=3, n_classes=5)


def sized(preset: str, window_s: float = 3.0, n_mels: int = 80) -> Dimensions:
    return dimensions.dimensions(preset, n_mels=n_mels, window_s=window_s, n_classes=31)


def with_memory(board: Board, flash_bytes: int, ram_bytes: int) -> Board:
    """The board with two small regions in place of its own."""
    kept = []
    for content, size in (("code", flash_bytes), ("data", ram_bytes)):
        region = board.region(content)
        holds = ("code", "constants", "weights") if content == "code" else ("data", "arena")
        kept.append(replace(region, size_bytes=size, holds=holds))
    return replace(board, memory=tuple(kept))


# --- calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "dsp", "helium"])
@pytest.mark.parametrize("dims", [sized("d64x2"), sized("d384x4", 6.0), SMALL], ids=str)
def test_calls_do_the_work_that_the_paper_counts(dims: Dimensions, variant: str) -> None:
    bits = dict.fromkeys(model_format.linear_shapes(dims), 4)
    calls = list(work.calls(dims, planner.plan(dims, variant), bits))
    assert sum(call.macs for call in calls) == sum(c.macs for c in dimensions.profile(dims))
    rows = Counter(
        {kind: sum(c.rows for c in calls if kind == (c.place, c.n_out, c.n_in, c.kernel))
         for kind in {(c.place, c.n_out, c.n_in, c.kernel) for c in calls}}
    )  # fmt: skip
    d, t = dims.d_model, dims.n_tokens
    assert rows[0, d, 3 * dims.n_mels, "linear_s8"] == dims.n_frames
    assert rows[1, dims.d_head, d, "linear_s8"] == 3 * dims.n_heads * t
    assert rows[dims.n_layers, 4 * d, d, "linear_s8"] == t
    assert rows[1 + dims.n_layers, d, 0, "layer_norm"] == t


# --- models --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", model_format.BITS)
def test_blank_models_are_valid_and_take_the_memory_of_others(bits: int) -> None:
    empty = blank(SMALL, bits)
    model_format.check(empty)
    full = random_model(SMALL, bits)
    one = {name: tensor.shape for name, tensor in model_format.tensors(full).items()}
    for name, tensor in model_format.tensors(empty).items():
        if not name.endswith("multiplier"):  # random models have some per channel
            assert one[name] == tensor.shape


def test_widths_between_the_presets() -> None:
    """Heads of 64 as Whisper has them, of 32 in narrow students; the tables follow that rule."""
    for known in (dimensions.PRESETS, dimensions.WHISPER):
        for size in known.values():
            assert dimensions.preset(f"d{size.d_model}x{size.n_layers}") == size
    assert dimensions.preset("d160x3") == dimensions.Preset(160, 5, 3)
    assert dimensions.preset("d320x1") == dimensions.Preset(320, 5, 1)
    for name in ("d", "d96", "d0x2", "d96x0", "d096x2", "d96x2x2", "x2", "D96x2", "d99999x2"):
        with pytest.raises(ConfigError, match="no architecture"):
            dimensions.preset(name)


def test_models_come_from_a_run_a_file_or_a_preset(tmp_path: Path) -> None:
    model = random_model(SMALL)
    model_format.write(model, tmp_path / "model.safetensors")
    for name in (str(tmp_path), str(tmp_path / "model.safetensors")):
        assert analysis.load(name)[1].model_hash == model.model_hash
    _, preset = analysis.load("d96x2", bits=3, window_s=2.0, n_mels=40, n_classes=4)
    assert preset.dims == Dimensions(40, 200, 96, 3, 2, 4)
    assert preset.head.bits == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("d97x2", {}, "no such run, model file or preset; presets: d64x2"),
        ("d96x2", {"bits": 5}, "bits = 5; allowed: 8, 4, 3, 2"),
        ("d96x2", {"n_mels": 81}, "multiples of 8"),
        ("d96x2", {"window_s": 41.0}, "n_frames = 4100 is outside"),
        ("d96x2", {"window_s": float("nan")}, "a window of nan s"),
    ],
)
def test_what_cannot_be_analyzed(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        analysis.load(name, **options)  # type: ignore[arg-type]


def test_runs_without_a_model_say_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quads-mcu export --run"):
        analysis.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelFormatError):
        analysis.load(str(tmp_path))


# --- analysis ------------------------------------------------------------------------------


def test_json_adds_up() -> None:
    text = json.dumps(analysis.analyze("d96x2", blank(sized("d96x2"), 4), AN386).to_json())
    found = json.loads(text)
    assert found["fits"] and found["problem"] is None and found["ways"] == []
    assert sum(part["instructions"] for part in found["parts"]) == found["instructions"]
    places = list(dict.fromkeys(part["place"] for part in found["parts"]))
    assert places == ["front", "layer 0", "layer 1", "back"]
    # 1.3 cycles each at 120 MHz and 33 mW: the figures of the board file.
    latency_ms = found["instructions"] * 1.3 / 120e6 * 1e3
    assert found["latency_ms"] == pytest.approx(latency_ms)
    assert found["energy_mj"] == pytest.approx(latency_ms * 33e-3)
    assert found["real_time_factor"] == pytest.approx(latency_ms / 3000)
    assert sum("estimate" in line for line in found["method"]) == 1


def test_boards_without_counts_or_power_leave_them_out() -> None:
    host = analysis.analyze("d64x2", blank(sized("d64x2"), 4), boards.load("host"))
    assert host.instructions is host.latency_ms is host.energy_mj is host.real_time_factor is None
    assert host.memory.problem is None
    assert "none were ever counted" in host.method[0]
    powerless = replace(AN386, energy=None)
    found = analysis.analyze("d64x2", blank(sized("d64x2"), 4), powerless)
    assert found.instructions and found.energy_mj is None
    assert found.latency_ms == pytest.approx(found.instructions / 25e6 * 1e3, rel=1e-6)
    assert "one cycle per instruction" in found.method[1]
    assert "no [energy] figures" in found.method[2]
    clockless = replace(powerless, clock_hz=0)
    assert analysis.analyze("d64x2", blank(sized("d64x2"), 4), clockless).latency_ms is None
    for one in (host, found):
        assert [len(rows) for _, _, rows in analysis_tables.predicted(one)][1] == 17


def test_every_way_out_fits_and_is_the_smallest_change() -> None:
    board = with_memory(AN386, 1_200_000, 140_000)
    model = blank(sized("d192x4"), 8)
    found = analysis.analyze("d192x4", model, board)
    assert found.memory.problem
    assert "ram of qemu-an386" in found.memory.problem or "flash of" in found.memory.problem
    by_kind = {way.change.split(" = ")[0]: way for way in found.ways}
    preset = by_kind["[student] preset"]
    assert preset.change == "[student] preset = d128x3"
    assert preset.flash_bytes and preset.flash_bytes <= 1_200_000
    assert preset.ram_bytes and preset.ram_bytes <= 140_000
    assert by_kind["fewer bits alone: not enough"].ram_bytes is None
    assert by_kind["a shorter window alone: not enough"].ram_bytes is None
    assert "--target qemu-an386" not in by_kind
    assert any(change.startswith("--target qemu-an5") for change in by_kind)


def test_the_window_is_the_longest_that_fits() -> None:
    board = with_memory(AN386, 4_000_000, 100_000)
    model = blank(sized("d96x2", 6.0), 4)
    ways = fitting.ways(model, board)
    (window,) = (way for way in ways if way.change.startswith("[audio] window_s"))
    seconds = float(window.change.split(" = ")[1])
    for length, fits in ((seconds, True), (seconds + 0.1, False)):
        dims = dataclasses.replace(model.dims, n_frames=round(100 * length))
        assert (fitting.memory(blank(dims, 4), board).problem is None) == fits


def test_changes_are_combined_when_none_suffices_alone() -> None:
    board = with_memory(AN386, 120_000, 40_000)
    ways = fitting.ways(blank(sized("d384x4", 6.0), 8), board)
    alone, together = ways[:3], ways[3]
    assert all(way.flash_bytes is None for way in alone)
    assert together.flash_bytes and together.flash_bytes <= 120_000
    assert together.ram_bytes and together.ram_bytes <= 40_000
    assert "preset" in together.change and "window_s" in together.change


def test_a_model_that_does_not_fit_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boards, "load", lambda _: with_memory(AN386, 60_000, 40_000))
    with pytest.raises(ExportError, match="too many") as caught:
        cli.analyze("d64x2", "qemu-an386", 4, 3.0, 80, 31, False)
    assert caught.value.exit_code == 3
    assert "What would fit" in capsys.readouterr().out


# --- profile -------------------------------------------------------------------------------


def _silent(description: str, completed: float, total: float) -> None:
    del description, completed, total


def within_five_percent(preset: str, board_name: str) -> None:
    board = boards.load(board_name)
    require(board)
    model = random_model(sized(preset))
    found = profile.profile(preset, model, board, _silent)
    error = profile.error(found.predicted.instructions, found.total)
    assert error is not None and abs(error) < 0.05
    for place, stage, predicted, measured in found.rows():
        if measured > 0.01 * found.total:
            assert predicted == pytest.approx(measured, rel=0.05), (place, stage)
    regions = {one.region: one.used_bytes for one in found.predicted.memory.regions}
    if costs.load(board).compiler == found.measured.build.compiler:  # type: ignore[union-attr]
        assert regions == {one.region: one.used_bytes for one in found.measured.build.regions}
    assert found.measured.stats.arena_used_bytes <= found.predicted.memory.cost.arena_bytes
    tables = list(analysis_tables.measured(found))
    assert len(tables[0][2]) == len(found.rows()) + 1
    json.dumps(found.to_json())


@pytest.mark.parametrize("board", EMULATED)
def test_predictions_hold(board: str) -> None:
    within_five_percent("d64x2", board)


@pytest.mark.slow
@pytest.mark.parametrize("board", EMULATED)
@pytest.mark.parametrize("preset", list(PRESETS)[1:])
def test_predictions_hold_for_every_preset(preset: str, board: str) -> None:
    within_five_percent(preset, board)


def test_blank_models_take_the_instructions_of_others() -> None:
    require(AN386)
    one = profile.measure(blank(SMALL, 4), AN386, _silent).instructions
    other = profile.measure(random_model(SMALL), AN386, _silent).instructions
    assert one.sum() == pytest.approx(other.sum(), rel=0.01)


def test_only_emulated_boards_can_be_profiled() -> None:
    with pytest.raises(DeviceError, match="does not count instructions"):
        profile.measure(blank(SMALL, 4), boards.load("host"), _silent)

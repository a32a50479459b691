"""Instruction counts against the kept ones: what grew by more than 2 % fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from firmware_build import require

from quads_mcu.device import boards
from quads_mcu.errors import ConfigError
from quads_mcu.model.dimensions import PRESETS
from quads_mcu.report import benchmarks
from quads_mcu.report.benchmarks import Row
from quads_mcu.report.emulated_kernel import CORES

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
FAST = benchmarks.fast_cores()
QUICK_SHAPES = ((96, 96, 150), (384, 384, 4), (384, 384, 1))
EVERY = [*FAST.items(), *((core, "plain") for core in benchmarks.PLAIN_CORES)]
MODELS = [(board.name, preset) for board in benchmarks.model_boards() for preset in PRESETS]


def kept(file: str) -> list[Row]:
    return benchmarks.read(RESULTS / f"{file}.json")


def unchanged(file: str, rows: list[Row]) -> None:
    """Fail on a regression; a figure that was never kept is one, too."""
    before = {benchmarks.title(file, row): row for row in kept(file)}
    missing = [row for row in rows if benchmarks.title(file, row) not in before]
    assert missing == []
    for row in rows:
        compiler = before[benchmarks.title(file, row)]["compiler"]
        if compiler != row["compiler"]:
            pytest.skip(f"kept figures are of {compiler}, these of {row['compiler']}")
    assert benchmarks.regressions(file, before.values(), rows) == []


def require_harness(core: str) -> None:
    if tool := CORES[core].missing_tool:
        pytest.skip(f"{tool} is not installed")


@pytest.mark.parametrize("core", FAST)
def test_kernels_are_as_fast_as_kept(core: str) -> None:
    require_harness(core)
    unchanged("kernels", benchmarks.kernels(core, FAST[core], QUICK_SHAPES))


def test_plain_kernels_are_as_fast_as_kept() -> None:
    require_harness("m4")
    unchanged("kernels_plain", benchmarks.kernels("m4", "plain", QUICK_SHAPES))


def test_the_frontend_is_as_fast_as_kept() -> None:
    require_harness("m4")
    unchanged("frontend", benchmarks.frontend("m4", 80))


def model_as_fast_as_kept(board_name: str, preset: str) -> None:
    board = boards.load(board_name)
    require(board)
    unchanged("models", [benchmarks.model(board, preset, lambda *_: None)])


def test_a_whole_model_is_as_fast_as_kept() -> None:
    model_as_fast_as_kept("qemu-an386", "d64x2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "variant"), [*FAST.items(), *((core, "plain") for core in benchmarks.PLAIN_CORES)]
)
def test_every_kernel_is_as_fast_as_kept(core: str, variant: str) -> None:
    require_harness(core)
    file = "kernels_plain" if variant == "plain" else "kernels"
    unchanged(file, benchmarks.kernels(core, variant, benchmarks.SHAPES))


@pytest.mark.slow
@pytest.mark.parametrize("n_mels", [40, 80])
@pytest.mark.parametrize("core", CORES)
def test_every_frontend_is_as_fast_as_kept(core: str, n_mels: int) -> None:
    require_harness(core)
    unchanged("frontend", benchmarks.frontend(core, n_mels))


@pytest.mark.slow
@pytest.mark.parametrize(("board", "preset"), MODELS)
def test_every_model_is_as_fast_as_kept(board: str, preset: str) -> None:
    model_as_fast_as_kept(board, preset)


# --- what is kept ---------------------------------------------------------------------------


@pytest.mark.parametrize("file", benchmarks.NAMES)
def test_kept_figures_meet_the_limits(file: str) -> None:
    assert benchmarks.missed(file, kept(file)) == []


def test_every_limit_holds_some_figure_to_account() -> None:
    rows = {file: kept(file) for file in benchmarks.NAMES}
    for limit in benchmarks.LIMITS:
        assert any(limit.applies(limit.file, row) for row in rows[limit.file]), limit


def test_kernels_are_kept_as_others_read_them() -> None:
    for row in kept("kernels"):
        assert {"core", "kernel", "bits", "n", "k", "t", "insn_per_mac", "compiler"} <= set(row)
        macs = row["n"] * row["k"] * row["t"]
        assert row["insn_per_mac"] == pytest.approx(row["instructions"] / macs, abs=1e-4)


# --- comparing ------------------------------------------------------------------------------

ROW = {"core": "m4", "variant": "dsp", "kernel": "linear_s8", "bits": 4, "n": 384, "k": 384,
       "t": 150, "insn_per_mac": 0.7, "instructions": 1_000_000, "compiler": "c"}  # fmt: skip


@pytest.mark.parametrize(("count", "grown"), [(1_021_000, True), (1_019_000, False), (5, False)])
def test_growth_beyond_two_percent_is_a_regression(count: int, grown: bool) -> None:
    found = benchmarks.regressions("kernels", [ROW], [ROW | {"instructions": count}])
    assert bool(found) == grown
    if grown:
        assert "core=m4" in found[0] and "+2.1 %" in found[0]


def test_other_rows_are_not_compared() -> None:
    other = ROW | {"bits": 8, "instructions": 9_000_000}
    assert benchmarks.regressions("kernels", [ROW], [other]) == []


@pytest.mark.parametrize(("value", "missed"), [(0.8, False), (0.801, True)])
def test_limits_are_inclusive(value: float, missed: bool) -> None:
    assert bool(benchmarks.missed("kernels", [ROW | {"insn_per_mac": value}])) == missed


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_damaged_results(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kernels.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="make bench KEEP=1"):
        benchmarks.read(path)

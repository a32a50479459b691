"""The cost model: fits of known formulas, and the kept fits."""

from __future__ import annotations

import json

import pytest

from quads_mcu.device import boards
from quads_mcu.errors import ConfigError
from quads_mcu.export.work import Call
from quads_mcu.report import costs
from quads_mcu.report.costs import Costs, Fit

ROWS = (4, 5, 6, 7, 8, 9, 12, 15, 16, 33, 50)
SHAPES = ((8, 64), (24, 72), (32, 96), (96, 120), (64, 384), (40, 240))


def grid(kernel: str = "linear_s8", bits: int = 4) -> list[Call]:
    return [Call(kernel, 0, "", rows, n, k, bits) for rows in ROWS for n, k in SHAPES]


def tiled(call: Call) -> int:
    """A kernel that decodes tiles of two channels and takes four rows at a time, eight inputs."""
    per_group = 11 * (call.n_in // 8) + 17
    per_rest = 7 * (call.n_in // 8) + 9
    work = call.rows // 4 * per_group + call.rows % 4 * per_rest
    return 40 + 3 * call.rows * call.n_in + call.n_out // 2 * (5 * call.n_in + 30 + work)


def test_nested_loops_are_found_exactly() -> None:
    calls = grid()
    fit = costs.fit([(call, tiled(call)) for call in calls], costs.forms("linear_s8"))
    assert fit.max_error < costs.TOLERANCE
    assert fit.samples == len(calls)
    for rows, n, k in ((10, 48, 200), (75, 384, 384), (150, 1536, 384), (30, 384, 1536)):
        call = Call("linear_s8", 0, "", rows, n, k, 4)
        assert fit.instructions(call) == pytest.approx(tiled(call), rel=0.03)


def test_the_simplest_form_that_is_good_enough_is_taken() -> None:
    calls = [Call("gelu_s8", 0, "", 1, n) for n in (8, 16, 24, 64, 96, 1536)]
    fit = costs.fit([(call, 12 + 6 * call.n_out) for call in calls], costs.forms("gelu_s8"))
    assert dict(fit.terms) == pytest.approx({"1": 12, "n_out": 6}, rel=1e-4)
    assert fit.max_error == 0


def test_too_few_calls() -> None:
    calls = [(Call("gelu_s8", 0, "", 1, n), n) for n in (8, 16)]
    with pytest.raises(ConfigError, match="2 measured calls are too few"):
        costs.fit(calls, costs.forms("gelu_s8"))


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("1", 1), ("rows", 7), ("rows*n_out", 210), ("rows//4", 1), ("rows/4", 2),
        ("rows%4=3", 1), ("rows%4=2", 0), ("n_out/16*n_in", 128), ("rows%4=3*n_in", 64),
    ],
)  # fmt: skip
def test_terms(term: str, value: int) -> None:
    call = Call("linear_s8", 0, "", rows=7, n_out=30, n_in=64, bits=4)
    assert Fit({term: 1.0}, 0.0, 1).instructions(call) == value


def test_few_rows_have_fits_of_their_own() -> None:
    fits = {"linear_s8/4": Fit({"1": 1.0}, 0.0, 1), "linear_s8/4/2": Fit({"1": 2.0}, 0.0, 1)}
    found = Costs("m4", "plain", "a compiler", fits)
    two, three = (Call("linear_s8", 0, "", rows, 8, 8, 4) for rows in (2, 3))
    assert (found.instructions(two), found.instructions(three)) == (2, 1)
    with pytest.raises(ConfigError, match="no measured cost of linear_s8/8 on m4"):
        found.instructions(Call("linear_s8", 0, "", 9, 8, 8, 8))


@pytest.mark.parametrize("board", [b.name for b in boards.all_boards() if b.kind != "host"])
def test_every_board_has_good_fits(board: str) -> None:
    found = costs.load(boards.load(board))
    assert found is not None, f"python benchmarks/costs.py {board}"
    for bits in (2, 3, 4, 8):
        assert {f"linear_s8/{bits}", f"linear_add_s16/{bits}", f"head/{bits}"} <= set(found.fits)
    for name, fit in found.fits.items():
        # Elementwise kernels, which hardly count, are off on their shortest rows.
        weighty = name.startswith(("linear", "attention", "frontend"))
        assert fit.max_error < (0.05 if weighty else 0.15), name


def test_the_file_is_what_is_written() -> None:
    assert costs.to_json(costs.all_costs().values()) == json.loads(costs.PATH.read_text())

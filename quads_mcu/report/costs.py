"""Executed instructions of a kernel call, predicted from its shape.

A kernel is a nest of loops, so its count is a sum of products of loop lengths. costs.json holds the
coefficients, fitted per core, kernel variant and bits to counts measured on the emulated core
(`make costs` measures and fits again); docs/analysis.md describes the method. No emulator, compiler
or weight is needed to use them.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.device import boards
from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError
from quads_mcu.export.work import Call

Values = NDArray[np.float64]

PATH = Path(__file__).parent / "costs.json"
# A form is good enough when no measured call is off by more.
TOLERANCE = 0.02
# A term that never makes up more of a count is left out.
NEGLIGIBLE = 5e-4
# Kernels that have weights: paths of their own for one, two and three rows.
WEIGHTED = ("linear_s8", "linear_add_s16", "head")
FEW_ROWS = 3
_FACTOR = re.compile(r"(rows|n_out|n_in)(?:(//|/|%)(\d+)(?:=(\d+))?)?")
_BLOCKS = re.compile(r"(\d+)rows/n_out")


@dataclass(frozen=True)
class Fit:
    """Instructions of one kernel as a sum: coefficient times product of factors, by term.

    A term is factors joined by `*`; a factor is rows, n_out or n_in, as it is, divided by a number
    (`//` rounds down, `/` up), or `%m=r`: one where the remainder is r, else zero; `16rows/n_out`
    is 16 rows / n_out, rounded up. max_error: the largest relative error over the `samples`
    measured calls.
    """

    terms: Mapping[str, float]
    max_error: float
    samples: int

    def instructions(self, call: Call) -> float:
        """Return the predicted instructions of a call of this kernel."""
        return sum(c * _term(term, call) for term, c in self.terms.items())


def fit(measured: Sequence[tuple[Call, int]], forms: Iterable[Sequence[str]]) -> Fit:
    """Fit the simplest of `forms` (lists of terms) that meets TOLERANCE, else the best one.

    Least squares of relative errors; forms need two calls per term.

    Raises:
        ConfigError: too few calls for every form.
    """
    counts = np.array([count for _, count in measured], np.float64)
    shares: dict[str, Values] = {}
    best: tuple[float, list[str]] | None = None
    for form in sorted(map(list, forms), key=len):
        if 2 * len(form) > len(measured):
            break
        for term in form:
            if term not in shares:
                shares[term] = np.array([_term(term, call) for call, _ in measured]) / counts
        error, _ = _solve(np.column_stack([shares[term] for term in form]))
        if best is None or error < best[0]:
            best = error, form
        if error <= TOLERANCE:
            break
    if best is None:
        raise ConfigError(f"{len(measured)} measured calls are too few for a fit")
    return _pruned(best[1], shares)


def _solve(shares: Values) -> tuple[float, Values]:
    """Return the coefficients with which every row adds up to about one, and the largest error."""
    solved = np.linalg.lstsq(shares, np.ones(len(shares)), rcond=None)[0]
    found: Values = solved.astype(np.float64)
    return float(np.abs(shares @ found - 1).max()), found


def _pruned(form: list[str], shares: Mapping[str, Values]) -> Fit:
    """Leave out, one by one, the terms that never make up more than NEGLIGIBLE of a count."""
    while True:
        values = np.column_stack([shares[term] for term in form])
        error, found = _solve(values)
        most = np.abs(values * found).max(axis=0)
        if most.min() >= NEGLIGIBLE:
            terms = {term: float(f"{c:.6g}") for term, c in zip(form, found, strict=True)}
            return Fit(terms, round(error, 5), len(values))
        form = [term for index, term in enumerate(form) if index != most.argmin()]


def forms(kernel: str, rows: int = 0) -> Iterable[list[str]]:
    """Yield the forms to try for `kernel`; rows: as in all calls, 0: they vary."""
    if kernel == "attention_head":
        whole = list(_forms(ATTENTION_PAIRS, ATTENTION_TOKENS, ATTENTION_WIDTHS))
        return [*whole, *(form + ATTENTION_BLOCKS for form in whole)]
    if kernel == "attention_pool":
        return _forms(*([["1", name, f"{name}/4"], ["1", name]] for name in ("rows", "n_out")))
    if kernel == "frontend":
        return iter([["1", "n_out", "rows", "rows*n_out"]])
    if kernel == "head" or rows:
        return _forms(FEW_OUTS, INS)
    if kernel in WEIGHTED:
        return _forms(ROWS, OUTS, INS)
    if kernel in ("layer_norm", "sum_rows"):
        return _forms([["1", "rows"]], WIDTHS)
    return iter(WIDTHS)


def _groups(name: str, size: int) -> list[str]:
    """Whole groups of `size`, and what a remainder of each length adds."""
    if size == 1:
        return ["1", name]
    return ["1", f"{name}//{size}", *(f"{name}%{size}={rest}" for rest in range(1, size))]


# How loops may divide each length; a form takes one line of each list.
ROWS = [
    [*_groups("rows", size), *chunk] for size in (1, 2, 3, 4, 8) for chunk in ([], ["rows//64"])
]
OUTS = [["1", "n_out"], ["1", "n_out/4"], ["1", "n_out/3"], ["1", "n_out/8"]]
FEW_OUTS = [[*_groups("n_out", size), *chunk]
            for size in (1, 2, 4, 8) for chunk in ([], ["n_out/128"])]  # fmt: skip
INS = [
    ["1", "n_in", *groups]
    for groups in ([], ["n_in/16"], ["n_in/32"], ["n_in/64"], ["n_in/16", "n_in/128"])
]
WIDTHS = [
    ["1", "n_out", *groups]
    for groups in ([], ["n_out/4"], ["n_out/8"], ["n_out/16"], ["n_out/8", "n_out/16", "n_out/64"])
]
ATTENTION_PAIRS = [["1", "rows"], ["1", "rows/2"], ["1", "rows/2", "rows"]]
ATTENTION_TOKENS = [
    [*_groups("rows", size), *chunk]
    for size in (1, 2, 4, 8)
    for chunk in ([], ["rows/32"], ["rows/64"])
]
ATTENTION_WIDTHS = [["1", "n_in"], ["1", "n_in", "n_in/16"]]
# Queries go in blocks of d_model / 16 where what is made for a block has to be small.
ATTENTION_BLOCKS = [
    "16rows/n_out",
    "16rows/n_out*rows",
    "16rows/n_out*rows*n_in",
    "16rows/n_out*n_in",
]


def _forms(*lengths: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield the products of every choice of one line per list."""
    for lines in itertools.product(*lengths):
        yield _products(*lines)


def _products(*factors: Sequence[str]) -> list[str]:
    terms = ("*".join(f for f in term if f != "1") or "1" for term in itertools.product(*factors))
    return list(dict.fromkeys(terms))


def _term(term: str, call: Call) -> int:
    value = 1
    for factor in term.split("*"):
        value *= 1 if factor == "1" else _factor(factor, call)
    return value


def _factor(factor: str, call: Call) -> int:
    if blocks := _BLOCKS.fullmatch(factor):
        return -(-int(blocks[1]) * call.rows // call.n_out)
    found = _FACTOR.fullmatch(factor)
    assert found, factor
    value: int = getattr(call, found[1])
    divisor = int(found[3] or 1)
    if found[2] == "%":
        return int(value % divisor == int(found[4]))
    return value // divisor if found[2] == "//" else -(-value // divisor)


def key(call: Call) -> str:
    """Return the entry of costs.json for a call: kernel, then bits, then rows if they are few."""
    name = call.kernel
    if call.bits:
        name += f"/{call.bits}"
        if call.rows <= FEW_ROWS and call.kernel != "head":
            name += f"/{call.rows}"
    return name


@dataclass(frozen=True)
class Costs:
    """Fits of one core with one kernel variant. `compiler`: whose code was measured."""

    core: str
    variant: str
    compiler: str
    fits: Mapping[str, Fit]

    def instructions(self, call: Call) -> float:
        """Return the predicted instructions of `call`.

        Raises:
            ConfigError: this kernel was never measured here.
        """
        found = self.fits.get(key(call)) or self.fits.get(f"{call.kernel}/{call.bits}")
        if found is None:
            raise ConfigError(
                f"no measured cost of {key(call)} on {self.core} with {self.variant} kernels; "
                "`make costs` measures them"
            )
        return found.instructions(call)


def core(board: Board) -> str:
    """Return the short name of a board's core: m0, m4, rv32imc; "" if its flags name none."""
    for flag in board.toolchain.flags:
        if flag.startswith("-mcpu=cortex-"):
            return flag.removeprefix("-mcpu=cortex-").removesuffix("plus")
        if flag.startswith("-march=rv"):
            return flag.removeprefix("-march=").split("_")[0]
    return ""


def load(board: Board) -> Costs | None:
    """Return the costs of a board's core and kernels, or None if they were never measured.

    A chip whose core no emulator counts has those of its nearest emulated board.
    """
    found = all_costs().get((core(board), board.kernels))
    return found or (load(boards.load(board.nearest)) if board.nearest else None)


@functools.cache
def all_costs() -> dict[tuple[str, str], Costs]:
    """Return what costs.json holds, by (core, kernel variant)."""
    found = {}
    for entry in json.loads(PATH.read_text(encoding="utf-8"))["costs"]:
        fits = {name: Fit(**values) for name, values in entry.pop("fits").items()}
        found[entry["core"], entry["variant"]] = Costs(fits=fits, **entry)
    return found


def to_json(costs: Iterable[Costs]) -> dict[str, Any]:
    """Return what costs.json holds."""
    return {
        "costs": [
            {
                "core": one.core,
                "variant": one.variant,
                "compiler": one.compiler,
                "fits": {
                    name: {
                        "terms": dict(found.terms),
                        "max_error": found.max_error,
                        "samples": found.samples,
                    }
                    for name, found in sorted(one.fits.items())
                },
            }
            for one in sorted(costs, key=lambda one: (one.core, one.variant))
        ]
    }

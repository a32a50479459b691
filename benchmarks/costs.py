"""Count instructions of frontend and kernels on the emulated cores and fit the cost model again.

Usage: python benchmarks/costs.py [BOARD ...]       (default: one of every core)

Writes quads_mcu/report/costs.json; boards that are not named keep their costs. Code for the core of
a chip is counted on the emulated board that stands in for it.
"""

from __future__ import annotations

import sys

from quads_mcu import console
from quads_mcu.device import boards
from quads_mcu.report import costs, kernel_counts
from quads_mcu.report.emulated_kernel import CORES
from quads_mcu.run_dir import write_json


def main() -> None:
    stand_ins = {
        (costs.core(one), one.kernels): board.name
        for board in boards.all_boards()
        if costs.core(one := kernel_counts.stand_in(board)) in CORES
    }
    chosen = sys.argv[1:] or list(stand_ins.values())
    found = costs.all_costs()
    for name in chosen:
        board = kernel_counts.stand_in(boards.load(name))
        with console.progress() as progress:
            fitted = kernel_counts.fit(board, progress)
        found[fitted.core, fitted.variant] = fitted
        rows = [
            (kernel, len(one.terms), one.samples, f"{100 * one.max_error:.3f} %")
            for kernel, one in sorted(fitted.fits.items())
        ]
        title = f"{fitted.core}, {fitted.variant} kernels, {fitted.compiler}"
        console.table(title, ("kernel", "terms", "calls measured", "largest error"), rows)
    kept = [one for pair, one in found.items() if pair in stand_ins]
    write_json(costs.PATH, costs.to_json(kept))


if __name__ == "__main__":
    main()

"""Count instructions of frontend and kernels on the emulated cores and fit the cost model again.

Usage: python benchmarks/costs.py [BOARD ...]       (default: every emulated board)

Writes quads_mcu/report/costs.json; boards that are not named keep their costs.
"""

from __future__ import annotations

import sys

from quads_mcu import console
from quads_mcu.device import boards
from quads_mcu.report import costs, kernel_counts
from quads_mcu.report.emulated_kernel import CORES
from quads_mcu.run_dir import write_json


def main() -> None:
    chosen = sys.argv[1:] or [
        board.name for board in boards.all_boards() if board.emulated and costs.core(board) in CORES
    ]
    found = costs.all_costs()
    for name in chosen:
        board = boards.load(name)
        with console.progress() as progress:
            fitted = kernel_counts.fit(board, progress)
        found[fitted.core, fitted.variant] = fitted
        rows = [
            (kernel, len(one.terms), one.samples, f"{100 * one.max_error:.3f} %")
            for kernel, one in sorted(fitted.fits.items())
        ]
        title = f"{fitted.core}, {fitted.variant} kernels, {fitted.compiler}"
        console.table(title, ("kernel", "terms", "calls measured", "largest error"), rows)
    used = {(costs.core(board), board.kernels) for board in boards.all_boards()}
    kept = [one for pair, one in found.items() if pair in used]
    write_json(costs.PATH, costs.to_json(kept))


if __name__ == "__main__":
    main()

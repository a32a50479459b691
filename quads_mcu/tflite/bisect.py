"""`quads-mcu validate --bisect A B`: the first layer at which two runtimes part.

Both compute the same windows; every point is compared in order of computation. They part where the
relative error, the root mean square of the difference over that of A, first exceeds a limit: 0 for
runtimes of the same arithmetic, rounding for float ones, and what int8 activations cost otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.export import pack
from quads_mcu.run_dir import RunDir
from quads_mcu.tflite import interpreters, runtimes, validate
from quads_mcu.tflite.points import Values
from quads_mcu.tflite.runtimes import Runtime

# Runtimes with bit-equal results; LiteRT's and tflite-micro's int8 kernels round differently.
_SAME_ARITHMETIC = ({"tflm", "lut"}, {"reference", "c"})
# Relative error that a runtime may have against the codebook student in float.
_ROUNDING = {"torch": 0.0, "onnx": 1e-3, "float32": 1e-3, "float16": 2e-2}
INT8_LIMIT = 0.25
DEFAULT_COUNT = 4
COLUMNS = ("point", "std A", "std B", "error", "gain", "corr.")


@dataclass(frozen=True)
class Comparison:
    """One point in both runtimes, over all windows.

    error: relative, as above. gain: the factor g that brings g * A + offset closest to B: 1 where
    scales agree. correlation: 1 where B is A but for scale and offset. worst: window, row and
    channel of the largest difference.
    """

    point: str
    minimum: tuple[float, float]
    maximum: tuple[float, float]
    mean: tuple[float, float]
    std: tuple[float, float]
    error: float
    gain: float
    correlation: float
    worst: tuple[int, int, int]
    worst_values: tuple[float, float]

    def cells(self) -> tuple[str, ...]:
        """Return the comparison as text, as COLUMNS."""
        return (
            self.point,
            *(f"{number:.4f}" for number in self.std),
            f"{self.error:.4f}",
            f"{self.gain:.3f}",
            f"{self.correlation:.4f}",
        )


@dataclass(frozen=True)
class Bisection:
    """All comparisons in order, and the first point whose error exceeds the limit."""

    first: str
    second: str
    limit: float
    comparisons: list[Comparison]

    @property
    def parting(self) -> Comparison | None:
        """The point at which they part, or None."""
        return next((found for found in self.comparisons if found.error > self.limit), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"parting": self.parting.point if self.parting else None}

    def verdict(self) -> str:
        """Return in words what was found."""
        found = self.parting
        if found is None:
            return (
                f"{self.first} and {self.second} do not part: no error above {self.limit:g} at "
                f"{len(self.comparisons)} points"
            )
        window, row, channel = found.worst
        return (
            f"{self.first} and {self.second} part at {found.point}: error {found.error:.3g}, limit "
            f"{self.limit:g}; {_why(found)}\n"
            f"  A: {_statistics(found, 0)}\n"
            f"  B: {_statistics(found, 1)}\n"
            f"  largest difference in window {window}, row {row}, channel {channel}: "
            f"{found.worst_values[0]:.4g} against {found.worst_values[1]:.4g}"
        )


def limit_for(first: str, second: str) -> float:
    """Return the relative error up to which two runtimes agree."""
    if first == second or any({first, second} <= group for group in _SAME_ARITHMETIC):
        return 0.0
    return max(_ROUNDING.get(key, INT8_LIMIT) for key in (first, second))


def bisect(
    first: Runtime, second: Runtime, mel: NDArray[np.int8], limit: float | None = None
) -> Bisection:
    """Compare two runtimes point by point.

    Args:
        mel: windows, int8 (N, n_frames, n_mels), N at least 1.
        limit: relative error at which they part; None: as `limit_for`.
    """
    traces = [(first.points(window), second.points(window)) for window in mel]
    chosen = limit_for(first.key, second.key) if limit is None else limit
    return Bisection(first.key, second.key, chosen, compare(traces))


def of_run(
    run: RunDir,
    keys: tuple[str, str],
    split: str,
    progress: Progress,
    *,
    count: int = 0,
    limit: float | None = None,
) -> Bisection:
    """Bisect two runtimes of a run on `count` utterances of a split (0: DEFAULT_COUNT).

    Raises:
        ConfigError: an unknown runtime, or a run that is not converted.
    """
    interpreters.require()
    model = pack.pack(run.path)
    first, second = (runtimes.open_runtime(key, run, model, progress) for key in keys)
    mel, _ = validate.utterances(run, model, split, count or DEFAULT_COUNT, progress)
    return bisect(first, second, mel, limit)


def compare(
    traces: Sequence[tuple[Mapping[str, Values], Mapping[str, Values]]],
) -> list[Comparison]:
    """Compare the points that both sides have, in the order of the first side's."""
    shared = [name for name in traces[0][0] if name in traces[0][1]]
    found = []
    for name in shared:
        a, b = (np.stack([trace[side][name] for trace in traces]) for side in (0, 1))
        found.append(_compare(name, a, b))
    return found


def _compare(point: str, a: Values, b: Values) -> Comparison:
    difference = b - a
    size = float(np.sqrt((a**2).mean()))
    error = float(np.sqrt((difference**2).mean()))
    window, row, channel = np.unravel_index(int(np.abs(difference).argmax()), a.shape)
    centred_a, centred_b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((centred_a**2).sum() * (centred_b**2).sum()))
    return Comparison(
        point=point,
        minimum=(float(a.min()), float(b.min())),
        maximum=(float(a.max()), float(b.max())),
        mean=(float(a.mean()), float(b.mean())),
        std=(float(a.std()), float(b.std())),
        error=_relative(error, size),
        gain=float((centred_a * centred_b).sum() / max(float((centred_a**2).sum()), 1e-24)),
        correlation=float((centred_a * centred_b).sum()) / spread if spread else 1.0,
        worst=(int(window), int(row), int(channel)),
        worst_values=(float(a[window, row, channel]), float(b[window, row, channel])),
    )


def _relative(error: float, size: float) -> float:
    if not np.isfinite(error):
        return float("inf")
    return error / max(size, 1e-12) if error else 0.0


def _why(found: Comparison) -> str:
    if not np.isfinite(found.error):
        return "values that are not finite"
    if found.std[1] == 0 < found.std[0]:
        return "B is constant: an operator that saturates, or weights that are all alike"
    if found.correlation > 0.98 and abs(found.gain - 1) > 0.1:
        return f"B is A times {found.gain:.3f}: a scale is wrong"
    if found.correlation > 0.98:
        return "same shape, other offset: a bias or a zero point is wrong"
    if found.std[1] < 0.5 * found.std[0]:
        return "B is flatter: values saturate or a grid is too coarse"
    return f"correlation {found.correlation:.3f}: other weights, or a grid that is too coarse"


def _statistics(found: Comparison, side: int) -> str:
    return (
        f"{found.minimum[side]:.4g} .. {found.maximum[side]:.4g}, mean {found.mean[side]:.4g}, "
        f"standard deviation {found.std[side]:.4g}"
    )

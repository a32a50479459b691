"""What rejection costs: false accepts per hour against false rejects, as figures and a plot."""

from __future__ import annotations

from typing import Any

import numpy as np

from quads_mcu import model_format
from quads_mcu.console import Progress
from quads_mcu.export import rejection
from quads_mcu.report.statistics import wilson_interval
from quads_mcu.run_dir import RunDir, write_json, write_text

FIGURES = "rejection.json"
PLOT = "rejection.svg"

# The plot: its axes reach from the least to the greatest; zero lies on the left edge.
_WIDTH, _HEIGHT, _MARGIN = 560, 340, 56
_PER_HOUR = (0.1, 1000.0)


def evaluate(run: RunDir, split: str, progress: Progress) -> dict[str, Any] | None:
    """Measure a run's rejection on one split; the test split's is kept with its plot.

    Returns:
        What the packed threshold costs, and the whole curve; None without [data] unknown, and
        where this split has no command or no unknown speech.
    """
    config = run.config()
    if not config.data.unknown:
        return None
    model = model_format.read(run.model_path)
    heard = rejection.listen(model, config, split, progress)
    if not len(heard.commands) or not len(heard.others):
        return None
    found = figures(heard, model.reject_threshold) | {"model_hash": model.model_hash}
    if split == "test":
        write_json(run.path / FIGURES, found)
        write_text(run.path / PLOT, plot(found))
    return found


def figures(heard: rejection.Heard, threshold: int) -> dict[str, Any]:
    """Return the operating point with its 95 % intervals, and the curve."""
    point = rejection.point(heard, threshold)
    low, high = wilson_interval(point["false_rejects"], len(heard.commands))
    per_hour = [bound / heard.hours for bound in poisson_interval(point["false_accepts"])]
    return {
        "split": heard.split,
        "commands": len(heard.commands),
        "unknown_windows": len(heard.others),
        "unknown_hours": round(heard.hours, 4),
        "point": point
        | {
            "false_reject_interval_95_percent": [round(100 * low, 3), round(100 * high, 3)],
            "false_accepts_per_hour_interval_95": [round(bound, 3) for bound in per_hour],
        },
        "curve": rejection.curve(heard),
    }


def poisson_interval(count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a Poisson mean (Garwood 1936)."""
    from scipy.special import gammaincinv

    low = float(gammaincinv(count, 0.025)) if count else 0.0
    return low, float(gammaincinv(count + 1, 0.975))


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the operating point as (what, count, rate with interval)."""
    point = found["point"]
    rejects = "{:.1f}-{:.1f}".format(*point["false_reject_interval_95_percent"])
    accepts = "{:.2f}-{:.2f}".format(*point["false_accepts_per_hour_interval_95"])
    return [
        (
            "commands rejected",
            f"{point['false_rejects']} / {found['commands']}",
            f"{point['false_reject_percent']:.1f} % ({rejects})",
        ),
        (
            "false accepts",
            f"{point['false_accepts']} in {found['unknown_hours']:.2f} h",
            f"{point['false_accepts_per_hour']:.2f} per hour ({accepts})",
        ),
    ]


def plot(found: dict[str, Any]) -> str:
    """Return the curve as SVG: false accepts per hour (logarithmic) against false rejects."""
    highest = max(1.0, *(p["false_reject_percent"] for p in found["curve"]))

    def x(per_hour: float) -> float:
        low, high = np.log10(_PER_HOUR)
        share = (np.log10(np.clip(per_hour, *_PER_HOUR)) - low) / (high - low)
        return float(_MARGIN + share * (_WIDTH - 2 * _MARGIN))

    def y(percent: float) -> float:
        return float(_HEIGHT - _MARGIN - percent / highest * (_HEIGHT - 2 * _MARGIN))

    line = " ".join(
        f"{x(p['false_accepts_per_hour']):.1f},{y(p['false_reject_percent']):.1f}"
        for p in found["curve"]
    )
    point = found["point"]
    at = x(point["false_accepts_per_hour"]), y(point["false_reject_percent"])
    ticks = [_text(x(v), _HEIGHT - _MARGIN + 18, f"{v:g}", "middle") for v in (1, 10, 100, 1000)]
    ticks.append(_text(x(_PER_HOUR[0]), _HEIGHT - _MARGIN + 18, f"≤ {_PER_HOUR[0]:g}", "middle"))
    ticks += [_text(_MARGIN - 8, y(v) + 4, f"{v:.3g}", "end") for v in (0, highest / 2, highest)]
    frame = (
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_WIDTH - 2 * _MARGIN}" '
        f'height="{_HEIGHT - 2 * _MARGIN}" fill="none" stroke="#c8ccd0"/>'
    )
    title = (
        f"{found['commands']} commands, {found['unknown_hours']:.2f} h of unknown speech, split "
        f"{found['split']}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            frame,
            f'<polyline points="{line}" fill="none" stroke="#4878a8" stroke-width="2"/>',
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5" fill="#cf222e"/>',
            *ticks,
            _text(_WIDTH / 2, 28, title, "middle"),
            _text(_WIDTH / 2, _HEIGHT - 12, "false accepts per hour", "middle"),
            _text(_MARGIN, _MARGIN - 8, "commands rejected, percent", "start"),
            _text(at[0] + 9, at[1] - 6, "packed threshold", "start"),
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'

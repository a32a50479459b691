"""Tables of `analyze` and `profile`: (title, columns, rows of text)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quads_mcu.device.memory import Usage
from quads_mcu.model.dimensions import FRAMES_PER_S
from quads_mcu.report.analysis import Analysis, Part, place_name
from quads_mcu.report.profile import Profile, error

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def predicted(found: Analysis) -> Iterator[Table]:
    """Yield the tables of an analysis: memory, work, and what to change if it does not fit."""
    dims = found.dims
    bits = " and ".join(map(str, found.bits))
    title = (
        f"{found.name} on {found.board}: d={dims.d_model} x {dims.n_layers} layers, {bits} bit, "
        f"{dims.n_mels} mels, {dims.n_frames / FRAMES_PER_S:g} s, {dims.n_classes} classes"
    )
    columns = ("memory", "holds", "bytes", "available", "left")
    yield (
        title,
        columns,
        [_region_row(one) for one in found.memory.regions]
        or [
            ("arena", "", f"{found.memory.cost.arena_bytes:,}", "-", "-"),
            ("weights", "", f"{found.memory.cost.weight_bytes:,}", "-", "-"),
        ],
    )
    yield (
        "Work per utterance, predicted",
        ("", "MMAC", "instructions", "share", "est. ms", "est. mJ"),
        _work_rows(found),
    )
    if found.ways:
        yield (
            "What would fit",
            ("change", "flash", "RAM"),
            [(way.change, _count(way.flash_bytes), _count(way.ram_bytes)) for way in found.ways],
        )


def notes(found: Analysis) -> Iterator[str]:
    """Yield how the figures came about and what follows from them, a line each."""
    factor = found.real_time_factor
    if factor is not None:
        pace = "keeps up with speech" if factor <= 1 else "slower than speech"
        yield f"real-time factor {factor:.2f} (estimate): {pace}"
    yield from found.method


def measured(found: Profile) -> Iterator[Table]:
    """Yield the tables of a profile: work and memory, predicted beside measured."""
    dims = found.predicted.dims
    rows: list[tuple[str, ...]] = [
        (
            f"{place_name(place, dims)}, {stage}",
            _count(before),
            f"{after:,}",
            _percent(error(before, after)),
        )
        for place, stage, before, after in found.rows()
    ]
    total = found.predicted.instructions
    rows.append(("total", _count(total), f"{found.total:,}", _percent(error(total, found.total))))
    columns = ("", "predicted", "measured", "error")
    title = f"{found.predicted.name} on {found.predicted.board}: instructions per utterance"
    yield title, columns, rows
    yield "Memory, bytes", columns, list(_memory_rows(found))


def _region_row(one: Usage) -> tuple[str, ...]:
    left = one.size_bytes - one.used_bytes
    contents = ", ".join(one.contents)
    return one.region, contents, f"{one.used_bytes:,}", f"{one.size_bytes:,}", f"{left:,}"


def _work_rows(found: Analysis) -> list[tuple[str, ...]]:
    rows = []
    place = -1
    for part in found.parts:
        if part.place != place:
            place = part.place
            whole = [one for one in found.parts if one.place == place]
            rows.append(_work_row(place_name(place, found.dims), whole, found))
        rows.append(_work_row(f"  {part.stage}", [part], found))
    return [*rows, _work_row("total", found.parts, found)]


def _work_row(name: str, parts: Iterable[Part], found: Analysis) -> tuple[str, ...]:
    parts = list(parts)
    macs = f"{sum(part.macs for part in parts) / 1e6:.2f}"
    if found.instructions is None:
        return name, macs, "-", "-", "-", "-"
    count = sum(part.instructions or 0 for part in parts)
    share = f"{100 * count / found.instructions:.1f} %"
    if found.latency_ms is None:
        return name, macs, f"{count:,}", share, "-", "-"
    latency_ms = sum(part.latency_ms or 0.0 for part in parts)
    latency = f"{latency_ms:,.1f}"
    if found.energy_mj is None:
        return name, macs, f"{count:,}", share, latency, "-"
    energy_mj = sum(part.energy_mj or 0.0 for part in parts)
    return name, macs, f"{count:,}", share, latency, f"{energy_mj:.3f}"


def _memory_rows(found: Profile) -> Iterator[tuple[str, ...]]:
    before = {one.region: one.used_bytes for one in found.predicted.memory.regions}
    build, stats = found.measured.build, found.measured.stats
    for one in build.regions:
        known = before.get(one.region, 0)
        yield (
            f"{one.region} ({', '.join(one.contents)})",
            f"{known:,}",
            f"{one.used_bytes:,}",
            _percent(error(known, one.used_bytes)),
        )
    arena = found.predicted.memory.cost.arena_bytes
    used = stats.arena_used_bytes
    yield "arena, highest byte used", f"{arena:,}", f"{used:,}", _percent(error(arena, used))
    stack = found.predicted.memory.cost.stack_bytes
    yield "stack, of its reserve", f"{stack:,}", f"{stats.stack_used_bytes:,}", ""


def _count(value: float | None) -> str:
    return "-" if value is None else f"{round(value):,}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f} %"

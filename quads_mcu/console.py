"""The only module that prints. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 10.0

# advance(description, completed, total)
Progress = Callable[[str, float, float], None]

Said = TypeVar("Said", bound=Hashable)
_said: set[Hashable] = set()

# A file or a pipe has no width that a table must keep to.
_FILE_WIDTH = 400


@functools.cache
def stdout() -> Console:
    """Return the console for results."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


@functools.cache
def stderr() -> Console:
    """Return the console for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print one line of progress or advice on stderr."""
    stderr().print(text, markup=False)


def warn(text: str) -> None:
    """Print one warning on stderr."""
    stderr().print(f"warning: {text}", style="yellow", markup=False)


def unsaid(items: Iterable[Said]) -> list[Said]:
    """Return what this process has not had here before: a command loads its data several times."""
    found = [item for item in dict.fromkeys(items) if item not in _said]
    _said.update(found)
    return found


def error(text: str) -> None:
    """Print one error line on stderr."""
    stderr().print(f"error: {text}", style="red", markup=False)


def result(text: str) -> None:
    """Print a result on stdout."""
    stdout().print(text, markup=False)


def result_json(value: object) -> None:
    """Print a result as indented JSON on stdout, uncoloured."""
    stdout().out(json.dumps(value, indent=2, sort_keys=False), highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout; every column after the first is right-aligned."""
    from rich import box
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for position, column in enumerate(columns):
        grid.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    stdout().print(grid, markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Show a progress bar on stderr; on a non-terminal, a line every ten seconds."""
    if not stderr().is_terminal:
        yield _line_progress()
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=stderr(), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(description: str, completed: float, total: float) -> None:
            if description not in tasks:
                tasks[description] = bars.add_task(description, total=total)
            bars.update(tasks[description], completed=completed, total=total)

        yield advance


def _line_progress() -> Progress:
    started_s: dict[str, float] = {}
    printed_s: dict[str, float] = {}

    def advance(description: str, completed: float, total: float) -> None:
        now_s = time.monotonic()
        started_s.setdefault(description, now_s)
        done = completed >= total and now_s - started_s[description] >= LINE_EVERY_S / 5
        if done or now_s - printed_s.get(description, started_s[description]) >= LINE_EVERY_S:
            printed_s[description] = now_s
            note(f"{description}: {completed:.0f}/{total:.0f}")

    return advance

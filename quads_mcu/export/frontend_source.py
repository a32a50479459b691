"""The C header with the frontend's tables, from templates/frontend_tables.h.j2."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio.fixed_frontend import fixed_tables
from quads_mcu.audio.frontend import FIXED, FLOAT
from quads_mcu.audio.frontend_tables import tables
from quads_mcu.paths import data_dir


def render(n_mels: int, arithmetic: str = FLOAT) -> str:
    """Return the text of `frontend_tables.h` for `n_mels` bands and one of FRONTENDS.

    Raises:
        AudioError: n_mels is out of range.
        InstallationError: the templates are not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"float32": float_literal, "array": _array, "rows": _rows}
    return environment.get_template("frontend_tables.h.j2").render(
        t=tables(n_mels), fixed=fixed_tables(n_mels) if arithmetic == FIXED else None
    )


def float_literal(value: np.float32) -> str:
    """Return the shortest C literal that reads back as exactly `value`, such as `1.5e-05f`.

    Raises:
        TypeError: value is not float32.
    """
    if not isinstance(value, np.float32):
        raise TypeError(f"{value!r} is not float32")
    return f"{float(str(value))!r}f"


def _numbers(values: NDArray[Any]) -> list[str]:
    is_float = values.dtype == np.float32
    return [float_literal(value) if is_float else str(value) for value in values.ravel()]


def _array(values: NDArray[Any]) -> str:
    """Return all numbers in row-major order, wrapped and indented."""
    text = ", ".join(_numbers(values))
    return textwrap.fill(text, 98, initial_indent="  ", subsequent_indent="  ")


def _rows(values: NDArray[Any]) -> str:
    """Return the rows of a matrix, each in braces."""
    rows = (", ".join(_numbers(row)) for row in values)
    return textwrap.fill(
        ", ".join(f"{{{row}}}" for row in rows),
        98,
        initial_indent="  ",
        subsequent_indent="  ",
    )

"""HTML pages from templates/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quads_mcu.paths import data_dir
from quads_mcu.run_dir import write_text


def write(path: Path, template: str, values: dict[str, Any]) -> None:
    """Render a template with `values` as `r` and write it to `path`, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
    )
    write_text(path, environment.get_template(template).render(r=values))

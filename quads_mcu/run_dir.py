"""Where one run keeps its files, and the settings it was made with.

runs/NAME/
    config.json              settings and the folder that relative paths start from
    history.json ...         training (see docs/training.md)
    training.html            its report
    model.safetensors        the packed model
    evaluation.json          float student and integer reference on the test split
    rejection.json, .svg     false accepts and false rejects on the test split
    BOARD/source/            generated C
    BOARD/FORMAT/            project for a chip: esp-idf, pico-sdk, ...
    BOARD/build/             objects and firmware.elf
    BOARD/listen/            the same of the firmware that listens
    BOARD/report/            report.json, report.html, junit.xml
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quads_mcu import atomic
from quads_mcu import config as project
from quads_mcu.errors import ConfigError

# Settings that do not change what a run holds, so that they may change between two commands.
FREE = {
    "[project] name",
    "[train] threads",
    "[train] device",
    "[rejection] false_accepts_per_hour",
    "[target] board",
}
FREE_SECTIONS = ("[listen]", "[thresholds]")


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run's folder."""

    path: Path

    @property
    def config_path(self) -> Path:
        """Settings of the run."""
        return self.path / "config.json"

    @property
    def model_path(self) -> Path:
        """The packed model."""
        return self.path / "model.safetensors"

    @property
    def evaluation_path(self) -> Path:
        """Predictions and accuracy on the test split."""
        return self.path / "evaluation.json"

    @property
    def training_report_path(self) -> Path:
        """Report of the training."""
        return self.path / "training.html"

    def source_dir(self, board: str) -> Path:
        """Generated C for `board`."""
        return self.path / board / "source"

    def project_dir(self, board: str, fmt: str) -> Path:
        """Project of format `fmt` for `board`, a chip."""
        return self.path / board / fmt

    def build_dir(self, board: str) -> Path:
        """Objects and firmware of `board`."""
        return self.path / board / "build"

    def listen_dir(self, board: str) -> Path:
        """Objects and firmware of `board` that listens."""
        return self.path / board / "listen"

    def report_dir(self, board: str) -> Path:
        """What was measured on `board`."""
        return self.path / board / "report"

    def write_config(self, config: project.Config) -> None:
        """Store the settings; an existing run must have the same ones, but for FREE.

        Raises:
            ConfigError: the folder belongs to a run with other settings; names them.
        """
        settings = project.to_tree(config)
        tree: dict[str, Any] = {"root": str(config.root.resolve()), "settings": settings}
        if self.config_path.exists():
            found = self._stored()
            differing = _differences(found["settings"], tree["settings"])
            if found["root"] != tree["root"] or differing:
                raise ConfigError(
                    f"{self.path} holds a run with other settings "
                    f"({', '.join(differing) or 'project folder'}); "
                    "choose another --run, or delete that folder"
                )
        write_json(self.config_path, tree)

    def config(self) -> project.Config:
        """Return the settings this run was made with.

        Raises:
            ConfigError: not a run's folder, or settings this version does not know.
        """
        stored = self._stored()
        where = str(self.config_path)
        return project.from_tree(stored["settings"], where=where, root=Path(stored["root"]))

    def _stored(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.config_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path} is not a run (no {self.config_path.name}); "
                f"`quads-mcu train --run {self.path}` makes one"
            ) from None
        except ValueError as problem:
            raise ConfigError(f"{self.config_path}: not valid JSON: {problem}") from None
        if not isinstance(stored, dict) or not {"root", "settings"} <= set(stored):
            raise ConfigError(f"{self.config_path}: not the settings of a run")
        return stored


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, making the folder if needed.

    Raises:
        StorageError: the file cannot be written.
    """
    atomic.write(path, text.encode())


def _differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Return "[section] key" of what differs; a key that is missing, as of old, is the default."""
    names = []
    defaults = project.to_tree(project.Config())
    for section in sorted(set(left) | set(right)):
        default = defaults.get(section, {})
        a, b = default | left.get(section, {}), default | right.get(section, {})
        names += [f"[{section}] {k}" for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)]
    return [name for name in names if name not in FREE and not name.startswith(FREE_SECTIONS)]

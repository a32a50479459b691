"""What every project format is made from: runtime, application and model as files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quads_mcu.config import Config
from quads_mcu.device import build
from quads_mcu.device.boards import Board
from quads_mcu.export import csource, image
from quads_mcu.export.listener import GateSettings
from quads_mcu.export.project import Cost
from quads_mcu.model_format import PackedModel
from quads_mcu.paths import data_dir

Files = dict[str, str | bytes]

WEIGHTS = ("header", "bin")
IMAGE = "model.bin"


@dataclass(frozen=True)
class Project:
    """One model for one board, about to become a project folder.

    weights: "header", constant arrays in model_data.c, compiled in; "bin", a model image
    (export/image.py) that lies in a flash region of its own.
    """

    model: PackedModel
    board: Board
    cost: Cost
    config: Config
    weights: str

    def runtime(self) -> dict[str, str]:
        """Return the runtime with the board's kernels: quads/src/..., quads/include/...

        A build needs quads/src and quads/include as include folders, besides the model's.
        """
        firmware = data_dir("firmware")
        folders = [firmware / "src" / "kernels" / name for name in ("plain", self.board.kernels)]
        folders += [firmware / "src" / name for name in ("", "frontend", "kernels")]
        headers = [path for folder in folders for path in folder.glob("*.h")]
        headers += (firmware / "include").glob("*.h")
        return _texts(firmware, [*headers, *build.runtime_sources(self.board.kernels)])

    def application(self) -> dict[str, str]:
        """Return test server and listening firmware: quads/app/..., quads/listen/..., quads/ports/.

        quads/ports/quads_port.h says what a format's own C files have to define; app/main.c and
        listen/main.c are two programs, of which a build takes one.
        """
        firmware = data_dir("firmware")
        folders = [firmware / "app", firmware / "listen"]
        found = [path for folder in folders for path in folder.glob("*.[ch]")]
        return _texts(firmware, [*found, firmware / "ports" / "quads_port.h"])

    def folders(self, *names: str) -> dict[str, str]:
        """Return the files of these folders of firmware/: quads/<name>/..."""
        firmware = data_dir("firmware")
        found = [path for name in names for path in (firmware / name).iterdir()]
        return _texts(firmware, found)

    def demo_ram_bytes(self) -> int:
        """Return what the demo keeps that the server does not: the ring of frames heard."""
        dims = self.model.dims
        ring_frames = GateSettings.of(self.config.listen).ring_frames(dims.n_frames)
        return ring_frames * dims.n_mels + dims.n_frames

    def model_sources(self) -> Files:
        """Return the generated C by file name, and with weights "bin" the image, `model.bin`.

        model_data.c with weights "header" alone, the headers always (csource.render_headers).

        Raises:
            ModelFormatError: the model breaks a bound of docs/arithmetic.md.
        """
        kernels, listen = self.board.kernels, self.config.listen
        if self.weights == "header":
            return {**csource.render_sources(self.model, kernels, listen)}
        files: Files = {**csource.render_headers(self.model, kernels, listen)}
        return files | {IMAGE: image.pack(self.model, kernels)}

    def render(self, template: str, **values: Any) -> str:
        """Return a template (a path in templates/) rendered with `project`, `board` and `values`.

        Raises:
            InstallationError: the templates are missing.
        """
        return csource.render(template, {"project": self, "board": self.board} | values)


def _texts(firmware: Path, paths: Iterable[Path]) -> dict[str, str]:
    names = {f"quads/{path.relative_to(firmware).as_posix()}": path for path in sorted(set(paths))}
    return {name: path.read_text(encoding="utf-8") for name, path in names.items()}

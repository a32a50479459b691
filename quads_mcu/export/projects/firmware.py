"""The C of a project: runtime, two programs, ports and model, laid out alike in every format.

quads/include, quads/src   the runtime
quads/app, quads/demo      the programs: a server that answers tests, and one that listens
quads/ports                what the programs need of a board
quads/model                generated from the model, with the settings of the build
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from quads_mcu.device.boards import Board
from quads_mcu.export.projects.project import Files, Project

INCLUDES = ("quads/include", "quads/src", "quads/ports", "quads/model")
NONE: Mapping[str, int] = MappingProxyType({})
RECEIVE_RING = ("receive_ring.c", "receive_ring.h")
MODEL = "quads/model"
# Files of app/ that the demo needs, too.
BOTH = {"quads/app/update.c"}
MAIN = "int main(int argc, char **argv)"
MAINS = {"quads/app/main.c": "quads_server_main", "quads/demo/main.c": "quads_demo_main"}
FORMAT_HEADER = f"{MODEL}/quads_format.h"


def sources(
    project: Project, *ports: str, without: Collection[str] = (), settings: Mapping[str, int] = NONE
) -> Files:
    """Return everything under quads/, with the C of these folders of firmware/ports/.

    settings: definitions beside those that every build has.
    without: names of files of ports/chips that the port does in its own way.
    """
    folders = ["demo", "ports/chips", *(f"ports/{name}" for name in ports)]
    files: Files = {**project.runtime(), **project.application(), **project.folders(*folders)}
    dropped = {f"quads/ports/chips/{name}" for name in without}
    files = {
        name: text
        for name, text in files.items()
        if not name.startswith("quads/listen/") and name not in dropped
    }
    files |= {f"{MODEL}/{name}": text for name, text in project.model_sources().items()}
    files[FORMAT_HEADER] = _settings(project.board, settings) + str(files[FORMAT_HEADER])
    return files


def rename_mains(files: Files) -> Files:
    """Return the files with quads_server_main and quads_demo_main in place of two functions main.

    For systems that define main themselves.
    """
    renamed = dict(files)
    for path, name in MAINS.items():
        text = str(files[path])
        assert text.count(MAIN) == 1, path
        declared = f"int {name}(int argc, char **argv)"
        renamed[path] = text.replace(MAIN, f"{declared};\n\n{declared}")
    return renamed


@dataclass(frozen=True)
class Programs:
    """Names of the C and assembly files that both programs share, and those of each, sorted."""

    shared: list[str]
    server: list[str]
    demo: list[str]

    @classmethod
    def of(cls, files: Files) -> Programs:
        """Sort the files under quads/."""
        names = [
            name
            for name in sorted(files)
            if name.startswith("quads/") and PurePosixPath(name).suffix in {".c", ".S"}
        ]
        server, demo = (
            [name for name in names if name.startswith(f"quads/{folder}/") and name not in BOTH]
            for folder in ("app", "demo")
        )
        return cls([name for name in names if name not in {*server, *demo}], server, demo)

    def to_values(self) -> dict[str, list[str]]:
        """Return the lists by name, for templates."""
        return {"shared": self.shared, "server": self.server, "demo": self.demo}


def _settings(board: Board, more: Mapping[str, int]) -> str:
    """Return what other builds give on the command line: so that no project has to."""
    return (
        f"/* Settings of this build, for {board.name}. */\n"
        f"#define QUADS_KERNELS QUADS_KERNELS_{board.kernels.upper()}\n"
        f'#define QUADS_BOARD_NAME "{board.name}"\n'
        "#define QUADS_PORT_SHOWS\n"
        + "".join(f"#define {name} {value}\n" for name, value in more.items())
        + "\n"
    )

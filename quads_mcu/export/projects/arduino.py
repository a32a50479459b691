"""An Arduino library (1.5 format): examples Listen and Server, the runtime under src/."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from quads_mcu import __version__
from quads_mcu.export import csource
from quads_mcu.export.projects import firmware
from quads_mcu.export.projects.project import Files, Project

WEIGHTS = ("header",)
# Sketches have the only include folder of a library: everything that others include lies there.
ROOTS = ("quads/include/", "quads/src/", "quads/model/", "quads/ports/arduino/", "quads/ports/")
UNFUSED = (
    "/* No fused multiply-add: features are those of the reference, bit by bit. */\n"
    '#pragma GCC optimize("-ffp-contract=off")\n\n'
)
# Boards whose microphone the library knows.
MICROPHONES = {
    "arduino-nano33ble": "The microphone is that of the Nano 33 BLE Sense (core's PDM library)."
}
NO_MICROPHONE = (
    "This board has no microphone that the library knows: README.md says how to add one."
)
TYPES = ("quads_t", "quads_model_t", "quads_listen_t", "quads_listen_event_t")
FUNCTIONS = (
    "quads_demo", "quads_server", "microphone_start", "microphone_put", "quads_init", "quads_push",
    "quads_close", "quads_infer", "quads_decide", "quads_restart", "quads_listen_init",
    "quads_listen_push", "quads_listen_run",
)  # fmt: skip
CORES = {
    "esp32": "https://espressif.github.io/arduino-esp32/package_esp32_index.json",
    "rp2040": "https://github.com/earlephilhower/arduino-pico/releases/download/global/"
    "package_rp2040_index.json",
}


def files(project: Project) -> Files:
    """Return the library.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    return library(project) | {
        "README.md": project.render("arduino/README.md.j2", **values(project)),
        "examples/Listen/Listen.ino": project.render("arduino/Listen.ino.j2", **values(project)),
        "examples/Server/Server.ino": project.render("arduino/Server.ino.j2"),
    }


def library(project: Project) -> Files:
    """Return what every sketch needs: src/, library.properties, keywords.txt."""
    sources = firmware.sources(project, "arduino", without=firmware.RECEIVE_RING)
    found: Files = {
        f"src/{_place(path)}": _adapted(path, content)
        for path, content in firmware.rename_mains(sources).items()
    }
    for name in ("library.properties", "keywords.txt"):
        found[name] = project.render(f"arduino/{name}.j2", **values(project))
    return found


def _place(path: str) -> str:
    root = next((root for root in ROOTS if path.startswith(root)), "quads/")
    return path.removeprefix(root)


def _adapted(path: str, content: str | bytes) -> str | bytes:
    if isinstance(content, bytes):
        return content
    where = PurePosixPath(path)
    if where.parent.name == "frontend" and where.suffix == ".c":
        return UNFUSED + content
    return content


def values(project: Project) -> dict[str, object]:
    """Return what the templates of library and sketches say of this board and model."""
    board, model = project.board, project.model
    # Boards that PlatformIO has and no core in this list: their architecture is not known here.
    vendor, architecture = board.project.get("arduino_fqbn", "any:*").split(":")[:2]
    index = CORES.get(architecture)
    names = csource.answer_names(model.slots)[0]
    return {
        "version": __version__,
        "architecture": architecture,
        "core": f"{vendor}:{architecture}",
        "core_hint": f"\n   with `--additional-urls {index}`" if index else "",
        "paragraph": re.sub(
            r"\s+",
            " ",
            f"For {board.description}; model {model.model_hash[:12]}, exported by quads-mcu.",
        ),
        "microphone": MICROPHONES.get(board.name, NO_MICROPHONE),
        "has_microphone": board.name in MICROPHONES,
        "answers": [name for index, name in enumerate(names) if index != model.unknown_class],
        "types": TYPES,
        "functions": FUNCTIONS,
        "constants": [*names, "QUADS_MODEL_SLOTS"],
        "unproven": [
            "the Arduino core itself: the library compiles against a stand-in of its API",
            "latency: the figures of `export` are estimates, and sketches are compiled for size",
        ],
    }

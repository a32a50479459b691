"""An ESP-IDF 5.x project for ESP32-S3, ESP32 and ESP32-C3: `idf.py build flash monitor`.

CMakeLists.txt, sdkconfig.defaults*, partitions.csv, README.md
main/              what the board does with a command: the file to change
components/quads/  runtime, kernels, test server, listening, port, model
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any

from quads_mcu.device import memory
from quads_mcu.device.build import BUILD_ID_BYTES
from quads_mcu.errors import ExportError
from quads_mcu.export.projects import esp_partitions
from quads_mcu.export.projects.project import IMAGE, Files, Project
from quads_mcu.paths import data_dir

COMPONENT = "components/quads"
# Oldest version whose components the project names; newer ones: docs/verification.md.
IDF_VERSIONS = ">=5.3,<6"
PORT_FILES = ("esp_idf.c", "listen.c", "microphone.c", "quads_esp_idf.h")
# Flashed into the second slot, so that what was there before does not win by its number.
ERASED, ERASED_BYTES = "erased.bin", 4096
GPIO_LABELS = 16  # of the first slot that get a pin in menuconfig


def files(project: Project) -> Files:
    """Return everything the project folder shall hold, by relative path.

    Raises:
        ExportError: flash or RAM is too small; ModelFormatError: the model breaks a bound.
    """
    sources = _component(project)
    image = sources.get(f"model/{IMAGE}", b"")
    needs = project.cost.needs
    program = needs["code"] + needs["constants"] + (0 if image else needs["weights"])
    table = esp_partitions.plan(project.board.flash_bytes, program, len(image))
    n_slots = sum(part.name.startswith("model_") for part in table)
    if n_slots == 2:
        sources[f"model/{ERASED}"] = b"\xff" * ERASED_BYTES
    sources["model/build_id.h"] = _build_id(sources)
    values = _values(project) | {
        "sources": sorted(name for name in sources if name.endswith((".c", ".S"))),
        "table": table,
        "n_slots": n_slots,
        "system_bytes": esp_partitions.SYSTEM_BYTES,
    }
    found: Files = {f"{COMPONENT}/{name}": content for name, content in sources.items()}
    for name, template in _templates(project).items():
        found[name] = project.render(f"esp_idf/{template}", **values)
    return found


def _templates(project: Project) -> dict[str, str]:
    """Return the templates by the name of the file they make."""
    target = project.board.project["idf_target"]
    return {
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "partitions.csv": "partitions.csv.j2",
        "sdkconfig.defaults": "sdkconfig.defaults.j2",
        f"sdkconfig.defaults.{target}": f"sdkconfig.defaults.{target}.j2",
        "README.md": "README.md.j2",
        ".gitignore": "gitignore.j2",
        "main/CMakeLists.txt": "main.CMakeLists.txt.j2",
        "main/main.c": "main.c.j2",
        "main/Kconfig.projbuild": "main.Kconfig.projbuild.j2",
        f"{COMPONENT}/CMakeLists.txt": "quads.CMakeLists.txt.j2",
        f"{COMPONENT}/Kconfig.projbuild": "quads.Kconfig.projbuild.j2",
        f"{COMPONENT}/idf_component.yml": "idf_component.yml.j2",
    }


def _component(project: Project) -> Files:
    """Return the component's files that are not made from templates."""
    port = data_dir("firmware") / "ports" / "esp_idf"
    names = list(PORT_FILES)
    names += ["slots.c"] if project.weights == "bin" else []
    names += ["other_core.c"] if _has_cores(project) else []
    found: Files = {f"ports/esp_idf/{name}": (port / name).read_text("utf-8") for name in names}
    shared = project.runtime() | project.application()
    for path, text in shared.items():
        name = PurePosixPath(path).relative_to("quads").as_posix()
        if not name.startswith("listen/"):  # the other application
            found[name] = text
    return found | {f"model/{name}": content for name, content in project.model_sources().items()}


def _has_cores(project: Project) -> bool:
    return project.board.kernels == "esp"


def _values(project: Project) -> dict[str, Any]:
    slot = project.model.slots[0]
    board = project.board
    return {
        "target": board.project["idf_target"],
        "flash_mb": board.flash_bytes >> 20,
        "psram_mb": board.psram_bytes >> 20,
        "psram": _large_arrays_in_psram(project),
        "cores": 2 if _has_cores(project) else 1,
        "weights": project.weights,
        "idf_versions": IDF_VERSIONS,
        "limits": _image_limits(project),
        "pins": PINS[board.project["idf_target"]],
        "labels": [
            (index, _quotable(label))
            for index, label in enumerate(slot.labels)
            if index != project.model.unknown_class
        ][:GPIO_LABELS],
    }


def _image_limits(project: Project) -> dict[str, int]:
    """Return what the application has room for in an image that comes later (quads_image.h)."""
    dims, n_slots = project.model.dims, len(project.model.slots)
    return {
        "LAYERS": max(8, dims.n_layers),
        "CLASSES": max(256, dims.n_classes),
        "SLOTS": max(16, n_slots),
    }


def _quotable(label: str) -> str:
    """Return a label without what would mean something in Kconfig, C comments or tables."""
    return re.sub(r"[^\w .,'+-]", "_", label)


# Free on the usual modules: no strapping, flash, PSRAM, console or USB pins, but for GPIO 2 of
# ESP32, where many boards have an LED. led: of the first label.
PINS = {
    "esp32s3": {"bclk": 4, "ws": 5, "data": 6, "led": 7, "most": 48},
    "esp32": {"bclk": 26, "ws": 25, "data": 33, "led": 2, "most": 33},
    "esp32c3": {"bclk": 4, "ws": 5, "data": 6, "led": 10, "most": 21},
}


def _large_arrays_in_psram(project: Project) -> bool:
    """Return whether the arena goes to PSRAM: where it is too large for internal RAM.

    Raises:
        ExportError: it does not fit anywhere.
    """
    board = project.board
    usages = memory.place(board, project.cost.needs)
    holder = next((one.region for one in usages if "arena" in one.contents), "")
    if holder not in ("ram", "psram"):
        raise ExportError(f"board {board.name}: arena in region {holder!r}, known: ram, psram")
    return holder == "psram"


def _build_id(sources: Files) -> str:
    """Return the header that names this build: the beginning of its sources' SHA-256."""
    digest = hashlib.sha256()
    for name, content in sorted(sources.items()):
        data = content.encode() if isinstance(content, str) else content
        digest.update(f"{name} {len(data)}\n".encode() + data)
    values = ", ".join(f"0x{byte:02x}" for byte in digest.digest()[:BUILD_ID_BYTES])
    return f"/* Of the files in this folder. */\n#define QUADS_BUILD_ID {{{values}}}\n"

"""A PlatformIO project: the Arduino library in lib/quads, its two sketches as environments."""

from __future__ import annotations

from quads_mcu.export.projects import arduino
from quads_mcu.export.projects.project import Files, Project

WEIGHTS = arduino.WEIGHTS
SKETCHES = {"listen": "Listen", "server": "Server"}


def files(project: Project) -> Files:
    """Return the project.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    values = arduino.values(project)
    library = arduino.library(project)
    found: Files = {f"lib/quads/{name}": content for name, content in library.items()}
    for name, sketch in SKETCHES.items():
        text = project.render(f"arduino/{sketch}.ino.j2", **values)
        found[f"src/{name}.cpp"] = f"#include <Arduino.h>\n\n{text}"
    for name in ("platformio.ini", "README.md"):
        found[name] = project.render(f"platformio/{name}.j2", **values)
    return found

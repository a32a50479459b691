"""A project for Raspberry Pi's pico-sdk: RP2040 and RP2350."""

from __future__ import annotations

from quads_mcu.export.projects import firmware
from quads_mcu.export.projects.project import Files, Project

WEIGHTS = ("header",)
TEMPLATES = ("CMakeLists.txt", "README.md")


def files(project: Project) -> Files:
    """Return the project: two programs, `quads_server` and `quads_demo`, of one CMakeLists.txt.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    found = firmware.sources(project, "pico_sdk", without=firmware.RECEIVE_RING)
    programs = firmware.Programs.of(found)
    values = {"includes": firmware.INCLUDES, **programs.to_values()}
    rendered = {name: project.render(f"pico_sdk/{name}.j2", **values) for name in TEMPLATES}
    return found | rendered

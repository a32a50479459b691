"""A project for Raspberry Pi's pico-sdk: RP2040 and RP2350."""

from __future__ import annotations

from quads_mcu.errors import ExportError
from quads_mcu.export.projects import firmware
from quads_mcu.export.projects.project import IMAGE, Files, Project

WEIGHTS = ("header", "bin")
# The application, the rest of the flash is for model images.
APPLICATION_BYTES = 128 << 10
SECTOR_BYTES = 4096
TEMPLATES = ("CMakeLists.txt", "README.md")


def files(project: Project) -> Files:
    """Return the project: two programs, `quads_server` and `quads_demo`, of one CMakeLists.txt.

    Raises:
        ExportError: the flash has no room for the model image.
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    slots = _slots(project) if project.weights == "bin" else {}
    found = firmware.sources(project, "pico_sdk", without=firmware.RECEIVE_RING, settings=slots)
    programs = firmware.Programs.of(found)
    values = {"includes": firmware.INCLUDES, **programs.to_values(), "slots": slots}
    rendered = {name: project.render(f"pico_sdk/{name}.j2", **values) for name in TEMPLATES}
    if slots:
        rendered["slots.ld"] = project.render("pico_sdk/slots.ld.j2", slots=slots)
    return found | rendered


def _slots(project: Project) -> dict[str, int]:
    """Return where model images lie: two slots if the flash has room for two, else one.

    Raises:
        ExportError: not even one has room.
    """
    flash = project.board.flash_bytes - APPLICATION_BYTES
    needed = len(project.model_sources()[IMAGE])
    for n_slots in (2, 1):
        slot_bytes = flash // n_slots // SECTOR_BYTES * SECTOR_BYTES
        if needed <= slot_bytes:
            return {
                "QUADS_MODEL_UPDATE": 1,
                "QUADS_MODEL_COMPILED_IN": 0,
                "QUADS_FLASH_SLOTS": n_slots,
                "QUADS_FLASH_SLOT_BYTES": slot_bytes,
                "QUADS_FLASH_SLOTS_AT": project.board.flash_bytes - n_slots * slot_bytes,
            }
    raise ExportError(
        f"the model image takes {needed:,} bytes, the flash of {project.board.name} has {flash:,} "
        "beside the application; use fewer bits per weight or a smaller student"
    )

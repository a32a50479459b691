"""A tiny trained run, converted; shared by the tests of TFLite."""

from __future__ import annotations

from pathlib import Path

from silent import silent
from tiny_run import tiny_run

from quads_mcu.export import project
from quads_mcu.run_dir import RunDir
from quads_mcu.tflite import convert
from quads_mcu.tflite.convert import Conversion

CALIBRATION_COUNT = 12


def converted_run(
    folder: Path, bits: int = 4, *, channel_scales: bool = False
) -> tuple[RunDir, Conversion]:
    """Train, pack and convert a student of three classes of tones."""
    run = tiny_run(folder, bits, channel_scales=channel_scales)
    from quads_mcu.device import boards

    project.export(run, boards.load("host"), bits=None, out=None)
    return run, convert.convert(run, silent, count=CALIBRATION_COUNT)

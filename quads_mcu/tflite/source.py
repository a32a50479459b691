"""The converted model as sources for tflite-micro, with the shared frontend in front of it.

OUT/
    quads_tflm/    an ESP-IDF component (esp-tflite-micro): model, smallest resolver, labels,
                   quads_tflm.h/.cc (PCM in, label out) and the frontend's C
    main.cc        reads PCM from stdin, for a plain tflite-micro tree
    Makefile       make TFLM=path/to/tflite-micro
"""

from __future__ import annotations

import shutil
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from quads_mcu.errors import ConfigError
from quads_mcu.export import frontend_source
from quads_mcu.export.csource import c_string
from quads_mcu.model_format import MEL_CLAMP_LSB
from quads_mcu.paths import data_dir
from quads_mcu.run_dir import RunDir, write_text
from quads_mcu.tflite import convert, interpreters, metadata, operators
from quads_mcu.tflite.flatbuffer import Flatbuffer

COMPONENT = "quads_tflm"
_COMPONENT_FILES = ("quads_tflm.h", "quads_tflm.cc", "CMakeLists.txt", "idf_component.yml")
_TREE_FILES = ("main.cc", "Makefile")
_BYTES_PER_LINE = 20


def export(run: RunDir, out: Path) -> int:
    """Write the sources of a converted run; return how many bytes they have.

    Raises:
        ConfigError: the run is not converted.
        ExportError: an operator that tflite-micro lacks.
    """
    folder = convert.folder(run)
    models = {
        name: (folder / file).read_bytes()
        for name, file in (("int8", convert.INT8), ("lut", convert.LUT))
        if (folder / file).is_file()
    }
    if "int8" not in models:
        raise ConfigError(f"{run.path} is not converted; run `quads-mcu convert` first")
    for name, text in render(models).items():
        write_text(out / COMPONENT / name, text)
    firmware = data_dir("firmware")
    frontend = out / COMPONENT / "frontend"
    frontend.mkdir(parents=True, exist_ok=True)
    for path in [*sorted((firmware / "src" / "frontend").glob("*.[ch]")),
                 firmware / "include" / "quads_frontend.h"]:  # fmt: skip
        shutil.copyfile(path, frontend / path.name)
    n_mels = metadata.read(models["int8"])["frontend"]["n_mels"]
    write_text(frontend / "frontend_tables.h", frontend_source.render(n_mels))
    for place, names in ((out / COMPONENT, _COMPONENT_FILES), (out, _TREE_FILES)):
        for name in names:
            shutil.copyfile(firmware / "tflm" / name, place / name)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def render(models: dict[str, bytes]) -> dict[str, str]:
    """Return the generated files by name, for "int8" and, where there is one, "lut"."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_dir("templates")),
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    values = _values(models)
    names = ("quads_tflm_model.h", "quads_tflm_model.cc", "quads_tflm_resolver.h")
    return {
        name: environment.get_template(name.removeprefix("quads_") + ".j2").render(**values)
        for name in names
    }


def _values(models: dict[str, bytes]) -> dict[str, Any]:
    described = metadata.read(models["int8"])
    heads = described["segments"]
    frontend = described["frontend"]
    names = operators.count(Flatbuffer(models["int8"]))
    return {
        "hash": described["model_hash"],
        "dims": {
            "n_mels": frontend["n_mels"],
            "n_frames": frontend["n_frames"],
            "n_classes": len(described["labels"]),
        },
        "labels": [c_string(label) for label in described["labels"]],
        "heads": heads,
        "ends": list(accumulate([0, *(len(head["labels"]) for head in heads)])),
        "clamp": MEL_CLAMP_LSB,
        "arenas": [_arena(data) for data in models.values()],
        "methods": operators.resolver_methods(names),
        "lut": "lut" in models,
        "models": [(name, _hex(data)) for name, data in models.items()],
    }


def _arena(data: bytes) -> int:
    return -(-interpreters.arena_use(interpreters.tflm(data)) // 16) * 16


def _hex(data: bytes) -> str:
    digits = [f"{byte}," for byte in range(256)]
    values = np.frombuffer(data, np.uint8).tolist()
    return "\n".join(
        "".join(digits[byte] for byte in values[at : at + _BYTES_PER_LINE])
        for at in range(0, len(values), _BYTES_PER_LINE)
    )

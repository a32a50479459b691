"""A packed model as C source: model.h, model_data.c and the headers the runtime is built with."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu import image_format, model_format, protocol
from quads_mcu.config import ListenSection
from quads_mcu.export import kernels as variants
from quads_mcu.export import planner
from quads_mcu.export.listener import GateSettings
from quads_mcu.model.dimensions import FRAMES_PER_S, Dimensions
from quads_mcu.model_format import PackedLinear, PackedModel
from quads_mcu.paths import data_dir
from quads_mcu.run_dir import write_text
from quads_mcu.slots import INTENT, Slot, segments

C_TYPES = {"uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t"}
BYTES_PER_LINE = 16
DEFAULT_LISTEN = ListenSection()


@dataclass(frozen=True)
class _Array:
    c_type: str
    name: str
    size: int
    shape: str
    values: str


def render_model(model: PackedModel, kernels: str = "plain") -> dict[str, str]:
    """Return the model's C files by name: model.h, model_data.c and the format headers.

    Args:
        model: what to write.
        kernels: the variant they are for (a key of kernels.KERNELS): packing and arena.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
        ExportError: unknown kernels.
        InstallationError: the templates are missing.
    """
    headers = _render_model_headers(model, kernels)
    values = _shared(model, kernels) | _data(model, kernels)
    return headers | {"model_data.c": render("model_data.c.j2", values)}


def _render_model_headers(model: PackedModel, kernels: str) -> dict[str, str]:
    model_format.check(model)
    names = {"answers": answer_names(model.slots), "slot_names": slot_names(model.slots)}
    values = _shared(model, kernels) | _summary(model, kernels) | names
    return {
        "model.h": render("model.h.j2", values),
        "quads_format.h": render_format(),
        "quads_image_format.h": render_image_format(),
    }


def _shared(model: PackedModel, kernels: str) -> dict[str, Any]:
    return {
        "model": model,
        "dims": model.dims,
        "plan": planner.plan(model.dims, kernels),
        "kernels": kernels,
        "hash": model.model_hash,
        "version": model_format.FORMAT_VERSION,
    }


def render_format() -> str:
    """Return quads_format.h, the constants that runtime and models share."""
    return render(
        "quads_format.h.j2",
        {
            "version": model_format.FORMAT_VERSION,
            "kernels": list(variants.KERNELS),
            "mel_zero_point": model_format.MEL_ZERO_POINT,
            "mel_clamp": model_format.MEL_CLAMP_LSB,
            "pooled_max": model_format.POOLED_MAX,
            "exp_table": model_format.exp_table().tolist(),
            "stages": model_format.STAGES,
        },
    )


def render_image_format() -> str:
    """Return quads_image_format.h, the layout of model images."""
    return render(
        "quads_image_format.h.j2",
        {
            "f": image_format,
            "magic": list(image_format.MAGIC),
            "positions": protocol.positions,
            "statuses": list(protocol.ImageStatus),
            "texts": protocol.IMAGE_STATUS_TEXT,
        },
    )


def render_listen_settings(dims: Dimensions, listen: ListenSection) -> str:
    """Return listen_settings.h: how the listening firmware finds utterances."""
    settings = GateSettings.of(listen)
    values = {"settings": settings, "ring_frames": settings.ring_frames(dims.n_frames)}
    return render("listen_settings.h.j2", values)


def write_sources(
    model: PackedModel,
    out_dir: Path,
    kernels: str = "plain",
    listen: ListenSection = DEFAULT_LISTEN,
) -> None:
    """Write everything generated that a firmware build with `kernels` needs into `out_dir`.

    The files of `render_model`, frontend_tables.h, quads_protocol.h and listen_settings.h.
    Every file is replaced atomically, and none before all are rendered.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    for name, text in render_sources(model, kernels, listen).items():
        write_text(out_dir / name, text)


def render_sources(
    model: PackedModel, kernels: str, listen: ListenSection = DEFAULT_LISTEN
) -> dict[str, str]:
    """Return every generated file of a firmware build by name: `render_headers`, model_data.c.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    return render_model(model, kernels) | _render_settings(model, listen)


def render_headers(
    model: PackedModel, kernels: str, listen: ListenSection = DEFAULT_LISTEN
) -> dict[str, str]:
    """Return the generated headers by name, for firmware that finds its model in an image.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    return _render_model_headers(model, kernels) | _render_settings(model, listen)


def _render_settings(model: PackedModel, listen: ListenSection) -> dict[str, str]:
    from quads_mcu.export import frontend_source, protocol_source

    return {
        "frontend_tables.h": frontend_source.render(model.dims.n_mels, model.frontend),
        "quads_protocol.h": protocol_source.render(),
        "listen_settings.h": render_listen_settings(model.dims, listen),
    }


def answer_names(slots: Sequence[Slot]) -> list[list[str]]:
    """Return a unique C identifier for every label of every slot.

    QUADS_INTENT_<LABEL> in a slot called `intent`, else QUADS_ANSWER_<SLOT>_<LABEL>. Accents are
    dropped, everything else that is not a letter or digit becomes `_`; a label of which nothing
    remains becomes CLASS_<index>, a repeated name gets its index appended.
    """
    used: set[str] = set()
    return [
        [
            _unique(f"{_prefix(slot, place)}_{_word(label, f'CLASS_{index}')}", index, used)
            for index, label in enumerate(slot.labels)
        ]
        for place, slot in enumerate(slots)
    ]


def slot_names(slots: Sequence[Slot]) -> list[str]:
    """Return a unique C identifier, QUADS_SLOT_<NAME>, for every slot."""
    used: set[str] = set()
    return [
        _unique(f"QUADS_SLOT_{_word(slot.name, str(place))}", place, used)
        for place, slot in enumerate(slots)
    ]


def _prefix(slot: Slot, place: int) -> str:
    word = _word(slot.name, str(place))
    return "QUADS_INTENT" if slot.name == INTENT else f"QUADS_ANSWER_{word}"


def _word(text: str, otherwise: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Z0-9]+", "_", plain.upper()).strip("_") or otherwise


def _unique(name: str, index: int, used: set[str]) -> str:
    while name in used:
        name += f"_{index}"
    used.add(name)
    return name


def c_string(text: str) -> str:
    """Return `text` as a C string literal in plain ASCII; safe from trigraphs and escapes."""
    plain = {ord("?"): "\\?", ord('"'): '\\"', ord("\\"): "\\\\"}
    encoded = (
        plain.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text.encode()
    )
    return '"' + "".join(encoded) + '"'


def _summary(model: PackedModel, kernels: str) -> dict[str, Any]:
    kinds = variants.flash_by_kind(model, kernels)
    return {
        "window_s": model.dims.n_frames / FRAMES_PER_S,
        "matrices": [_matrix_row(name, linear, kernels) for name, linear in model.linears()],
        "flash_bytes": sum(kinds.values()),
        "flash_by_kind": kinds,
        "needed_in": lambda tensor: ", ".join(s for s in planner.STEPS if s in tensor.steps),
    }


def _matrix_row(name: str, linear: PackedLinear, kernels: str) -> dict[str, Any]:
    n_out, n_in = linear.indices.shape
    constants = linear.centroids.nbytes + linear.bias.nbytes + linear.multiplier.nbytes
    multipliers = (
        sorted({int(linear.multiplier.min()), int(linear.multiplier.max())})
        if (linear.multiplier.size)
        else ["none"]
    )
    return {
        "name": name,
        "n_out": n_out,
        "n_in": n_in,
        "bits": linear.bits,
        "bytes": variants.kernels(kernels).index_bytes(n_out, n_in, linear.bits) + constants,
        "multiplier": " .. ".join(map(str, multipliers)),
    }


def _data(model: PackedModel, kernels: str) -> dict[str, Any]:
    digest = np.frombuffer(bytes.fromhex(model.model_hash), dtype=np.uint8)
    return {
        "arrays": [
            _array(name, tensor)
            for name, tensor in packed_tensors(model, kernels).items()
            if tensor.size
        ],
        "linears": dict(model.linears()),
        "norms": dict(model.norms()),
        "layers": model.layers,
        "slots": [
            (c_string(slot.name), segment.start, [c_string(label) for label in slot.labels])
            for slot, segment in zip(model.slots, segments(model.slots), strict=True)
        ],
        "hash_bytes": _values(digest, indent=8),
        "sqrt_d": model_format.norm_sqrt_d(model.dims.d_model),
        "c_name": _c_name,
        "per_channel": lambda linear: int(linear.multiplier.size > 1),
    }


def packed_tensors(model: PackedModel, kernels: str) -> dict[str, NDArray[Any]]:
    """Return the model's tensors by name, indices as the kernels want them."""
    return model_format.tensors(model, variants.kernels(kernels).pack)


def _c_name(name: str) -> str:
    return name.replace(".", "_")


def _array(name: str, tensor: NDArray[Any]) -> _Array:
    return _Array(
        c_type=C_TYPES[str(tensor.dtype)],
        name=_c_name(name),
        size=tensor.size,
        shape=" x ".join(map(str, tensor.shape)),
        values=_values(tensor.reshape(-1), indent=4),
    )


def _values(flat: NDArray[Any], indent: int) -> str:
    """Return the elements as lines of C initializers, each ending in a comma and a newline."""
    if flat.dtype.itemsize == 1:
        return _byte_values(flat, indent)
    lines = (flat[i : i + 12].tolist() for i in range(0, flat.size, 12))
    return "".join(" " * indent + ", ".join(map(str, line)) + ",\n" for line in lines)


def _byte_values(flat: NDArray[Any], indent: int) -> str:
    """As `_values` for int8 and uint8, by table: a model has millions of them."""
    as_text: Callable[[int], str] = "0x{:02X},".format
    if flat.dtype == np.int8:
        as_text = lambda code: f"{code - 256 if code > 127 else code:4d},"  # noqa: E731
    cells = np.array([as_text(code) for code in range(256)], dtype="S5")[flat.view(np.uint8)]
    whole = flat.size // BYTES_PER_LINE * BYTES_PER_LINE
    width = 5 * BYTES_PER_LINE
    lines = np.full((whole // BYTES_PER_LINE, indent + width + 1), ord(" "), dtype=np.uint8)
    lines[:, indent:-1] = cells[:whole].view(np.uint8).reshape(-1, width)
    lines[:, -1] = ord("\n")
    text = lines.tobytes().decode("ascii")
    if whole < flat.size:
        text += " " * indent + b"".join(cells[whole:].tolist()).decode("ascii") + "\n"
    return text


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template (its path in templates/) rendered with `values`; missing ones are errors.

    Raises:
        InstallationError: the templates are missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(data_dir("templates")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)

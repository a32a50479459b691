"""docs/format.md: the packed model's file and its image, rendered from their format modules."""

from __future__ import annotations

import numpy as np

from quads_mcu import image_format, model_format, protocol
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.protocol import Field

_EXAMPLE = Dimensions(40, 200, d_model=96, n_heads=3, n_layers=1, n_classes=31, pools=(21, 10))

_SCALARS = {
    "conv1_gelu_zero_point": "output zero point of `conv1_gelu`",
    "position_multiplier": "positions to the scale of the residual stream",
    "residual_scale": "float, real value of one LSB of the residual stream",
    "pool_multiplier": "requantization of the token sums to the head's input; with attention "
    "pools: value scale over the scale of the head's input, 12 fraction bits",
    "pool_score_multiplier": "only with attention pools: as a layer's score_multiplier",
    "logit_scale": "float, real value of one LSB of a logit",
    "unknown_class": "label of the first slot that stands for what is no command; −1: none",
    "reject_threshold": "least score of an accepted command, in LSB of a logit",
    "MATRIX.bits": "bits per index",
    "MATRIX.weight_scale": "float, real value of one LSB of a centroid, of the largest channel",
    "MATRIX.input_scale": "float, real value of one LSB of the input",
    "MATRIX.output_scale": "float, real value of one LSB of the output",
    "NORM.shift": "right shift of the scaled value",
    "NORM.epsilon": "epsilon in squared LSB of the residual stream, summed over the row",
    "NORM.output_scale": "float, real value of one LSB of the output",
    "layers.N.score_multiplier": "score differences to steps of 1/64 power of two",
    "layers.N.value_multiplier": "value scale over output scale, 12 fraction bits",
    "layers.N.gelu_zero_point": "output zero point of the layer's `gelu`",
}

_HEAD = """\
# The packed model format, version {version}

Rendered from `quads_mcu/model_format.py` and `image_format.py`; a test keeps this page and the code
equal. What the numbers mean: [arithmetic.md](arithmetic.md).

`model.safetensors` is one [safetensors](https://github.com/huggingface/safetensors) file. Its
metadata has one entry, `quads`, a JSON object with `format_version`, `dims`
({dims}), `slots` (a list of
`name` and `labels`; the head's outputs are the labels of all slots, one slot after the other),
`frontend` ({frontends}: the arithmetic of the log-mel features), `scalars`, `provenance` (free
text about where the model comes from) and `model_hash` (SHA-256 over everything but the
provenance). A reader refuses other versions, missing or surplus tensors, wrong shapes,
values that break a bound of the arithmetic, and contents that do not match the hash.

`dims.pools` lists the labels of every slot where each slot has an attention pool of its own, and is
empty where one mean over time serves all. Models of the latter kind are written as version 2, which
has neither `pools` nor `pool_query` nor `pool_score_multiplier`, so that older readers take them.

Version 1 files are read, too: `labels` in place of `slots` (one slot, `intent`), no `frontend`
(`float`), no `unknown_class` (−1) and no `reject_threshold` (−2³¹: nothing is rejected). Their
stored hash is checked as written; the model's own hash is that of its version 2 form.

## Tensors

Shown for {example}.
A multiplier has 1 entry or one per output channel (`1 or N`). Each further layer repeats the
tensors of `layers.0`.

| tensor | dtype | shape |
| --- | --- | --- |
"""

_PACKING = """
## Packed indices

`weight[n][k] = centroids[index[n][k]]`, indices of {bits} bits, `2^bits` centroids.
Row-major, each row padded to whole bytes with zero bits; within a row, index `k` occupies bits
`k·bits` to `k·bits + bits − 1` of the row read as one little-endian bit string.

| bits | indices of one row | bytes |
| --- | --- | --- |
"""

_IMAGE = """
# The model image, version {version}

A packed model as one binary file, little-endian, that a device runs where it lies: in flash that
is mapped into memory, at a multiple of {alignment} bytes. `quads_mcu/export/image.py` writes it,
`firmware/src/image.c` opens it. In this order:

1. the header;
2. a record for every encoder layer;
3. the number of labels of every slot, u16 each;
4. `text_bytes` of UTF-8, each text ended by a zero byte: for every slot its name, then its labels;
5. the tensors of the table above, `indices` in the order that the kernels of the build want
   ([arithmetic.md](arithmetic.md), section 9), each at the next multiple of {alignment} bytes; the
   empty multiplier of the head takes nothing;
6. zero bytes up to a multiple of {alignment}.

The file holds no offset: every place follows from the sizes before it, and the end must be where
`length_bytes` says. The SHA-256 covers everything behind its own field, the sequence number
included; magic and versions before it are compared.

## Header, {header_bytes} bytes

{header}
## Record of a layer, {layer_bytes} bytes

{layer}
## Why a device refuses an image

Tested from above; the numbers of a refusal, where it has some, are what was found and what is
allowed.

| code | name | meaning |
| ---: | --- | --- |
"""

_EXAMPLES = (
    (8, (0, 1, 128, 255)),
    (4, (1, 2, 3, 15)),
    (3, (1, 2, 3, 4, 5, 6, 7, 0)),
    (3, (7, 0, 1)),
    (2, (0, 1, 2, 3)),
)


def render_format_doc() -> str:
    """Return the text of docs/format.md."""
    dims = _EXAMPLE
    head = _HEAD.format(
        version=model_format.FORMAT_VERSION,
        frontends=", ".join(f"`{name}`" for name in model_format.FRONTENDS),
        dims=", ".join(f"`{name}`" for name in vars(dims)),
        example=f"{dims.n_mels} mels, {dims.n_frames} frames, d_model {dims.d_model}, "
        f"{dims.n_heads} heads, {dims.n_classes} classes in two slots with pools, 4 bits",
    )
    bits = dict.fromkeys(model_format.linear_shapes(dims), 4)
    tensors = "".join(
        f"| `{spec.name}` | {spec.dtype} | {_shape(spec.shape)} |\n"
        for spec in model_format.tensor_specs(dims, bits)
    )
    packing = _PACKING.format(bits=" or ".join(map(str, sorted(model_format.BITS))))
    examples = "".join(_packing_row(b, indices) for b, indices in _EXAMPLES)
    return head + tensors + _scalar_table() + packing + examples + _image()


def _image() -> str:
    text = _IMAGE.format(
        version=image_format.IMAGE_VERSION,
        alignment=image_format.ALIGNMENT,
        header_bytes=image_format.HEADER_BYTES,
        header=_field_table(image_format.HEADER),
        layer_bytes=image_format.LAYER_BYTES,
        layer=_field_table(image_format.LAYER),
    )
    rows = (
        f"| {status.value} | `{status.name}` | {protocol.IMAGE_STATUS_TEXT[status]} |\n"
        for status in protocol.ImageStatus
    )
    return text + "".join(rows)


def _field_table(fields: tuple[Field, ...]) -> str:
    rows = "".join(
        f"| {at} | `{field.name}` | {field.type}{f'[{field.count}]' if field.count else ''} | "
        f"{field.doc} |\n"
        for field, at in protocol.positions(fields)
    )
    return f"| at | field | type | meaning |\n| ---: | --- | --- | --- |\n{rows}"


def _shape(shape: tuple[int, ...]) -> str:
    if shape == (-1,):
        return "1 or N"
    return " × ".join(map(str, shape)) if shape != (0,) else "empty"


def _scalar_table() -> str:
    names = [
        *model_format.MODEL_SCALARS,
        *model_format.DECISION_SCALARS,
        *model_format.POOL_SCALARS,
        *(f"MATRIX.{name}" for name in model_format.LINEAR_SCALARS),
        *(f"NORM.{name}" for name in model_format.NORM_SCALARS),
        *(f"layers.N.{name}" for name in model_format.LAYER_SCALARS),
    ]
    rows = "".join(f"| `{name}` | {_SCALARS[name]} |\n" for name in names)
    return (
        "\n## Scalars\n\nMATRIX, NORM and N stand for every matrix, every norm and every layer's "
        "index. Integers unless\nmarked as float; those are for people and analysis, no "
        f"computation uses them.\n\n| scalar | meaning |\n| --- | --- |\n{rows}"
    )


def _packing_row(bits: int, indices: tuple[int, ...]) -> str:
    packed = model_format.pack_indices(np.array([indices], dtype=np.uint8), bits)
    return f"| {bits} | {' '.join(map(str, indices))} | `{packed.tobytes().hex(' ').upper()}` |\n"

"""The model image: a packed model as one binary file that a device runs where it lies. No I/O.

The tables below are the one source of the layout: quads_image_format.h and docs/format.md are
rendered from them, `export.image.pack` writes by them. What a device answers about an image is
`protocol.ImageStatus`.

An image is the header, a record for every encoder layer, the number of labels of every slot (u16),
the names and labels (UTF-8, each ended by a zero byte; a slot's name, then its labels), and then
the tensors in the order of `model_format.tensors`, indices as the kernels want them, each at the
next multiple of ALIGNMENT and the whole filled up to one. No offset is stored: every place follows
from the sizes before it, so there is none that could be wrong.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from quads_mcu.errors import ModelFormatError
from quads_mcu.model_format import FORMAT_VERSION, LAYER_LINEARS
from quads_mcu.protocol import (
    Field,
    FrameError,
    decode_fields,
    encode_fields,
    fields_bytes,
    positions,
)

MAGIC = b"QIMG"
IMAGE_VERSION = 2
# Of every tensor in the image, and of the image's own address on the device.
ALIGNMENT = 16
MAX_IMAGE_BYTES = 1 << 28
MAX_SEQUENCE = 2**32 - 1

# Fields of quads_plan_t (firmware/include/quads.h), in its order.
PLAN_OFFSETS = (
    "mel",
    "residual",
    "conv",
    "conv_workspace",
    "normalized",
    "projection_workspace",
    "attention",
    "key",
    "value",
    "attention_workspace",
    "output_workspace",
    "feed_forward_normalized",
    "hidden",
    "feed_forward_workspace",
    "pool_normalized",
    "pool_workspace",
    "pooled",
    "head_workspace",
)
PLAN_BLOCKS = (
    "conv_block",
    "projection_block",
    "output_block",
    "feed_forward_block",
    "pool_block",
)

HEADER = (
    Field("magic", "u8", "`QIMG`", 4),
    Field("image_version", "u16", "version of this layout"),
    Field("format_version", "u16", "version of the packed model format"),
    Field("sha256", "u8", "SHA-256 of everything behind this field", 32),
    Field("length_bytes", "u32", "of the whole image"),
    Field("sequence", "u32", "of two valid images a device runs the one with the greater number"),
    Field("model_hash", "u8", "SHA-256 of the packed model", 32),
    Field("kernels", "u8", "whose order the indices have: QUADS_KERNELS of the build"),
    Field("frontend", "u8", "arithmetic of the features; 0: float, 1: fixed"),
    Field("n_mels", "u16", "mel bands"),
    Field("n_frames", "u16", "mel frames per window"),
    Field("d_model", "u16", "width of the encoder"),
    Field("n_heads", "u16", "attention heads"),
    Field("n_layers", "u16", "encoder layers"),
    Field("n_classes", "u16", "logits, of all slots"),
    Field("n_slots", "u16", "slots"),
    Field("text_bytes", "u32", "length of the names and labels"),
    Field("unknown_class", "i16", "label of the first slot for what is no command; -1: none"),
    Field("reject_threshold", "i32", "least score of an accepted command"),
    Field("position_multiplier", "i32", "positions to the scale of the residual stream"),
    Field("pool_multiplier", "i32", "requantization of the token sums, or of attention pools"),
    Field("pool_score_multiplier", "i32", "of attention pools, as a layer's"),
    Field("sqrt_d", "u32", "floor(sqrt(d_model) * 2^26)"),
    Field("norm_epsilon", "u32", "of the last LayerNorm"),
    Field("norm_shift", "u8", "of the last LayerNorm"),
    Field("conv1_gelu_zero_point", "i8", "output zero point of the first GELU"),
    Field("attention_pools", "u8", "1: an attention pool for every slot; 0: one mean"),
    *(
        Field(f"{name}_{what}", "u8", doc)
        for name in ("conv1", "conv2", "head")
        for what, doc in (
            ("bits", f"bits per index of `{name}`"),
            ("per_channel", f"1: `{name}` has a multiplier per output channel"),
        )
    ),
    *(Field(f"plan_{name}", "u32", f"arena offset of `{name}`") for name in PLAN_OFFSETS),
    Field("plan_arena_bytes", "u32", "size of the arena"),
    *(Field(f"plan_{name}", "u16", "tokens at a time") for name in PLAN_BLOCKS),
)

LAYER = (
    Field("score_multiplier", "i32", "score differences to steps of 1/64 power of two"),
    Field("value_multiplier", "i32", "value scale over output scale, 12 fraction bits"),
    Field("attention_norm_epsilon", "u32", "of the LayerNorm before attention"),
    Field("feed_forward_norm_epsilon", "u32", "of the LayerNorm before the feed-forward part"),
    Field("attention_norm_shift", "u8", "of the LayerNorm before attention"),
    Field("feed_forward_norm_shift", "u8", "of the LayerNorm before the feed-forward part"),
    *(
        Field(f"{name}_{what}", "u8", doc)
        for name in LAYER_LINEARS
        for what, doc in (
            ("bits", f"bits per index of `{name}`"),
            ("per_channel", f"1: `{name}` has a multiplier per output channel"),
        )
    ),
)


HEADER_BYTES = fields_bytes(HEADER)
LAYER_BYTES = fields_bytes(LAYER)
SHA256_AT = next(at for field, at in positions(HEADER) if field.name == "sha256")
# What the SHA-256 covers begins here.
HASHED_FROM = SHA256_AT + 32


@dataclass(frozen=True)
class Header:
    """The header of an image whose SHA-256 was checked.

    sha256, model_hash: hexadecimal. kernels: place in device.boards.KERNELS. frontend: place in
    model_format.FRONTENDS.
    """

    format_version: int
    sha256: str
    length_bytes: int
    sequence: int
    model_hash: str
    kernels: int
    frontend: int
    n_mels: int
    n_frames: int
    d_model: int
    n_heads: int
    n_layers: int
    n_classes: int
    n_slots: int
    plan_arena_bytes: int


def digest(image: bytes) -> bytes:
    """Return the SHA-256 that belongs into the header of `image`."""
    return hashlib.sha256(memoryview(image)[HASHED_FROM:]).digest()


def read_header(image: bytes) -> Header:
    """Return the header of a whole image; bytes behind the image, as in a flash slot, are ignored.

    Raises:
        ModelFormatError: no image, another version, cut off or damaged.
    """
    try:
        values = decode_fields(HEADER, image[:HEADER_BYTES])
    except FrameError:
        raise ModelFormatError(
            f"{len(image)} bytes are no model image: its header has {HEADER_BYTES}"
        ) from None
    if values["magic"] != MAGIC:
        raise ModelFormatError(f"not a model image: begins with {image[:4]!r}, not {MAGIC!r}")
    versions = (values["image_version"], values["format_version"])
    if versions != (IMAGE_VERSION, FORMAT_VERSION):
        raise ModelFormatError(
            f"model image of version {versions[0]!r} and format version {versions[1]!r}, this "
            f"quads-mcu reads {IMAGE_VERSION} and {FORMAT_VERSION}; export it again"
        )
    length = values["length_bytes"]
    assert isinstance(length, int)
    if not HEADER_BYTES <= length <= len(image):
        raise ModelFormatError(
            f"model image of {length:,} bytes, {len(image):,} are there: it is cut off or its "
            "header damaged; export it again"
        )
    if values["sha256"] != digest(image[:length]):
        raise ModelFormatError(
            "model image is damaged: its contents do not match its SHA-256; export it again"
        )
    found = {name: value.hex() if isinstance(value, bytes) else value
             for name, value in values.items() if name in Header.__annotations__}  # fmt: skip
    return Header(**found)  # type: ignore[arg-type]


def with_sequence(image: bytes, sequence: int) -> bytes:
    """Return the image with another sequence number, and the SHA-256 that goes with it.

    Raises:
        ModelFormatError: not a valid image, or a sequence outside 0 .. MAX_SEQUENCE.
    """
    header = read_header(image)
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise ModelFormatError(f"sequence number {sequence} is outside 0 .. {MAX_SEQUENCE}")
    at = next(at for field, at in positions(HEADER) if field.name == "sequence")
    changed = bytearray(image[: header.length_bytes])
    changed[at : at + 4] = sequence.to_bytes(4, "little")
    changed[SHA256_AT:HASHED_FROM] = digest(bytes(changed))
    return bytes(changed)


def encode_header(values: dict[str, int | bytes]) -> bytes:
    """Return the header of these values, by field."""
    return encode_fields(HEADER, values)

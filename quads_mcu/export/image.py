"""A packed model as a binary image (image_format.py), for a flash slot of its own."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from quads_mcu import image_format, model_format
from quads_mcu.errors import ExportError
from quads_mcu.export import kernels as variants
from quads_mcu.export import planner
from quads_mcu.image_format import (
    ALIGNMENT,
    HASHED_FROM,
    IMAGE_VERSION,
    LAYER,
    MAGIC,
    PLAN_OFFSETS,
    SHA256_AT,
    Header,
    read_header,
    with_sequence,
)
from quads_mcu.model_format import LAYER_LINEARS, PackedLayer, PackedLinear, PackedModel
from quads_mcu.protocol import encode_fields

__all__ = ["Header", "pack", "read_header", "with_sequence"]

Values = dict[str, int | bytes]


def pack(model: PackedModel, kernels: str, sequence: int = 0) -> bytes:
    """Return the image of `model`.

    Args:
        model: what to pack.
        kernels: the variant it is for (a key of kernels.KERNELS): order of the indices and arena.
        sequence: of two valid images a device runs the one with the greater number; u32.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
        ExportError: unknown kernels, a sequence that is no u32, a model too large for an image, or
            sums that the device could not prove to stay in int32.
    """
    model_format.check(model)
    for name, linear in model.linears():
        _check_sums(name, linear, model_format.POOLED_MAX if name == "head" else 128)
    if not 0 <= sequence <= image_format.MAX_SEQUENCE:
        raise ExportError(f"sequence {sequence} is outside 0 .. {image_format.MAX_SEQUENCE}")
    chosen = variants.kernels(kernels)
    texts = b"".join(
        text.encode() + b"\0" for slot in model.slots for text in (slot.name, *slot.labels)
    )
    parts = [
        *(encode_fields(LAYER, _layer(layer)) for layer in model.layers),
        *(len(slot.labels).to_bytes(2, "little") for slot in model.slots),
        texts,
    ]
    tensors = model_format.tensors(model, chosen.pack).values()
    header = _header(model, kernels, sequence) | {"text_bytes": len(texts)}
    image = bytearray(image_format.encode_header(header) + b"".join(parts))
    _append(image, (tensor.astype(tensor.dtype.newbyteorder("<")).tobytes() for tensor in tensors))
    if len(image) > image_format.MAX_IMAGE_BYTES:
        raise ExportError(
            f"image of {len(image):,} bytes, limit {image_format.MAX_IMAGE_BYTES:,}; use a smaller "
            "student ([student] preset) or fewer bits per weight"
        )
    header["length_bytes"] = len(image)
    image[: image_format.HEADER_BYTES] = image_format.encode_header(header)
    image[SHA256_AT:HASHED_FROM] = image_format.digest(bytes(image))
    return bytes(image)


def _check_sums(name: str, linear: PackedLinear, input_max: int) -> None:
    """Refuse what quads_image_bounds_kept refuses: it knows the codebook, not who uses what."""
    largest = int(np.abs(linear.centroids.astype(np.int64)).max())
    bias = int(np.abs(linear.bias.astype(np.int64)).max())
    worst = largest * linear.indices.shape[1] * input_max + bias
    if worst >= 2**31:
        raise ExportError(
            f"{name}: sums could reach {worst:,} if every weight were the largest centroid, limit "
            f"{2**31 - 1:,}; compile the model in instead (--weights header)"
        )


def _append(image: bytearray, arrays: Iterable[bytes]) -> None:
    """Put each array at the next multiple of ALIGNMENT, and fill up to one behind the last."""
    for array in arrays:
        image += bytes(-len(image) % ALIGNMENT) + array
    image += bytes(-len(image) % ALIGNMENT)


def _header(model: PackedModel, kernels: str, sequence: int) -> Values:
    dims, plan = model.dims, planner.plan(model.dims, kernels)
    values: Values = {
        "magic": MAGIC,
        "image_version": IMAGE_VERSION,
        "format_version": model_format.FORMAT_VERSION,
        "sha256": bytes(32),
        "length_bytes": 0,
        "sequence": sequence,
        "model_hash": bytes.fromhex(model.model_hash),
        "kernels": list(variants.KERNELS).index(kernels),
        "frontend": model_format.FRONTENDS.index(model.frontend),
        **{name: size for name, size in vars(dims).items() if name != "pools"},
        "attention_pools": int(bool(dims.pools)),
        "n_slots": len(model.slots),
        "unknown_class": model.unknown_class,
        "reject_threshold": model.reject_threshold,
        "position_multiplier": model.position_multiplier,
        "pool_multiplier": model.pool_multiplier,
        "pool_score_multiplier": model.pool_score_multiplier,
        "sqrt_d": model_format.norm_sqrt_d(dims.d_model),
        "norm_epsilon": model.norm.epsilon,
        "norm_shift": model.norm.shift,
        "conv1_gelu_zero_point": model.conv1_gelu_zero_point,
        "plan_arena_bytes": plan.arena_bytes,
    }
    for name in ("conv1", "conv2", "head"):
        values |= _linear(name, getattr(model, name))
    values |= {f"plan_{name}": plan.offsets[name] for name in PLAN_OFFSETS}
    return values | {f"plan_{name}": tokens for name, tokens in plan.blocks.items()}


def _linear(name: str, linear: PackedLinear) -> Values:
    return {f"{name}_bits": linear.bits, f"{name}_per_channel": int(linear.multiplier.size > 1)}


def _layer(layer: PackedLayer) -> Values:
    values: Values = {
        "score_multiplier": layer.score_multiplier,
        "value_multiplier": layer.value_multiplier,
    }
    for name in ("attention_norm", "feed_forward_norm"):
        norm = getattr(layer, name)
        values |= {f"{name}_epsilon": norm.epsilon, f"{name}_shift": norm.shift}
    for name in LAYER_LINEARS:
        values |= _linear(name, getattr(layer, name))
    return values

"""Contract 1: the packed model, everything a device needs, and its file.

A file is one safetensors container: the tensors named by `tensor_specs` and, as metadata, one JSON
document with sizes, labels and scalars. Semantics of every field: docs/arithmetic.md. Exporters
accept only a `PackedModel`; nothing right of it knows how it was trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu import atomic
from quads_mcu import slots as slot_table
from quads_mcu.errors import ModelFormatError
from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions
from quads_mcu.slots import INTENT, Slot

FORMAT_VERSION = 3
# Version 1 had one slot, no rejection and no choice of frontend; version 2 no attention pools, and
# models without them are still written as such.
READABLE_VERSIONS = (1, 2, 3)
BITS = (8, 4, 3, 2)
MAX_FILE_BYTES = 1 << 30
MAX_METADATA_BYTES = 1 << 20

# Int8 log-mel: one LSB is 0.05 decade; Whisper's normalized value is (q - zero point) * scale.
MEL_SCALE = 1.0 / 80.0
MEL_ZERO_POINT = -8
MEL_CLAMP_LSB = 160
POOLED_MAX = 8191
EXP_FRACTION_BITS = 6
EXP_ONE = 8192
MAX_TOKENS = 2047
NORM_FRACTION_BITS = 10

# Arithmetic of the log-mel frontend: float32, or integers for cores without floating point.
FRONTENDS = ("float", "fixed")
MAX_SLOTS = 64
# The threshold that no score is below.
NEVER_REJECT = -(2**31)

# Parts whose ticks the device reports, in the order of the report.
STAGES = (
    "frontend",
    "convolutions",
    "norms",
    "projections",
    "attention",
    "feed_forward",
    "head",
)

Int8 = NDArray[np.int8]
UInt8 = NDArray[np.uint8]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class PackedLinear:
    """A matrix product with codebook weights: `weight[n][k] = centroids[indices[n][k]]`.

    indices: uint8 (N, K), unpacked; centroids: int8 (2**bits,); bias: int32 (N,), the input's zero
    point folded in; multiplier: int32 (1,) or (N,), the requantization (empty for the head).
    The scales are floats for people and analysis: real = scale * integer; where output channels
    have multipliers of their own, weight_scale is that of the largest.
    """

    bits: int
    indices: UInt8
    centroids: Int8
    bias: Int32
    multiplier: Int32
    weight_scale: float
    input_scale: float
    output_scale: float

    @property
    def weights(self) -> Int8:
        """The decoded matrix, int8 (N, K)."""
        return self.centroids[self.indices]


@dataclass(frozen=True)
class PackedNorm:
    """LayerNorm constants: gamma int16 (d,), beta int32 (d,), shift, epsilon; output scale."""

    gamma: Int16
    beta: Int32
    shift: int
    epsilon: int
    output_scale: float


@dataclass(frozen=True)
class PackedLayer:
    """One encoder layer."""

    attention_norm: PackedNorm
    query: PackedLinear
    key: PackedLinear
    value: PackedLinear
    score_multiplier: int
    value_multiplier: int
    output: PackedLinear
    feed_forward_norm: PackedNorm
    feed_forward_1: PackedLinear
    gelu: Int8  # int8 (256,)
    gelu_zero_point: int
    feed_forward_2: PackedLinear


@dataclass(frozen=True)
class PackedModel:
    """Everything between int8 log-mel and integer logits."""

    dims: Dimensions
    slots: tuple[Slot, ...]
    conv1: PackedLinear
    conv1_gelu: Int8  # int8 (256,)
    conv1_gelu_zero_point: int
    conv2: PackedLinear
    conv2_gelu: Int16  # int16 (256,), residual scale
    positions: Int8  # int8 (n_tokens, d_model)
    position_multiplier: int
    residual_scale: float
    layers: tuple[PackedLayer, ...]
    norm: PackedNorm
    # Of the mean: requantization of the sums. Of attention pools: value scale over pooled scale.
    pool_multiplier: int
    head: PackedLinear
    logit_scale: float
    # int8 (n_slots, d_model) of attention pools, (0, d_model) where the mean is taken.
    pool_query: Int8 = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    pool_score_multiplier: int = 0
    # Label of the first slot that stands for everything that is no command; -1: there is none.
    unknown_class: int = -1
    # Utterances whose score is smaller are rejected (docs/arithmetic.md, section 7).
    reject_threshold: int = NEVER_REJECT
    frontend: str = "float"
    # Where the model comes from (free text values); not used by any computation.
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every logit, slot after slot."""
        return slot_table.flat_labels(self.slots)

    @property
    def format_version(self) -> int:
        """The oldest version of the format that holds this model, which is the one written."""
        return 3 if self.dims.pools else 2

    @property
    def model_hash(self) -> str:
        """SHA-256 (hex) over sizes, slots, scalars and tensors; provenance is left out."""
        return self._hash(self.format_version)

    def _hash(self, version: int) -> str:
        digest = hashlib.sha256()
        metadata = _metadata(self, provenance=False, version=version)
        digest.update(json.dumps(metadata, sort_keys=True).encode())
        for name, tensor in sorted(tensors(self).items()):
            digest.update(f"{name}{tensor.dtype}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()

    def linears(self) -> Iterator[tuple[str, PackedLinear]]:
        """Yield every matrix with its name, in order of computation."""
        yield "conv1", self.conv1
        yield "conv2", self.conv2
        for index, layer in enumerate(self.layers):
            for name in LAYER_LINEARS:
                yield f"layers.{index}.{name}", getattr(layer, name)
        yield "head", self.head

    def norms(self) -> Iterator[tuple[str, PackedNorm]]:
        """Yield every LayerNorm with its name, in order of computation."""
        for index, layer in enumerate(self.layers):
            yield f"layers.{index}.attention_norm", layer.attention_norm
            yield f"layers.{index}.feed_forward_norm", layer.feed_forward_norm
        yield "norm", self.norm


LAYER_LINEARS = ("query", "key", "value", "output", "feed_forward_1", "feed_forward_2")
LINEAR_SCALARS = ("bits", "weight_scale", "input_scale", "output_scale")
NORM_SCALARS = ("shift", "epsilon", "output_scale")
LAYER_SCALARS = ("score_multiplier", "value_multiplier", "gelu_zero_point")
MODEL_SCALARS = (
    "conv1_gelu_zero_point",
    "position_multiplier",
    "residual_scale",
    "pool_multiplier",
    "logit_scale",
)
# Scalars that came with version 2.
DECISION_SCALARS = ("unknown_class", "reject_threshold")
# Scalars that came with version 3, of attention pools.
POOL_SCALARS = ("pool_score_multiplier",)


def linear_shapes(dims: Dimensions) -> dict[str, tuple[int, int]]:
    """Return (N, K) of every matrix by name."""
    d = dims.d_model
    shapes = {"conv1": (d, CONV_KERNEL * dims.n_mels), "conv2": (d, CONV_KERNEL * d)}
    for layer in range(dims.n_layers):
        for name in ("query", "key", "value", "output"):
            shapes[f"layers.{layer}.{name}"] = (d, d)
        shapes[f"layers.{layer}.feed_forward_1"] = (dims.d_ff, d)
        shapes[f"layers.{layer}.feed_forward_2"] = (d, dims.d_ff)
    shapes["head"] = (dims.n_classes, d)
    return shapes


def row_bytes(k: int, bits: int) -> int:
    """Return the bytes of one packed row of `k` indices."""
    return (k * bits + 7) // 8


def pack_indices(indices: UInt8, bits: int) -> UInt8:
    """Pack indices row by row (docs/arithmetic.md, section 9).

    Args:
        indices: uint8 (N, K), each below 2**bits.
        bits: 2, 3, 4 or 8.
    Returns:
        uint8 (N, ceil(K * bits / 8)).
    Raises:
        ModelFormatError: an index does not fit.
    """
    if bits not in BITS:
        raise ModelFormatError(f"bits = {bits}; allowed: {', '.join(map(str, BITS))}")
    if indices.size and int(indices.max()) >> bits:
        raise ModelFormatError(f"index {int(indices.max())} does not fit {bits} bits")
    spread = np.unpackbits(indices[..., None], axis=-1, count=bits, bitorder="little")
    rows = spread.reshape(indices.shape[0], indices.shape[1] * bits)
    return np.packbits(rows, axis=1, bitorder="little")


def unpack_indices(packed: UInt8, bits: int, k: int) -> UInt8:
    """Undo `pack_indices`: uint8 (N, bytes) -> uint8 (N, k).

    Raises:
        ModelFormatError: unused bits at the end of a row are not zero.
    """
    rows = np.unpackbits(packed, axis=1, bitorder="little")
    if rows[:, k * bits :].any():
        raise ModelFormatError("packed indices have bits set beyond the end of a row")
    spread = rows[:, : k * bits].reshape(packed.shape[0], k, bits)
    return np.packbits(spread, axis=-1, bitorder="little").reshape(packed.shape[0], k)


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one tensor of the file; -1 in a shape: 1 or the channel count."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def tensor_specs(dims: Dimensions, bits: dict[str, int]) -> list[TensorSpec]:
    """Return the tensors a file of these sizes must hold, no more and no fewer."""
    d = dims.d_model
    specs: list[TensorSpec] = []
    for name, (n, k) in linear_shapes(dims).items():
        b = bits[name]
        specs += [
            TensorSpec(f"{name}.indices", "uint8", (n, row_bytes(k, b))),
            TensorSpec(f"{name}.centroids", "int8", (1 << b,)),
            TensorSpec(f"{name}.bias", "int32", (n,)),
            TensorSpec(f"{name}.multiplier", "int32", (0,) if name == "head" else (-1,)),
        ]
    norms = [f"layers.{i}.{part}_norm" for i in range(dims.n_layers) for part in _NORM_PARTS]
    for name in [*norms, "norm"]:
        specs += [
            TensorSpec(f"{name}.gamma", "int16", (d,)),
            TensorSpec(f"{name}.beta", "int32", (d,)),
        ]
    specs += [TensorSpec(f"layers.{i}.gelu", "int8", (256,)) for i in range(dims.n_layers)]
    specs += [
        TensorSpec("conv1_gelu", "int8", (256,)),
        TensorSpec("conv2_gelu", "int16", (256,)),
        TensorSpec("positions", "int8", (dims.n_tokens, d)),
    ]
    if dims.pools:
        specs.append(TensorSpec("pool_query", "int8", (len(dims.pools), d)))
    return specs


_NORM_PARTS = ("attention", "feed_forward")


def tensors(
    model: PackedModel, pack: Callable[[UInt8, int], UInt8] = pack_indices
) -> dict[str, NDArray[Any]]:
    """Return all tensors by file name; indices packed by `pack(indices, bits)`."""
    found: dict[str, NDArray[Any]] = {}
    for name, linear in model.linears():
        found[f"{name}.indices"] = pack(linear.indices, linear.bits)
        found[f"{name}.centroids"] = linear.centroids
        found[f"{name}.bias"] = linear.bias
        found[f"{name}.multiplier"] = linear.multiplier
    for name, norm in model.norms():
        found[f"{name}.gamma"] = norm.gamma
        found[f"{name}.beta"] = norm.beta
    for index, layer in enumerate(model.layers):
        found[f"layers.{index}.gelu"] = layer.gelu
    found["conv1_gelu"] = model.conv1_gelu
    found["conv2_gelu"] = model.conv2_gelu
    found["positions"] = model.positions
    if model.dims.pools:
        found["pool_query"] = model.pool_query
    return found


def write(model: PackedModel, path: Path) -> None:
    """Write the model's file, atomically.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
        StorageError: the file cannot be written.
    """
    from safetensors.numpy import save

    check(model)
    header = _metadata(model, provenance=True, version=model.format_version)
    metadata = json.dumps(header | {"model_hash": model.model_hash})
    contiguous = {name: np.ascontiguousarray(t) for name, t in tensors(model).items()}
    data = save(contiguous, metadata={"quads": metadata})
    atomic.write(path, data)


def read(path: Path) -> PackedModel:
    """Read and check a model file.

    Raises:
        ModelFormatError: missing, truncated, hostile, of another version, or out of bounds; the
            message names the file and what was found.
    """
    try:
        model, header = _read(path)
        check(model)
        if model._hash(header["format_version"]) != header.get("model_hash"):
            raise ModelFormatError("damaged: the contents do not match the stored model hash")
    except ModelFormatError as problem:
        raise ModelFormatError(f"{path}: {problem}") from None
    return model


def _read(path: Path) -> tuple[PackedModel, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFormatError(f"{size} bytes, more than the {MAX_FILE_BYTES} allowed")
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get("quads")
            if metadata is None:
                raise ModelFormatError("a safetensors file, but not a packed quads-mcu model")
            header = _parse_metadata(metadata)
            loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelFormatError("no such file; `quads-mcu export` writes one") from None
    except (OSError, SafetensorError) as problem:
        raise ModelFormatError(f"not a readable model file: {problem}") from None
    return _assemble(header, loaded), header


def _parse_metadata(text: str) -> dict[str, Any]:
    if len(text) > MAX_METADATA_BYTES:
        raise ModelFormatError(f"metadata of {len(text)} bytes, limit {MAX_METADATA_BYTES}")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelFormatError("metadata is not valid JSON") from None
    if not isinstance(header, dict):
        raise ModelFormatError("metadata is not a JSON object")
    version = header.get("format_version")
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise ModelFormatError(
            f"format version {version!r}, this quads-mcu reads "
            f"{', '.join(map(str, READABLE_VERSIONS))}; export it again"
        )
    return header


def _metadata(model: PackedModel, *, provenance: bool, version: int) -> dict[str, Any]:
    scalars: dict[str, Any] = {name: getattr(model, name) for name in MODEL_SCALARS}
    for name, linear in model.linears():
        scalars |= {f"{name}.{key}": getattr(linear, key) for key in LINEAR_SCALARS}
    for name, norm in model.norms():
        scalars |= {f"{name}.{key}": getattr(norm, key) for key in NORM_SCALARS}
    for index, layer in enumerate(model.layers):
        scalars |= {f"layers.{index}.{key}": getattr(layer, key) for key in LAYER_SCALARS}
    header: dict[str, Any] = {
        "format_version": version,
        "dims": dataclasses.asdict(model.dims),
        "scalars": scalars,
    }
    if version < 3:
        del header["dims"]["pools"]
    else:
        scalars |= {name: getattr(model, name) for name in POOL_SCALARS}
    if version == 1:
        header["labels"] = list(model.labels)
    else:
        scalars |= {name: getattr(model, name) for name in DECISION_SCALARS}
        header |= {"slots": slot_table.to_json(model.slots), "frontend": model.frontend}
    return header | ({"provenance": model.provenance} if provenance else {})


class _Source:
    """Typed access to a file's scalars and tensors; every miss is a ModelFormatError."""

    def __init__(self, scalars: Any, loaded: dict[str, NDArray[Any]]) -> None:
        if not isinstance(scalars, dict):
            raise ModelFormatError("metadata lacks its scalars")
        self.scalars = scalars
        self.tensors = loaded

    def integer(self, name: str) -> int:
        value = self.scalars.get(name)
        if type(value) is not int:
            raise ModelFormatError(f"{name} = {value!r} is not an integer")
        return value

    def real(self, name: str) -> float:
        value = self.scalars.get(name)
        if type(value) is not float or not 0 < value < 1e30:
            raise ModelFormatError(f"{name} = {value!r} is not a positive number")
        return value

    def linear(self, name: str, k: int) -> PackedLinear:
        bits = self.integer(f"{name}.bits")
        return PackedLinear(
            bits=bits,
            indices=unpack_indices(self.tensors[f"{name}.indices"], bits, k),
            centroids=self.tensors[f"{name}.centroids"],
            bias=self.tensors[f"{name}.bias"],
            multiplier=self.tensors[f"{name}.multiplier"],
            **{key: self.real(f"{name}.{key}") for key in LINEAR_SCALARS[1:]},
        )

    def norm(self, name: str) -> PackedNorm:
        return PackedNorm(
            gamma=self.tensors[f"{name}.gamma"],
            beta=self.tensors[f"{name}.beta"],
            shift=self.integer(f"{name}.shift"),
            epsilon=self.integer(f"{name}.epsilon"),
            output_scale=self.real(f"{name}.output_scale"),
        )


def _assemble(header: dict[str, Any], loaded: dict[str, NDArray[Any]]) -> PackedModel:
    dims = _dimensions(header.get("dims"), header["format_version"])
    decides = header["format_version"] >= 2
    source = _Source(header.get("scalars"), loaded)
    shapes = linear_shapes(dims)
    bits = {name: source.integer(f"{name}.bits") for name in shapes}
    for name, b in bits.items():
        if b not in BITS:
            raise ModelFormatError(f"{name}.bits = {b}; allowed: {', '.join(map(str, BITS))}")
    _check_tensors(tensor_specs(dims, bits), loaded)
    provenance = header.get("provenance", {})
    if not isinstance(provenance, dict):
        raise ModelFormatError("provenance is not a JSON object")
    return PackedModel(
        dims=dims,
        slots=_slots(header),
        conv1=source.linear("conv1", shapes["conv1"][1]),
        conv1_gelu=loaded["conv1_gelu"],
        conv1_gelu_zero_point=source.integer("conv1_gelu_zero_point"),
        conv2=source.linear("conv2", shapes["conv2"][1]),
        conv2_gelu=loaded["conv2_gelu"],
        positions=loaded["positions"],
        position_multiplier=source.integer("position_multiplier"),
        residual_scale=source.real("residual_scale"),
        layers=tuple(_layer(source, index, dims) for index in range(dims.n_layers)),
        norm=source.norm("norm"),
        pool_multiplier=source.integer("pool_multiplier"),
        head=source.linear("head", dims.d_model),
        logit_scale=source.real("logit_scale"),
        pool_query=loaded.get("pool_query", np.zeros((0, dims.d_model), np.int8)),
        pool_score_multiplier=source.integer("pool_score_multiplier") if dims.pools else 0,
        unknown_class=source.integer("unknown_class") if decides else -1,
        reject_threshold=source.integer("reject_threshold") if decides else NEVER_REJECT,
        frontend=header.get("frontend") if decides else "float",  # type: ignore[arg-type]
        provenance={str(key): str(value) for key, value in provenance.items()},
    )


def _slots(header: dict[str, Any]) -> tuple[Slot, ...]:
    if header["format_version"] == 1:
        labels = header.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ModelFormatError("labels are not a list of texts")
        return (Slot(INTENT, tuple(labels)),)
    try:
        return slot_table.from_json(header.get("slots"))
    except ValueError as problem:
        raise ModelFormatError(str(problem)) from None


def _layer(source: _Source, index: int, dims: Dimensions) -> PackedLayer:
    prefix = f"layers.{index}."
    d = dims.d_model
    return PackedLayer(
        attention_norm=source.norm(prefix + "attention_norm"),
        query=source.linear(prefix + "query", d),
        key=source.linear(prefix + "key", d),
        value=source.linear(prefix + "value", d),
        score_multiplier=source.integer(prefix + "score_multiplier"),
        value_multiplier=source.integer(prefix + "value_multiplier"),
        output=source.linear(prefix + "output", d),
        feed_forward_norm=source.norm(prefix + "feed_forward_norm"),
        feed_forward_1=source.linear(prefix + "feed_forward_1", d),
        gelu=source.tensors[prefix + "gelu"],
        gelu_zero_point=source.integer(prefix + "gelu_zero_point"),
        feed_forward_2=source.linear(prefix + "feed_forward_2", dims.d_ff),
    )


def _dimensions(value: Any, version: int) -> Dimensions:
    names = [item.name for item in dataclasses.fields(Dimensions)]
    if version < 3:
        names.remove("pools")
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ModelFormatError(f"dims must hold exactly {', '.join(names)}")
    dims = Dimensions(**value)
    if problem := dims.problem():
        raise ModelFormatError(problem)
    return dims


def _check_tensors(specs: list[TensorSpec], loaded: dict[str, NDArray[Any]]) -> None:
    wanted = {spec.name for spec in specs}
    if surplus := sorted(set(loaded) - wanted):
        raise ModelFormatError(f"unexpected tensor {surplus[0]!r}")
    for spec in specs:
        tensor = loaded.get(spec.name)
        if tensor is None:
            raise ModelFormatError(f"tensor {spec.name!r} is missing")
        channels = (
            loaded[spec.name.removesuffix("multiplier") + "bias"].shape
            if (spec.shape == (-1,))
            else spec.shape
        )
        allowed = {(1,), channels} if spec.shape == (-1,) else {spec.shape}
        if str(tensor.dtype) != spec.dtype or tensor.shape not in allowed:
            raise ModelFormatError(
                f"{spec.name} is {tensor.dtype} {tensor.shape}, expected {spec.dtype} {spec.shape}"
            )


def check(model: PackedModel) -> None:
    """Check every bound that the arithmetic relies on (docs/arithmetic.md).

    Raises:
        ModelFormatError: names the layer, the value and the limit.
    """
    if problem := model.dims.problem():
        raise ModelFormatError(problem)
    if model.dims.n_tokens > MAX_TOKENS:
        raise ModelFormatError(f"{model.dims.n_tokens} tokens, limit {MAX_TOKENS}")
    _check_decision(model)
    for name, linear in model.linears():
        _check_linear(name, linear, POOLED_MAX if name == "head" else 128)
    for name, norm in model.norms():
        _check_norm(name, norm, model.dims.d_model)
    for index, layer in enumerate(model.layers):
        _in_range(f"layers.{index}.score_multiplier", layer.score_multiplier, 0, 2**31 - 1)
        _in_range(f"layers.{index}.value_multiplier", layer.value_multiplier, 1, 2**24 - 1)
        _in_range(f"layers.{index}.gelu_zero_point", layer.gelu_zero_point, -128, 127)
    _in_range("conv1_gelu_zero_point", model.conv1_gelu_zero_point, -128, 127)
    _in_range("position_multiplier", model.position_multiplier, 0, 2**15 - 1)
    _in_range(
        "pool_multiplier", model.pool_multiplier, 1, 2**24 - 1 if model.dims.pools else 2**31 - 1
    )
    _in_range("pool_score_multiplier", model.pool_score_multiplier, 0, 2**31 - 1)


def _check_decision(model: PackedModel) -> None:
    names = [slot.name for slot in model.slots]
    if not 1 <= len(names) <= MAX_SLOTS or len(set(names)) != len(names):
        raise ModelFormatError(f"{len(names)} slots, 1 to {MAX_SLOTS} of different names allowed")
    if len(model.labels) != model.dims.n_classes:
        raise ModelFormatError(f"{len(model.labels)} labels for {model.dims.n_classes} classes")
    pools = model.dims.pools
    if pools and pools != tuple(slot_table.sizes(model.slots)):
        raise ModelFormatError(f"attention pools of {pools} classes are not one for every slot")
    for slot in model.slots:
        if len(slot.labels) < 2 or len(set(slot.labels)) != len(slot.labels):
            raise ModelFormatError(f"slot {slot.name!r} needs two labels or more, all different")
        for text in (slot.name, *slot.labels):
            if not text or len(text.encode()) > 255 or not text.isprintable():
                raise ModelFormatError(f"label {text!r} is empty, not printable or over 255 bytes")
    _in_range("unknown_class", model.unknown_class, -1, len(model.slots[0].labels) - 1)
    _in_range("reject_threshold", model.reject_threshold, NEVER_REJECT, 2**31 - 1)
    if model.frontend not in FRONTENDS:
        raise ModelFormatError(
            f"frontend {model.frontend!r}; this quads-mcu has {', '.join(FRONTENDS)}"
        )


def _check_linear(name: str, linear: PackedLinear, input_max: int) -> None:
    if linear.bits not in BITS or int(linear.indices.max()) >> linear.bits:
        raise ModelFormatError(f"{name}: an index does not fit {linear.bits} bits")
    magnitude = np.abs(linear.centroids.astype(np.int64))[linear.indices].sum(axis=1)
    worst = int((magnitude * input_max + np.abs(linear.bias.astype(np.int64))).max())
    if worst >= 2**31:
        raise ModelFormatError(f"{name}: sums reach {worst}, limit {2**31 - 1}")
    if linear.multiplier.size and int(linear.multiplier.min()) < 0:
        raise ModelFormatError(f"{name}: multiplier {int(linear.multiplier.min())} is negative")


def _check_norm(name: str, norm: PackedNorm, d_model: int) -> None:
    _in_range(f"{name}.shift", norm.shift, 1, 30)
    _in_range(f"{name}.epsilon", norm.epsilon, 1, 2**32 - 1)
    normalized_max = int(np.ceil(np.sqrt(d_model))) + 1 << NORM_FRACTION_BITS
    gamma = np.abs(norm.gamma.astype(np.int64)) * normalized_max
    worst = int((gamma + np.abs(norm.beta.astype(np.int64))).max()) + (1 << norm.shift - 1)
    if worst >= 2**31:
        raise ModelFormatError(f"{name}: sums reach {worst}, limit {2**31 - 1}")


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ModelFormatError(f"{name} = {value} is outside {low} .. {high}")


def norm_sqrt_d(d_model: int) -> int:
    """Return floor(sqrt(d_model) * 2**26), the LayerNorm constant `sqrt_d`."""
    import math

    return math.isqrt(d_model << 52)


def exp_table() -> Int16:
    """Return int16 (64,): round(8192 * 2**(-i / 64))."""
    steps = 1 << EXP_FRACTION_BITS
    exact = EXP_ONE * 2.0 ** (-np.arange(steps) / steps)
    table: Int16 = np.floor(exact + 0.5).astype(np.int16)
    return table


def weight_bytes(
    model: PackedModel, pack: Callable[[UInt8, int], UInt8] = pack_indices
) -> dict[str, int]:
    """Return the bytes the model occupies in flash, by kind, with indices packed by `pack`."""
    kinds = {
        "indices": 0,
        "centroids": 0,
        "bias": 0,
        "multiplier": 0,
        "norms": 0,
        "tables": 0,
        "positions": 0,
    }
    for name, tensor in tensors(model, pack).items():
        last = name.rsplit(".", 1)[-1]
        kind = {
            "gamma": "norms",
            "beta": "norms",
            "gelu": "tables",
            "conv1_gelu": "tables",
            "conv2_gelu": "tables",
            "pool_query": "positions",
        }.get(last, last)
        kinds[kind] += tensor.nbytes
    return kinds

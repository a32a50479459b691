"""Codebook weights in tflite-micro: lookup tables (LUT), decoded by its DECODE operator.

A matrix becomes packed indices and one table of 2**bits values. The table is the packed model's
centroids in their order, so the index values are those of the C source; tflite-micro packs them
from the high bits of a byte on, the C source from the low bits: at 4 bits the two nibbles of every
byte change places, nothing else. Where output channels have scales of their own, DECODE reads a
table for every channel: the same one again.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import ExportError
from quads_mcu.model_format import PackedModel
from quads_mcu.tflite.codebooks import weight_name
from quads_mcu.tflite.flatbuffer import Flatbuffer

MAX_BITS = 7
DECODE = "custom:TFLM_DECODE"
# The module header of tflite-micro's decode operator, before the value table.
HEADER_BYTES = 16
_STRIDE_AT = 6  # of the tables
_AXIS_AT = 5  # upper half: the axis of the channels; all ones: one table


def compressible(model: PackedModel) -> bool:
    """Whether every matrix has few enough values for a lookup table."""
    return all(linear.bits <= MAX_BITS for _, linear in model.linears())


def compress(data: bytes, model: PackedModel) -> bytes:
    """Return the int8 model with its weights as indices and tables.

    Args:
        data: what `codebooks.restore` made, tensors named.
    Raises:
        ExportError: a matrix of more than 7 bits, or one that is not in the model.
    """
    from tflite_micro import compression as tflm
    from tflite_micro.tensorflow.lite.micro.compression import spec

    original, specs = Flatbuffer(data), []
    for name, linear in model.linears():
        if linear.bits > MAX_BITS:
            raise ExportError(f"{name} has {linear.bits} bits; lookup tables take {MAX_BITS}")
        index = original.index(weight_name(name))
        if index is None:
            raise ExportError(f"{name}: no weight tensor of that name to compress")
        method = spec.LookUpTableCompression(linear.bits, spec.PerTensor())
        specs.append(spec.Tensor(subgraph=0, tensor=index, compression=[method]))
    with contextlib.redirect_stderr(io.StringIO()):  # it warns of tables that are not full
        buffer = Flatbuffer(bytes(tflm.compress(data, specs)))
    _use_packed_order(buffer, model)
    buffer.drop_unused_buffers()
    return buffer.to_bytes()


def pack_high_first(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack indices as tflite-micro does: one bit string, high bits of a byte first."""
    spread = np.unpackbits(indices.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(spread.ravel())


def _use_packed_order(buffer: Flatbuffer, model: PackedModel) -> None:
    """Replace sorted tables and their indices by the packed model's."""
    decoders = {
        buffer.name(int(op.inputs[pair])): int(op.inputs[pair + 1])
        for op in buffer.graph.operators if buffer.operator_name(op) == DECODE
        for pair in range(0, len(op.inputs), 2)
    }  # fmt: skip
    tables: dict[int, bytes] = {}
    for name, linear in model.linears():
        encoded, ancillary = buffer.index(weight_name(name)), decoders[weight_name(name)]
        assert encoded is not None
        header = buffer.constant(ancillary)
        assert header is not None
        table = linear.centroids.view(np.uint8)
        channels = max(1, len(linear.multiplier))
        if tables.setdefault(ancillary, table.tobytes()) != table.tobytes():
            raise ExportError(f"{name}: shares its lookup table with a matrix of another order")
        start = header[:HEADER_BYTES].copy()
        start[_STRIDE_AT] = len(table)
        if channels > 1:
            start[_AXIS_AT] &= 0x0F
        decoder = np.concatenate([start, np.tile(table, channels)])
        buffer.set_constant(ancillary, decoder)
        buffer.tensor(ancillary).shape = np.array([len(decoder)], np.int32)
        packed = pack_high_first(linear.indices, linear.bits)
        buffer.set_constant(encoded, packed)
        buffer.tensor(encoded).shape = np.array([len(packed)], np.int32)


def weight_bytes(data: bytes) -> int:
    """Return the bytes of all matrices in a model: values, or indices with tables."""
    buffer = Flatbuffer(data)
    total = 0
    for operator in buffer.graph.operators:
        if buffer.operator_name(operator) == DECODE:
            total += sum(_constant_bytes(buffer, int(i)) for i in operator.inputs)
        elif buffer.operator_name(operator) in ("CONV_2D", "FULLY_CONNECTED"):
            total += _constant_bytes(buffer, int(operator.inputs[1]))
    return total


def _constant_bytes(buffer: Flatbuffer, index: int) -> int:
    values = buffer.constant(index)
    return 0 if values is None else values.nbytes

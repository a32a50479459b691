"""A TFLite model as an object to look at and to change."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import ModelFormatError

IDENTIFIER = b"TFL3"
MAX_FILE_BYTES = 1 << 30


class Flatbuffer:
    """One model of one subgraph.

    Args:
        data: the bytes of a `.tflite` file.
    Raises:
        ModelFormatError: not a TFLite model, or not of one subgraph.
    """

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        if len(data) > MAX_FILE_BYTES or data[4:8] != IDENTIFIER:
            raise ModelFormatError(f"{len(data)} bytes that are not a TFLite model")
        try:
            self.model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
        except Exception as problem:  # the generated reader checks nothing
            raise ModelFormatError(f"a damaged TFLite model: {problem!r}") from None
        if len(self.model.subgraphs or []) != 1:
            raise ModelFormatError(f"{len(self.model.subgraphs or [])} subgraphs, expected 1")
        self.graph: Any = self.model.subgraphs[0]
        values = vars(schema.BuiltinOperator).items()
        self._names = {value: name for name, value in values if not name.startswith("_")}
        self._schema = schema

    def to_bytes(self) -> bytes:
        """Return the file, every buffer aligned to 16 bytes as devices need it."""
        import flatbuffers

        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return aligned(bytes(builder.Output()))

    def operator_name(self, operator: Any) -> str:
        """Return the builtin operator's name; a custom one's with "custom:" in front."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        name: str = self._names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name != "CUSTOM":
            return name
        return "custom:" + bytes(code.customCode or b"?").decode(errors="replace")

    def tensor(self, index: int) -> Any:
        """Return a tensor's description."""
        return self.graph.tensors[index]

    def name(self, index: int) -> str:
        """Return a tensor's name."""
        return bytes(self.tensor(index).name or b"").decode(errors="replace")

    def index(self, name: str) -> int | None:
        """Return the position of the tensor called `name`."""
        return next((i for i in range(len(self.graph.tensors)) if self.name(i) == name), None)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return a tensor's shape."""
        shape = self.tensor(index).shape
        return () if shape is None else tuple(int(size) for size in shape)

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return a constant's values in their own dtype, or None for what is computed."""
        tensor = self.tensor(index)
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        kinds = vars(self._schema.TensorType)
        dtypes = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "INT8": "i1", "UINT8": "u1",
                  "INT64": "<i8", "BOOL": "?", "INT16": "<i2"}  # fmt: skip
        dtype = {kinds[name]: dtype for name, dtype in dtypes.items()}[tensor.type]
        return np.frombuffer(bytes(data), dtype).reshape(self.shape(index))

    def real(self, index: int) -> NDArray[np.float64] | None:
        """Return a constant's real values, or None."""
        values = self.constant(index)
        if values is None:
            return None
        scale, zero_point = self.quantization(index)
        if not len(scale):
            return values.astype(np.float64)
        axis = self.tensor(index).quantization.quantizedDimension if len(scale) > 1 else 0
        along = [1] * values.ndim
        if len(scale) > 1:
            along[axis] = len(scale)
        return (values - zero_point.reshape(along)) * scale.reshape(along)  # type: ignore[no-any-return]

    def quantization(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scales and zero points, float64 (1,) or (channels,); empty for real tensors."""
        found = self.tensor(index).quantization
        if found is None or found.scale is None:
            return np.zeros(0), np.zeros(0)
        zero = found.zeroPoint if found.zeroPoint is not None else np.zeros(len(found.scale))
        return np.asarray(found.scale, np.float64), np.asarray(zero, np.float64)

    def set_quantization(
        self, index: int, scale: float | NDArray[np.float64], zero_point: int = 0
    ) -> None:
        """Give a tensor a scale, one or (channels,) along its first axis, and one zero point."""
        quantization = self.tensor(index).quantization
        quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
        quantization.zeroPoint = np.full(quantization.scale.shape, zero_point, np.int64)
        quantization.quantizedDimension = 0
        quantization.min = quantization.max = None

    def set_constant(self, index: int, values: NDArray[Any]) -> None:
        """Replace a constant's values (same dtype and count) in a buffer of its own."""
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.tensor(index).buffer = len(self.model.buffers) - 1

    def rename(self, names: Mapping[int, str]) -> None:
        """Name tensors by position; all others get short numbers."""
        for index, tensor in enumerate(self.graph.tensors):
            tensor.name = names.get(index, f"t{index}").encode()

    def metadata(self, name: str) -> bytes | None:
        """Return a metadata entry's bytes."""
        for entry in self.model.metadata or []:
            if bytes(entry.name).decode() == name:
                return bytes(self.model.buffers[entry.buffer].data)
        return None

    def set_metadata(self, name: str, data: bytes) -> None:
        """Store a metadata entry."""
        entry, buffer = self._schema.MetadataT(), self._schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        entry.name, entry.buffer = name.encode(), len(self.model.buffers) - 1
        kept = [e for e in self.model.metadata or [] if bytes(e.name).decode() != name]
        self.model.metadata = [*kept, entry]

    def drop_unused_buffers(self) -> None:
        """Remove buffers that nothing refers to; buffer 0 is the empty one by convention."""
        users = [*self.graph.tensors, *(self.model.metadata or [])]
        kept = sorted({0} | {user.buffer for user in users})
        position = {old: new for new, old in enumerate(kept)}
        self.model.buffers = [self.model.buffers[old] for old in kept]
        for user in users:
            user.buffer = position[user.buffer]


def aligned(data: bytes) -> bytes:
    """Return a TFLite file with its buffers aligned to 16 bytes."""
    from tflite_micro.tensorflow.lite.micro.tools import tflite_flatbuffer_align_wrapper

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before", Path(folder) / "after"
        before.write_bytes(data)
        tflite_flatbuffer_align_wrapper.align_tflite_model(str(before), str(after))
        return after.read_bytes()

"""Points: the places in the computation whose values every runtime can show.

In order: conv1 and conv2 (after GELU), per layer attention_norm, query (divided by the square root
of d_head), key, value, attention, output (what is added to the residual stream), feed_forward_norm,
feed_forward_1 (after GELU), feed_forward_2 (what is added), then norm, pooled and logits. Values
are float64, (rows, channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import ExportError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.tflite.flatbuffer import Flatbuffer

Values = NDArray[np.float64]
LAYER_POINTS = (
    "attention_norm",
    "query",
    "key",
    "value",
    "attention",
    "output",
    "feed_forward_norm",
    "feed_forward_1",
    "feed_forward_2",
)
# Two runtimes of the same float model differ by rounding, relative to the largest value.
_SAME = 1e-3


def names(dims: Dimensions) -> tuple[str, ...]:
    """Return the names of all points in order of computation."""
    layers = [f"layers.{i}.{point}" for i in range(dims.n_layers) for point in LAYER_POINTS]
    return ("conv1", "conv2", *layers, "norm", "pooled", "logits")


def rows(name: str, values: NDArray[Any], dims: Dimensions) -> Values:
    """Return a point's values as float64 (rows, channels), whatever dimensions of 1 they had."""
    pooled = max(1, len(dims.pools))
    count = {"conv1": dims.n_frames, "pooled": pooled, "logits": 1}.get(name, dims.n_tokens)
    return values.astype(np.float64).reshape(count, -1)


def onnx_points(path: Path, mel: NDArray[np.float32], dims: Dimensions) -> dict[str, Values]:
    """Return the points of an ONNX model for one window, float32 (n_frames, n_mels)."""
    import onnx

    from quads_mcu.tflite import interpreters

    model = onnx.load(str(path))
    for name in names(dims)[:-1]:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = interpreters.onnx_session(model.SerializeToString())
    wanted = names(dims)
    found = dict(zip(wanted, session.run(list(wanted), {"mel": mel[None]}), strict=True))
    found["conv1"] = found["conv1"].swapaxes(1, 2)
    return {name: rows(name, values, dims) for name, values in found.items()}


def locate(data: bytes, mel: NDArray[np.float32], wanted: Mapping[str, Values]) -> dict[str, str]:
    """Find the tensor of a float32 model that holds each point, by its values.

    Args:
        data: the float32 TFLite model made from the ONNX model whose points are `wanted`.
        mel: the window both saw, float32 (n_frames, n_mels).
    Returns:
        Tensor name in `data` by point.
    Raises:
        ExportError: a point is nowhere; names the layer.
    """
    from quads_mcu.tflite import interpreters

    interpreter = interpreters.litert(data, keep_all=True)
    interpreters.run_litert(interpreter, mel)
    buffer = Flatbuffer(data)
    computed = [index for op in buffer.graph.operators for index in op.outputs]
    found: dict[str, str] = {}
    for point, target in wanted.items():
        limit = _SAME * max(float(np.abs(target).max()), 1e-6)
        for index in computed:
            if int(np.prod(buffer.shape(index))) != target.size:
                continue
            tensor = np.asarray(interpreter.get_tensor(index), np.float64).reshape(target.shape)
            if np.abs(tensor - target).max() <= limit:
                found[point] = buffer.name(index)
                break
        else:
            raise ExportError(
                f"layer {point} is not to be found in the TFLite model; another version of "
                "onnx2tf than the one this was made for?"
            )
    return found


def label(buffer: Flatbuffer, located: Mapping[str, str], more: Mapping[int, str]) -> None:
    """Name the tensors of `buffer` after their points and, by position, `more`."""
    by_name = {buffer.name(index): index for index in range(len(buffer.graph.tensors))}
    found = dict(more)
    for point, name in located.items():
        if name not in by_name:
            raise ExportError(f"layer {point} ({name!r}) is missing in a converted model")
        found[by_name[name]] = point
    buffer.rename(found)

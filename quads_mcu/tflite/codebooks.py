"""The int8 TFLite model carries the packed model's centroids and the frontend's scale.

The converter rounds weights channel by channel, which scatters the centroids of a matrix over many
int8 values. Here every matrix gets its packed weights back:

- values: `centroids[indices]`, so at most 2**bits distinct ones; the packed scale, one or one per
  output channel (the converter folds attention's division by sqrt(d_head) into the query matrix:
  so does its scale);
- bias: the real bias of the packed model on the scale (input scale * weight scale);
- input: scale 1/80, zero point -8, so that the device frontend's bytes go in as they are.

Activation scales stay as calibrated. Nothing else in the file changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import ExportError
from quads_mcu.model_format import MEL_SCALE, MEL_ZERO_POINT, PackedLinear, PackedModel
from quads_mcu.tflite.flatbuffer import Flatbuffer

MATRIX_OPERATORS = ("CONV_2D", "FULLY_CONNECTED")
# These move values without changing their scale.
_MOVES = ("RESHAPE", "PAD", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")
# The converter rounds to 1/127 of a channel's largest weight.
_ROUNDING = 0.51 / 127


def weight_name(linear: str) -> str:
    """Return the name of the tensor with a matrix's weights."""
    return f"{linear}.weight"


def bias_name(linear: str) -> str:
    """Return the name of the tensor with a matrix's bias."""
    return f"{linear}.bias"


def restore(buffer: Flatbuffer, model: PackedModel) -> dict[int, str]:
    """Put the packed weights into an int8 model converted from the same student.

    Returns:
        Names of the weight and bias tensors by position.
    Raises:
        ExportError: a matrix cannot be found, or a bias does not fit int32; names the layer.
    """
    _use_frontend_scale(buffer)
    operators = [op for op in buffer.graph.operators
                 if buffer.operator_name(op) in MATRIX_OPERATORS]  # fmt: skip
    zero_points = input_zero_points(model)
    found: dict[int, str] = {}
    for name, linear in model.linears():
        scales = weight_scales(linear) * _factor(name, model)
        operator = _find(buffer, operators, name, linear, scales)
        operators.remove(operator)
        x, weight, *rest = (int(index) for index in operator.inputs)
        bias = rest[0] if rest and rest[0] >= 0 else None
        values = linear.weights.reshape(buffer.shape(weight))
        buffer.set_constant(weight, values)
        buffer.set_quantization(weight, scales)
        found[weight] = weight_name(name)
        if bias is not None:
            bias_scales = float(buffer.quantization(x)[0][0]) * scales
            real = real_bias(linear, zero_points[name]) * _factor(name, model)
            buffer.set_constant(bias, _bias_int32(name, real, bias_scales))
            buffer.set_quantization(bias, bias_scales)
            found[bias] = bias_name(name)
    return found


def weight_scales(linear: PackedLinear) -> NDArray[np.float64]:
    """Return the real value of a step of the weights, float64 (1,), or (N,) by output channel.

    Channels differ by their scales alone, so their scales are as their multipliers.
    """
    if len(linear.multiplier) < 2:
        return np.array([linear.weight_scale])
    multiplier = linear.multiplier.astype(np.float64)
    return linear.weight_scale * multiplier / multiplier.max()  # type: ignore[no-any-return]


def input_zero_points(model: PackedModel) -> dict[str, int]:
    """Return the zero point of every matrix's input in the packed model, by name."""
    found = {name: 0 for name, _ in model.linears()}
    found["conv1"] = MEL_ZERO_POINT
    found["conv2"] = model.conv1_gelu_zero_point
    for index, layer in enumerate(model.layers):
        found[f"layers.{index}.feed_forward_2"] = layer.gelu_zero_point
    return found


def real_bias(linear: PackedLinear, input_zero_point: int) -> NDArray[np.float64]:
    """Return the bias in real units, float64 (N,), without the folded zero point."""
    folded = linear.bias + input_zero_point * linear.weights.astype(np.float64).sum(axis=1)
    return np.asarray(folded * linear.input_scale * weight_scales(linear), np.float64)


def name_weights(buffer: Flatbuffer, model: PackedModel) -> dict[int, str]:
    """Find the matrices of a float model, which hold centroid * scale already; name them.

    Returns:
        Names of the weight tensors by position; matrices behind a DEQUANTIZE (float16) are left.
    """
    operators = [op for op in buffer.graph.operators
                 if buffer.operator_name(op) in MATRIX_OPERATORS]  # fmt: skip
    found: dict[int, str] = {}
    for name, linear in model.linears():
        for operator in operators:
            weight = int(operator.inputs[1])
            scales = weight_scales(linear) * _factor(name, model)
            if weight not in found and _same(buffer, weight, linear, scales):
                found[weight] = weight_name(name)
                break
    return found


def _use_frontend_scale(buffer: Flatbuffer) -> None:
    (tensor,) = (int(index) for index in buffer.graph.inputs)
    waiting = {tensor}
    for operator in buffer.graph.operators:
        if waiting & set(operator.inputs) and buffer.operator_name(operator) in _MOVES:
            waiting |= set(operator.outputs)
    for index in waiting:
        buffer.set_quantization(index, MEL_SCALE, MEL_ZERO_POINT)


def _factor(name: str, model: PackedModel) -> float:
    return float(model.dims.d_head**-0.5) if name.endswith(".query") else 1.0


def _find(
    buffer: Flatbuffer,
    operators: list[Any],
    name: str,
    linear: PackedLinear,
    scales: NDArray[np.float64],
) -> Any:
    for operator in operators:
        if _same(buffer, int(operator.inputs[1]), linear, scales):
            return operator
    raise ExportError(f"{name}: its weights are not to be found in the converted model")


def _same(
    buffer: Flatbuffer, index: int, linear: PackedLinear, scales: NDArray[np.float64]
) -> bool:
    """Whether a constant holds this matrix, but for the converter's rounding."""
    expected = linear.weights.astype(np.float64) * scales[:, None]
    if int(np.prod(buffer.shape(index))) != expected.size:
        return False
    values = buffer.real(index)
    if values is None or len(values) != len(expected):
        return False
    largest = np.abs(expected).max(axis=1, keepdims=True)
    difference = np.abs(values.reshape(expected.shape) - expected)
    return bool((difference <= _ROUNDING * largest + 1e-9).all())


def _bias_int32(
    name: str, real: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.int32]:
    values: NDArray[np.float64] = np.rint(real / scales)
    if np.abs(values).max() >= 1 << 31:
        raise ExportError(
            f"{name}: bias {np.abs(real).max():.3g} does not fit scale {scales.min():.3g}"
        )
    rounded: NDArray[np.int32] = values.astype(np.int32)
    return rounded

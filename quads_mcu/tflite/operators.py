"""Which operators a model uses, whether tflite-micro has them, and the smallest resolver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from quads_mcu.errors import ExportError
from quads_mcu.tflite.flatbuffer import Flatbuffer

# BuiltinOperator names that tflite-micro's MicroMutableOpResolver can register (its header, 2026).
_TFLM_NAMES = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL
    EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX
    REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT
    SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE"""
TFLM_OPERATORS = frozenset(_TFLM_NAMES.split())
TFLM_CUSTOM = {"custom:TFLM_DECODE": "Decode"}
# Resolver methods that are not the operator's name in capitalized words.
_METHODS = {
    "AVERAGE_POOL_2D": "AveragePool2D",
    "BATCH_MATMUL": "BatchMatMul",
    "CONV_2D": "Conv2D",
    "CUMSUM": "CumSum",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "L2_POOL_2D": "L2Pool2D",
    "MAX_POOL_2D": "MaxPool2D",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
# What becomes operators tflite-micro has; everything else is refused before onnx2tf runs.
_ONNX_NAMES = """
    Add Clip Concat Constant Conv Div Gemm Identity LayerNormalization MatMul Max Min Mul Neg Pad
    Pow ReduceMean Relu Reshape Sigmoid Slice Softmax Sqrt Squeeze Sub Tanh Transpose
    Unsqueeze"""
ONNX_OPERATORS = frozenset(_ONNX_NAMES.split())
_HINTS = {
    "Erf": "train the student with the tanh form of GELU",
    "FlexErf": "train the student with the tanh form of GELU",
}


def count(buffer: Flatbuffer) -> Counter[str]:
    """Return how often each operator occurs."""
    return Counter(buffer.operator_name(operator) for operator in buffer.graph.operators)


def resolver_methods(names: Collection[str]) -> list[str]:
    """Return the MicroMutableOpResolver methods that register these operators, sorted.

    Raises:
        ExportError: tflite-micro has no such operator.
    """
    methods = []
    for name in names:
        if name not in TFLM_OPERATORS and name not in TFLM_CUSTOM:
            raise ExportError(_refusal("TFLite", name, "unknown"))
        words = "".join(word.capitalize() for word in name.split("_"))
        methods.append("Add" + (TFLM_CUSTOM.get(name) or _METHODS.get(name) or words))
    return sorted(methods)


def check_onnx(path: Path, points: Sequence[str]) -> None:
    """Check an ONNX file: well formed, and nothing in it that tflite-micro lacks.

    Raises:
        ExportError: names the operator and the layer it comes from.
    """
    import onnx

    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=True)
    except Exception as problem:  # onnx raises many kinds, protobuf's own among them
        raise ExportError(f"{path}: not a valid ONNX model: {str(problem)[:300]}") from None
    nodes = model.graph.node
    for position, node in enumerate(nodes):
        if node.op_type in ONNX_OPERATORS and node.domain in ("", "ai.onnx"):
            continue
        outputs = [name for later in nodes[position:] for name in later.output]
        layer = _next_point(outputs, points) or node.name or outputs[0]
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        raise ExportError(_refusal("ONNX", name, layer))


def check_tflite(buffer: Flatbuffer, points: Sequence[str]) -> None:
    """Check that tflite-micro has every operator of a TFLite model.

    Raises:
        ExportError: names the operator and the layer it comes from.
    """
    operators: list[Any] = list(buffer.graph.operators)
    for position, operator in enumerate(operators):
        name = buffer.operator_name(operator)
        if name in TFLM_OPERATORS or name in TFLM_CUSTOM:
            continue
        outputs = [buffer.name(int(i)) for later in operators[position:] for i in later.outputs]
        raise ExportError(_refusal("TFLite", name, _next_point(outputs, points) or outputs[0]))


def _next_point(names: Sequence[str], points: Sequence[str]) -> str | None:
    wanted = set(points)
    return next((name for name in names if name in wanted), None)


def _refusal(kind: str, operator: str, layer: str) -> str:
    hint = _HINTS.get(operator.removeprefix("custom:"), "replace that layer")
    return f"{kind} operator {operator} (layer {layer}): tflite-micro has no such operator; {hint}"

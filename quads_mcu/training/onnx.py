"""The codebook student in float: as ONNX for other runtimes, and layer by layer for comparison.

Its weights are the packed int8 centroids times their scale. A layer is a point of the computation
whose values every runtime can show; `quads_mcu.tflite.points` lists them.
"""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import EncoderLayer, Student
from quads_mcu.training import checkpoint
from quads_mcu.training.codebooks import Codebooks, latents
from quads_mcu.training.evaluation import (
    FLOAT_STUDENT,
    QUANTIZED_STUDENT,
    logits_of,
    read_student,
)
from quads_mcu.training.problem import Mel, real_mel

OPSET = 17
INPUT, OUTPUT = "mel", "logits"
_TANH_RANGE = 4.0


def float_student(run_dir: Path) -> Student:
    """Return a run's float student, as trained before the last quantization.

    Raises:
        TrainingError: missing or damaged.
    """
    return read_student(run_dir / FLOAT_STUDENT)[0]


def codebook_student(run_dir: Path) -> Student:
    """Return a run's quantized student with int8 centroids as float weights, float activations.

    Raises:
        TrainingError: missing or damaged.
    """
    path = run_dir / QUANTIZED_STUDENT
    tensors, scalars = checkpoint.read(path)
    try:
        student = Student(Dimensions(**scalars["dims"])).eval()
        codebooks = Codebooks.from_state(checkpoint.part(tensors, "codebook."), scalars["bits"])
        student.load_state_dict(checkpoint.part(tensors, "student."), strict=False)
        with torch.no_grad():
            quantized = codebooks.weights(student, int8=True)
            for name, parameter in student.named_parameters():
                parameter.copy_(quantized.get(name, parameter))
    except (KeyError, TypeError, AttributeError, RuntimeError) as problem:
        raise TrainingError(f"{path}: damaged: {problem}; train with --restart") from None
    assert len(latents(student)) == len(codebooks.centroids)
    return student


class StaticStudent(nn.Module):
    """The student for one window, every shape a constant and every layer's values returned.

    Computes what `Student` computes; attention is written out and reshapes carry numbers, so that
    the exported graph holds no shape arithmetic.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.dims = student.dims
        self.encoder = student.encoder
        self.head = student.head

    def forward(self, mel: Tensor) -> dict[str, Tensor]:
        """Map float32 (1, n_frames, n_mels) to the points by name, in order, "logits" last."""
        encoder, points = self.encoder, {}
        x = _gelu(encoder.conv1(mel.transpose(1, 2)))
        points["conv1"] = x
        x = _gelu(encoder.conv2(x)).transpose(1, 2)
        points["conv2"] = x
        x = x + encoder.positions
        for index, layer in enumerate(encoder.layers):
            assert isinstance(layer, EncoderLayer)
            x = self._layer(layer, x, f"layers.{index}.", points)
        points["norm"] = encoder.norm(x)
        points["pooled"] = self._pooled(points["norm"])
        points[OUTPUT] = self._logits(points["pooled"])
        return points

    def _pooled(self, tokens: Tensor) -> Tensor:
        """(1, n_tokens, d_model) -> the mean, (1, d_model), or (1, n_slots, d_model)."""
        if not self.dims.pools:
            return tokens.mean(dim=1)
        query = (self.head.query * self.dims.d_model**-0.5)[None]
        shares: Tensor = (query @ tokens.transpose(1, 2)).softmax(dim=-1)
        return shares @ tokens

    def _logits(self, pooled: Tensor) -> Tensor:
        """Every pool through the whole head, of which each slot keeps its own answers."""
        each = F.linear(pooled, self.head.weight, self.head.bias)
        if not self.dims.pools:
            return each
        ends = itertools.accumulate(self.dims.pools, initial=0)
        parts = [
            each[:, slot : slot + 1, first:last].reshape(1, last - first)
            for slot, (first, last) in enumerate(itertools.pairwise(ends))
        ]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _layer(
        self, layer: EncoderLayer, x: Tensor, prefix: str, points: dict[str, Tensor]
    ) -> Tensor:
        def keep(name: str, values: Tensor) -> Tensor:
            points[prefix + name] = values
            return values

        n = keep("attention_norm", layer.attention_norm(x))
        q = self._heads(keep("query", layer.query(n) * self.dims.d_head**-0.5))
        k = self._heads(keep("key", layer.key(n)))
        v = self._heads(keep("value", layer.value(n)))
        a = ((q @ k.transpose(2, 3)).softmax(dim=-1) @ v).transpose(1, 2)
        a = keep("attention", a.reshape(1, self.dims.n_tokens, self.dims.d_model))
        x = x + keep("output", layer.output(a))
        n = keep("feed_forward_norm", layer.feed_forward_norm(x))
        f = keep("feed_forward_1", _gelu(layer.feed_forward_1(n)))
        return x + keep("feed_forward_2", layer.feed_forward_2(f))

    def _heads(self, x: Tensor) -> Tensor:
        d = self.dims
        return x.reshape(1, d.n_tokens, d.n_heads, d.d_head).transpose(1, 2)


def _gelu(x: Tensor) -> Tensor:
    """GELU, tanh form, as int8 can follow it: float32 (...) -> the same shape.

    The argument of tanh is y + k y^3 with y = sqrt(2 / pi) x. Beyond +-4 tanh is 1 but for 4e-5;
    without the clamp a single large x makes the int8 grid of its cube too coarse for the others.
    TFLite gives a clamp's result the scale of its input: so y, never x, is clamped. The half stands
    in front, where the converter leaves it a layer of its own instead of folding it into the matrix
    that follows.
    """
    root = math.sqrt(2 / math.pi)
    y = (root * x).clamp(-_TANH_RANGE * root, _TANH_RANGE * root)
    return (0.5 * x) * (1 + torch.tanh(y + (0.044715 / root**2) * y * y * y))


def export(student: Student, path: Path) -> None:
    """Write `student` as ONNX: "mel" float32 (1, n_frames, n_mels) -> "logits" (1, n_classes).

    The tensor of every point carries the point's name.
    """
    dims = student.dims
    static = StaticStudent(student).eval()
    mel = torch.zeros(1, dims.n_frames, dims.n_mels)
    with torch.no_grad():
        names = list(static(mel))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The exporter that gives TFLite the graphs it understands is torch's older one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Values(static), (mel,), str(path), input_names=[INPUT], output_names=names,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    _only_logits(path)


class _Values(nn.Module):
    """All points as a tuple: what the exporter takes."""

    def __init__(self, static: StaticStudent) -> None:
        super().__init__()
        self.student = static

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        points: dict[str, Tensor] = self.student(mel)
        return tuple(points.values())


def _only_logits(path: Path) -> None:
    """Leave the logits as the only output; the other points stay as named tensors."""
    import onnx

    model = onnx.load(str(path))
    outputs = [value for value in model.graph.output if value.name == OUTPUT]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.save(model, str(path))


def logits(student: Student, mel: Mel) -> Any:
    """Return float32 (N, n_classes) for int8 features (N, n_frames, n_mels)."""
    return logits_of(lambda real: student(real)[1], mel)


def points(student: Student, mel: Mel) -> dict[str, Any]:
    """Return float32 values by point for one window of int8 features (n_frames, n_mels)."""
    with torch.inference_mode():
        found = StaticStudent(student)(real_mel(mel[None]))
        return {
            name: (value.transpose(1, 2) if name == "conv1" else value)[0].numpy()
            for name, value in found.items()
        }

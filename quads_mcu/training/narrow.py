"""Students narrower or shallower than a Whisper file that keep what it knows.

The residual stream is rotated to its principal components and cut to the student's width (after
SliceGPT, Ashkboos et al. 2024). Layers, heads and feed-forward units are chosen by what they
contribute on the project's own clips, heads are narrowed by the best low-rank products. Whatever
writes to the stream is then refitted by least squares to the wide encoder's stream, layer after
layer, on what the student itself computes up to there, so that errors do not add up; the two
convolutions, whose GELU stands between them and the stream, are fitted by gradient descent.

A LayerNorm subtracts the mean over its features. The narrow stream is laid out so that its mean is
zero whatever it holds: of `d` coordinates `d - 1` are free, those orthogonal to (1, ..., 1). Which
orthonormal basis they have is free, too; a random one spreads the energy over all coordinates, as
int8 activations with one scale want it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quads_mcu.console import Progress
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions, Preset
from quads_mcu.model.encoder import Encoder, EncoderLayer, attention, gelu
from quads_mcu.model.whisper import Weights, WhisperEncoder
from quads_mcu.training import checkpoint
from quads_mcu.training.data import digest
from quads_mcu.training.problem import Mel, Problem, real_mel

# Part of the cache's key: raised when the cut changes.
_VERSION = 1
_CLIPS = 128
_BATCH = 8
_RIDGE = 1e-4
_FRONT_EPOCHS = 20
_FRONT_RATE = 2e-3


@dataclass(frozen=True)
class _Cut:
    """The map between the wide, centred stream and the narrow one.

    down: float32 (d_narrow, d_wide), every column of sum zero. gain: what a narrow LayerNorm's
    output is multiplied by to be on the wide one's scale.
    """

    down: Tensor
    gain: float


def initial_state(
    whisper: WhisperEncoder, where: str, problem: Problem, seed: int, progress: Progress
) -> Weights:
    """Return the weights a student starts from: the encoder's, cut to size where it is larger.

    What was cut is cached by a hash of the tensors, the sizes and the clips.

    Args:
        whisper: the encoder to start from; where: what messages call it.
        problem: the student's sizes and training clips.
        seed: as in `narrowed`.
    Raises:
        TrainingError: other mel bands, or an encoder smaller than the student.
    """
    dims = problem.dims
    if dims.n_mels != whisper.n_mels:
        raise TrainingError(
            f"{where} was trained on {whisper.n_mels} mel bands, the student has {dims.n_mels}; "
            f'set [audio] n_mels = {whisper.n_mels} or [student] init = "random"'
        )
    if Preset(dims.d_model, dims.n_heads, dims.n_layers) == whisper.preset:
        return whisper.state(dims.n_tokens)
    tensors = (part for item in sorted(whisper.tensors.items()) for part in item)
    sizes = replace(dims, n_classes=2, pools=())
    key = digest(_VERSION, sizes, seed, problem.train.mel, *tensors)
    return checkpoint.cached(
        "narrow", key, lambda: narrowed(whisper, dims, problem.train.mel, seed, progress)
    )


def narrowed(
    whisper: WhisperEncoder, dims: Dimensions, mel: Mel, seed: int, progress: Progress
) -> Weights:
    """Cut a Whisper encoder to the sizes of a student.

    Args:
        whisper: the wide encoder, with as many mel bands as the student.
        dims: the student's; no size above the encoder's.
        mel: int8 (N, n_frames, n_mels), unvaried training clips to choose and fit by.
        seed: of the clips taken and of the basis.
    Returns:
        float32 tensors under the names of `Encoder`, positions included.
    Raises:
        TrainingError: the student is wider or deeper than the encoder.
    """
    wide_dims = whisper.dimensions(dims.n_frames, dims.n_classes)
    for name in ("d_model", "n_heads", "d_head", "n_layers"):
        if getattr(dims, name) > getattr(wide_dims, name):
            raise TrainingError(
                f"the student's {name} = {getattr(dims, name)} is above the Whisper file's "
                f'{getattr(wide_dims, name)}; choose a smaller preset or [student] init = "random"'
            )
    wide = Encoder(wide_dims)
    wide.load_state_dict({n: torch.from_numpy(t) for n, t in whisper.state(dims.n_tokens).items()})
    wide.requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(mel), generator=generator)[:_CLIPS].sort().values
    clips = real_mel(mel[chosen.numpy()])
    final = _final(wide, clips)
    _drop_layers(wide, clips, dims.n_layers)
    steps = 1 + dims.n_layers
    cut = _principal_cut(wide, clips, dims.d_model, generator)
    student = Encoder(dims)
    _fit_front(wide, student, clips, cut, generator)
    progress("cutting the encoder", 1, steps)
    student.requires_grad_(False).eval()
    stream, own = _front(wide, clips), _front(student, clips)
    for index in range(dims.n_layers):
        layer, narrow = _layer(wide, index), _layer(student, index)
        last = index == dims.n_layers - 1
        stream, own = _cut_layer(layer, narrow, stream, own, cut, final if last else None)
        progress("cutting the encoder", 2 + index, steps)
    student.norm.weight.fill_(cut.gain)
    return {name: tensor.float().numpy().copy() for name, tensor in student.state_dict().items()}


def _parts(rows: Tensor) -> Sequence[Tensor]:
    return torch.split(rows, _BATCH)


def _layer(encoder: Encoder, index: int) -> EncoderLayer:
    return cast(EncoderLayer, encoder.layers[index])


def _front(encoder: Encoder, mel: Tensor) -> Tensor:
    """Return the stream before the first layer, (N, n_tokens, d_model)."""
    with torch.no_grad():
        return torch.cat([encoder.stem(part) for part in _parts(mel)])


def _through(layer: EncoderLayer, stream: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([layer(part) for part in _parts(stream)])


def _final(wide: Encoder, clips: Tensor) -> Tensor:
    stream = _front(wide, clips)
    for index in range(len(wide.layers)):
        stream = _through(_layer(wide, index), stream)
    return stream


def _drop_layers(wide: Encoder, clips: Tensor, n_layers: int) -> None:
    """Take out the layers that turn the stream the least (block influence, Men et al. 2024)."""
    while len(wide.layers) > n_layers:
        stream = _front(wide, clips)
        influence = []
        for index in range(len(wide.layers)):
            after = _through(_layer(wide, index), stream)
            influence.append(1 - float(F.cosine_similarity(stream, after, dim=-1).mean()))
            stream = after
        del wide.layers[int(np.argmin(influence))]


def _normal(stream: Tensor) -> Tensor:
    """LayerNorm without its affine part."""
    return F.layer_norm(stream, stream.shape[-1:])


def _principal_cut(wide: Encoder, clips: Tensor, width: int, generator: torch.Generator) -> _Cut:
    """Return the rotation to the directions that carry the LayerNorms' inputs."""
    d = wide.dims.d_model
    moment = torch.zeros(d, d)
    stream = _front(wide, clips)
    for index in range(len(wide.layers) + 1):
        normal = _normal(stream).flatten(0, 1)
        moment += normal.T @ normal / len(normal)
        if index < len(wide.layers):
            stream = _through(_layer(wide, index), stream)
    free = min(width - 1, d - 1)
    values, vectors = torch.linalg.eigh(moment)
    principal = vectors[:, -free:].T
    start = torch.cat([torch.ones(width, 1), torch.randn(width, free, generator=generator)], dim=1)
    basis = torch.linalg.qr(start).Q[:, 1:]
    kept = float(values[-free:].sum() / values.sum())
    return _Cut(basis @ principal, (d / width * kept) ** 0.5)


def _least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight (n_out, n_in) and bias (n_out,) of the ridge regression of y on x."""
    x, y = x.flatten(0, -2).double(), y.flatten(0, -2).double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
    return weight.float(), (mean_y - weight @ mean_x).float()


def _fit_front(
    wide: Encoder, student: Encoder, clips: Tensor, cut: _Cut, generator: torch.Generator
) -> None:
    """Fit convolutions and positions to the wide encoder's cut stream."""
    target = _front(wide, clips) @ cut.down.T
    _start_front(wide, student, clips, target, cut)
    convolutions = [*student.conv1.parameters(), *student.conv2.parameters()]
    optimizer = torch.optim.Adam(convolutions, lr=_FRONT_RATE)
    for epoch in range(_FRONT_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _FRONT_RATE * (1 - epoch / _FRONT_EPOCHS)
        for rows in _parts(torch.randperm(len(clips), generator=generator)):
            loss = F.mse_loss(student.stem(clips[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@torch.no_grad()
def _start_front(wide: Encoder, student: Encoder, clips: Tensor, target: Tensor, cut: _Cut) -> None:
    """Take the first convolution's strongest channels; solve the second one's preactivations."""
    d = student.dims.d_model
    hidden = gelu(wide.conv1(clips.transpose(1, 2)))
    strength = hidden.var(dim=(0, 2)) * wide.conv2.weight.square().sum(dim=(0, 2))
    kept = strength.topk(d).indices.sort().values
    student.conv1.weight.copy_(wide.conv1.weight[kept])
    bias = wide.conv1.bias
    assert bias is not None and student.conv1.bias is not None and student.conv2.bias is not None
    student.conv1.bias.copy_(bias[kept])
    positions = wide.positions @ cut.down.T
    varying = target - positions
    # GELU is near the identity above this.
    floor = varying.mean(dim=(0, 1)) - 2 * varying.std(dim=(0, 1))
    student.positions.copy_(positions + floor)
    taps = F.pad(hidden[:, kept], (1, 1)).unfold(2, CONV_KERNEL, 2).permute(0, 2, 1, 3).flatten(2)
    weight, offset = _least_squares(taps, varying - floor)
    student.conv2.weight.copy_(weight.view(d, d, CONV_KERNEL))
    student.conv2.bias.copy_(offset)


@torch.no_grad()
def _cut_layer(
    layer: EncoderLayer,
    narrow: EncoderLayer,
    stream: Tensor,
    own: Tensor,
    cut: _Cut,
    final: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Cut one layer; return the wide and the student's stream behind it.

    final: where the stream shall end instead, behind the layers that were taken out.
    """
    _cut_attention(layer, narrow, stream, cut)
    stream = stream + layer.output(_mixed(layer, stream))
    mixed = _mixed(narrow, own)
    fit_linear(narrow.output, mixed, stream @ cut.down.T - own)
    own = own + narrow.output(mixed)

    _cut_feed_forward(layer, narrow, stream, cut)
    stream = stream + _feed_forward(layer, stream) if final is None else final
    hidden = _hidden(narrow, own)
    fit_linear(narrow.feed_forward_2, hidden, stream @ cut.down.T - own)
    return stream, own + narrow.feed_forward_2(hidden)


@torch.no_grad()
def fit_linear(linear: nn.Linear, x: Tensor, y: Tensor) -> None:
    """Set a linear layer to the ridge regression of y, (..., n_out), on x, (..., n_in)."""
    weight, bias = _least_squares(x, y)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _qkv(layer: EncoderLayer, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each (N, n_heads, n_tokens, d_head)."""
    n = layer.attention_norm(stream)
    q, k, v = (
        _heads(part, layer.n_heads).transpose(1, 2)
        for part in (layer.query(n), layer.key(n), layer.value(n))
    )
    return q, k, v


def _heads(x: Tensor, n_heads: int) -> Tensor:
    """(..., d_model) -> (..., n_heads, d_head)."""
    return x.view(*x.shape[:-1], n_heads, -1)


def _mixed(layer: EncoderLayer, stream: Tensor) -> Tensor:
    """Return attention's outputs before the output matrix, (N, n_tokens, d_model)."""
    parts = []
    for part in _parts(stream):
        a = attention(*_qkv(layer, part))
        parts.append(a.transpose(1, 2).flatten(2))
    return torch.cat(parts)


def _hidden(layer: EncoderLayer, stream: Tensor) -> Tensor:
    """Return the feed-forward activations, (N, n_tokens, d_ff)."""
    return gelu(layer.feed_forward_1(layer.feed_forward_norm(stream)))


def _feed_forward(layer: EncoderLayer, stream: Tensor) -> Tensor:
    return torch.cat([layer.feed_forward_2(_hidden(layer, part)) for part in _parts(stream)])


def _read(linear: nn.Linear, norm: nn.LayerNorm, cut: _Cut) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a matrix that reads the narrow stream behind a plain norm."""
    weight = (linear.weight * norm.weight) @ cut.down.T
    bias = linear.weight @ norm.bias
    return weight, bias if linear.bias is None else bias + linear.bias


def _root(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root and its inverse."""
    values, vectors = torch.linalg.eigh(moment.double())
    root = values.clamp_min(1e-6 * values.max()).sqrt()
    return ((vectors * root) @ vectors.T).float(), ((vectors / root) @ vectors.T).float()


def _cut_attention(layer: EncoderLayer, narrow: EncoderLayer, stream: Tensor, cut: _Cut) -> None:
    """Choose heads by the energy they write, and give each its best narrow queries and values."""
    d_head = narrow.query.out_features // narrow.n_heads
    q, k, _ = (torch.cat(p) for p in zip(*(_qkv(layer, s) for s in _parts(stream)), strict=True))
    mixed = _heads(_mixed(layer, stream), layer.n_heads)
    out = _heads(cut.down @ layer.output.weight, layer.n_heads)
    energy = torch.stack(
        [(mixed[:, :, h] @ out[:, h].T).var(dim=(0, 1)).sum() for h in range(layer.n_heads)]
    )
    heads = energy.topk(narrow.n_heads).indices.sort().values.tolist()
    parts = {
        name: _read(getattr(layer, name), layer.attention_norm, cut)
        for name in ("query", "key", "value")
    }
    wide_head = layer.query.out_features // layer.n_heads
    for place, head in enumerate(heads):
        rows = slice(head * wide_head, (head + 1) * wide_head)
        to = slice(place * d_head, (place + 1) * d_head)
        left, right = _narrow_products(q[:, head], k[:, head], d_head)
        for name, factor in (
            ("query", left * (d_head / wide_head) ** 0.5),
            ("key", right),
            ("value", _narrow_values(mixed[:, :, head], out[:, head], d_head)),
        ):
            weight, bias = parts[name]
            linear = getattr(narrow, name)
            linear.weight[to] = factor @ weight[rows]
            if linear.bias is not None:
                linear.bias[to] = factor @ bias[rows]
    narrow.attention_norm.weight.fill_(cut.gain)


def _narrow_products(q: Tensor, k: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return maps of queries and keys, (rank, d_head), that keep their products best."""
    if rank == q.shape[-1]:
        return torch.eye(rank), torch.eye(rank)
    k = k - k.mean(dim=1, keepdim=True)  # softmax does not see what all keys share
    q, k = q.flatten(0, 1), k.flatten(0, 1)
    root_q, inverse_q = _root(q.T @ q / len(q))
    root_k, inverse_k = _root(k.T @ k / len(k))
    u, s, vh = torch.linalg.svd(root_q @ root_k)
    share = s[:rank].sqrt()[:, None]
    return share * (u[:, :rank].T @ inverse_q), share * (vh[:rank] @ inverse_k)


def _narrow_values(mixed: Tensor, out: Tensor, rank: int) -> Tensor:
    """Return the map of values, (rank, d_head), that keeps best what reaches the stream."""
    if rank == mixed.shape[-1]:
        return torch.eye(rank)
    mixed = mixed.flatten(0, 1) - mixed.flatten(0, 1).mean(0)
    root, inverse = _root(mixed.T @ mixed / len(mixed))
    return cast(Tensor, torch.linalg.svd(out @ root).Vh[:rank] @ inverse)


def _cut_feed_forward(layer: EncoderLayer, narrow: EncoderLayer, stream: Tensor, cut: _Cut) -> None:
    """Choose hidden units by the energy they write."""
    variance = torch.stack([_hidden(layer, p).var(dim=(0, 1)) for p in _parts(stream)]).mean(0)
    energy = variance * (cut.down @ layer.feed_forward_2.weight).square().sum(0)
    kept = energy.topk(narrow.feed_forward_1.out_features).indices.sort().values
    weight, bias = _read(layer.feed_forward_1, layer.feed_forward_norm, cut)
    narrow.feed_forward_1.weight.copy_(weight[kept])
    narrow.feed_forward_1.bias.copy_(bias[kept])
    narrow.feed_forward_norm.weight.fill_(cut.gain)

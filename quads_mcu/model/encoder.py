"""The Whisper-shaped encoder (torch): teacher and student are one class at two sizes.

Module names are those of `quads_mcu.model_format`. GELU is the tanh form throughout, which is what
the device's table holds; Whisper's exact form differs by less than 5e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions

# A point where the device has integers: called with its name and the real values, returns what
# the computation goes on with. Names: `quads_mcu.training.activations`.
Site = Callable[[str, Tensor], Tensor]


def identity(name: str, values: Tensor) -> Tensor:
    """Leave the values as they are: the float model."""
    return values


def sinusoids(length: int, width: int, max_timescale: float = 10_000.0) -> Tensor:
    """Return Whisper's positions, float32 (length, width): sines, then cosines."""
    half = width // 2
    increment = math.log(max_timescale) / (half - 1)
    rates = torch.exp(-increment * torch.arange(half))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def gelu(x: Tensor) -> Tensor:
    """Return GELU in its tanh form.

    In bfloat16, whose steps are wider than the difference, in its exact form: PyTorch computes that
    in a quarter of the time.
    """
    return F.gelu(x, approximate="none" if x.dtype == torch.bfloat16 else "tanh")


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k / sqrt(d_head)) v, (batch, n_heads, n_tokens, d_head) like its arguments.

    On a CPU in bfloat16 in three parts, which take half as long as PyTorch's one.
    """
    if q.dtype != torch.bfloat16 or q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    shares: Tensor = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
    return shares @ v


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer; the key projection has no bias."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        d = dims.d_model
        self.n_heads = dims.n_heads
        self.attention_norm = nn.LayerNorm(d)
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d)
        self.output = nn.Linear(d, d)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.feed_forward_1 = nn.Linear(d, dims.d_ff)
        self.feed_forward_2 = nn.Linear(dims.d_ff, d)

    def forward(self, x: Tensor, site: Site = identity, prefix: str = "") -> Tensor:
        """Map float32 (batch, n_tokens, d_model) to the same shape."""
        n = site(prefix + "attention_norm", self.attention_norm(x))
        q = self._heads(site(prefix + "query", self.query(n)))
        k = self._heads(site(prefix + "key", self.key(n)))
        v = self._heads(site(prefix + "value", self.value(n)))
        a = attention(q, k, v).transpose(1, 2).flatten(2)
        x = site("residual", x + self.output(site(prefix + "attention", a)))
        n = site(prefix + "feed_forward_norm", self.feed_forward_norm(x))
        f = gelu(site(prefix + "feed_forward_1", self.feed_forward_1(n)))
        return site("residual", x + self.feed_forward_2(site(prefix + "gelu", f)))

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, n_tokens, d_model) -> (batch, n_heads, n_tokens, d_head)."""
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class Encoder(nn.Module):
    """Two convolutions, positions, layers and a final norm (docs/arithmetic.md, section 8)."""

    positions: Tensor  # float32 (n_tokens, d_model), not trained

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        d = dims.d_model
        self.dims = dims
        self.conv1 = nn.Conv1d(dims.n_mels, d, CONV_KERNEL, padding=1)
        self.conv2 = nn.Conv1d(d, d, CONV_KERNEL, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(dims.n_tokens, d))
        self.layers = nn.ModuleList(EncoderLayer(dims) for _ in range(dims.n_layers))
        self.norm = nn.LayerNorm(d)

    def forward(self, mel: Tensor, site: Site = identity) -> Tensor:
        """Encode an utterance window.

        Args:
            mel: float32 (batch, n_frames, n_mels), Whisper's normalized log-mel; fewer frames are a
                window that ends earlier.
            site: what to do at each point where the device has integers.
        Returns:
            float32 (batch, n_tokens, d_model).
        """
        x = self.stem(mel, site)
        for index, layer in enumerate(self.layers):
            x = layer(x, site, f"layers.{index}.")
        return site("norm", self.norm(x))

    def stem(self, mel: Tensor, site: Site = identity) -> Tensor:
        """Return what the first layer takes: convolutions and positions. Arguments as `forward`."""
        x = mel.transpose(1, 2)
        x = gelu(site("conv1", self.conv1(x)))
        x = gelu(site("conv2", self.conv2(site("conv1_gelu", x))))
        x = x.transpose(1, 2)
        return site("residual", x + site("positions", self.positions[: x.shape[1]]))


class Head(nn.Linear):
    """A pool over time and a linear layer (docs/arithmetic.md, section 7).

    The pool is the mean, or for each slot softmax(query y / sqrt(d_model)) y with a learned query,
    (n_slots, d_model), zero at first, which is the mean.
    """

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims.d_model, dims.n_classes)
        self.pools = list(dims.pools)
        if self.pools:
            self.query = nn.Parameter(torch.zeros(len(self.pools), dims.d_model))

    def forward(self, tokens: Tensor, site: Site = identity) -> Tensor:
        """Map float32 (batch, n_tokens, d_model) to logits, (batch, n_classes)."""
        if not self.pools:
            return super().forward(site("pooled", tokens.mean(dim=1)))
        query = site("head.query", self.query) * tokens.shape[-1] ** -0.5
        shares = (query @ tokens.transpose(1, 2)).softmax(dim=-1)
        pooled = site("pooled", shares @ tokens)
        weights = torch.split(self.weight, self.pools)
        biases = torch.split(self.bias, self.pools)
        parts = zip(pooled.unbind(1), weights, biases, strict=True)
        return torch.cat([F.linear(z, weight, bias) for z, weight, bias in parts], dim=1)


class Student(nn.Module):
    """An encoder and a head with its pool over time. A teacher is one, too."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = Encoder(dims)
        self.head = Head(dims)

    def forward(self, mel: Tensor, site: Site = identity) -> tuple[Tensor, Tensor]:
        """Return tokens, float32 (batch, n_tokens, d_model), and logits, (batch, n_classes).

        Features z of Eq. 1 are the tokens' mean over time. The head computes in float32 always.
        """
        tokens = self.encoder(mel, site).float()
        with torch.autocast(tokens.device.type, enabled=False):
            return tokens, self.head(tokens, site)

"""Sizes of an encoder, its presets, and what they cost in parameters and multiply-accumulates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from quads_mcu.errors import ConfigError

FRAMES_PER_S = 100
CONV_KERNEL = 3


@dataclass(frozen=True)
class Dimensions:
    """All sizes of one encoder with its head; stored in every checkpoint and packed model.

    pools: the classes of each attention pool, one pool per slot; empty: one mean over time for all.
    """

    n_mels: int
    n_frames: int
    d_model: int
    n_heads: int
    n_layers: int
    n_classes: int
    pools: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # JSON has lists.
        if isinstance(self.pools, list):
            object.__setattr__(self, "pools", tuple(self.pools))

    @property
    def n_tokens(self) -> int:
        """Encoder positions: the second convolution halves the frame rate."""
        return self.n_frames // 2

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def d_ff(self) -> int:
        """Width of the feed-forward layer."""
        return 4 * self.d_model

    def problem(self) -> str | None:
        """Return why these sizes are impossible, or None."""
        limits = {
            "n_mels": (8, 128),
            "n_frames": (2, 3000),
            "d_model": (8, 1280),
            "n_heads": (1, 20),
            "n_layers": (1, 32),
            "n_classes": (2, 4096),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                return f"{name} = {value!r} is outside {low} .. {high}"
        if self.n_frames % 2:
            return f"n_frames = {self.n_frames} is odd"
        if self.d_model % self.n_heads:
            return f"d_model = {self.d_model} is not a multiple of n_heads = {self.n_heads}"
        if self.d_model % 8 or self.n_mels % 8 or self.d_head % 8:
            return "n_mels, d_model and d_model / n_heads must be multiples of 8"
        if not isinstance(self.pools, tuple) or not all(
            type(n) is int and n > 0 for n in self.pools
        ):
            return f"pools = {self.pools!r} are not numbers of classes"
        if self.pools and sum(self.pools) != self.n_classes:
            return f"pools of {sum(self.pools)} classes in all, n_classes = {self.n_classes}"
        return None


@dataclass(frozen=True)
class Preset:
    """Width, heads and depth of an encoder."""

    d_model: int
    n_heads: int
    n_layers: int


PRESETS = {
    "d64x2": Preset(64, 2, 2),
    "d96x2": Preset(96, 3, 2),
    "d128x3": Preset(128, 4, 3),
    "d192x4": Preset(192, 3, 4),
    "d384x4": Preset(384, 6, 4),
}

# Encoders of the published Whisper sizes, for profiles and teachers.
WHISPER = {
    "whisper-tiny": Preset(384, 6, 4),
    "whisper-base": Preset(512, 8, 6),
    "whisper-small": Preset(768, 12, 12),
    "whisper-medium": Preset(1024, 16, 24),
    "whisper-large": Preset(1280, 20, 32),
}


def preset(name: str) -> Preset:
    """Return the size of a name of PRESETS or WHISPER, or of any `dWIDTHxLAYERS`.

    Heads are 64 wide, as Whisper's, where the width is a multiple of 64 and at least 192, else 32.

    Raises:
        ConfigError: no such name, or a width that is no multiple of 32.
    """
    known = {**PRESETS, **WHISPER}
    if name in known:
        return known[name]
    match = re.fullmatch(r"d([1-9]\d{1,3})x([1-9]\d?)", name)
    if not match:
        raise ConfigError(
            f"no architecture {name!r}; there are {', '.join(known)}, and any dWIDTHxLAYERS"
        )
    width, layers = map(int, match.groups())
    if width % 32:
        raise ConfigError(f"{name}: a width of {width}; it must be a multiple of 32, a head's")
    return Preset(width, width // (32 if width % 64 or width < 192 else 64), layers)


def dimensions(arch: str, *, n_mels: int, window_s: float, n_classes: int) -> Dimensions:
    """Return the sizes of `arch`, a name that `preset` knows, for a window of `window_s`.

    Raises:
        ConfigError: as for `preset`.
    """
    size = preset(arch)
    n_frames = 2 * round(window_s * FRAMES_PER_S / 2)
    return Dimensions(n_mels, n_frames, size.d_model, size.n_heads, size.n_layers, n_classes)


def checked(arch: str, *, n_mels: int, window_s: float, n_classes: int) -> Dimensions:
    """Return `dimensions` of values a person typed.

    Raises:
        ConfigError: unknown `arch`, or an impossible size.
    """
    preset(arch)
    if not math.isfinite(window_s):
        raise ConfigError(f"{arch}: a window of {window_s} s; give one of up to 30 s")
    dims = dimensions(arch, n_mels=n_mels, window_s=window_s, n_classes=n_classes)
    if problem := dims.problem():
        raise ConfigError(f"{arch}: {problem}")
    return dims


@dataclass(frozen=True)
class Cost:
    """Parameters (positions not counted, as in the paper) and MACs of one part."""

    name: str
    parameters: int
    macs: int


def profile(dims: Dimensions) -> list[Cost]:
    """Return the cost of each part: convolutions, every layer, final norm, head.

    MACs count convolutions, linear layers and attention products (notes on Table 1).
    """
    d, t, ff = dims.d_model, dims.n_tokens, dims.d_ff
    conv1 = CONV_KERNEL * dims.n_mels * d
    conv2 = CONV_KERNEL * d * d
    costs = [
        Cost("conv1", conv1 + d, conv1 * dims.n_frames),
        Cost("conv2", conv2 + d, conv2 * t),
    ]
    for layer in range(dims.n_layers):
        attention = 4 * d * d
        products = 2 * t * t * d
        feed_forward = 2 * d * ff
        costs += [
            Cost(f"layers.{layer}.attention", attention + 3 * d + 2 * d, attention * t + products),
            Cost(f"layers.{layer}.feed_forward", feed_forward + ff + d + 2 * d, feed_forward * t),
        ]
    costs.append(Cost("norm", 2 * d, 0))
    costs.append(Cost("head", dims.n_classes * (d + 1), dims.n_classes * d))
    return costs

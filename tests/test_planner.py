"""The arena planner: nothing that lives at the same time may overlap."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quads_mcu.errors import ExportError
from quads_mcu.export import planner
from quads_mcu.export.kernels import KERNELS
from quads_mcu.model.dimensions import PRESETS, Dimensions, dimensions

# Which tensors the encoder holds at once, written down from docs/arithmetic.md, section 8, and not
# taken from the planner. A convolution reads mel and writes the residual through rows of conv1.
LIVE = {
    "convolutions": {"mel", "residual", "conv", "conv_workspace"},
    "projections": {
        "mel", "residual", "normalized", "projection_workspace", "attention", "key", "value",
    },
    "products": {"mel", "residual", "attention", "key", "value", "attention_workspace"},
    "output": {"mel", "residual", "attention", "output_workspace"},
    "feed_forward": {
        "mel", "residual", "feed_forward_normalized", "hidden", "feed_forward_workspace",
    },
    "pool": {"mel", "residual", "pool_normalized", "pool_workspace", "pooled"},
    "head": {"mel", "pooled", "head_workspace"},
}  # fmt: skip
# Stays alone: the features can be read back after an inference, and inferred from again.
NEVER_SHARED = "mel"


variants = st.sampled_from(sorted(KERNELS))


@st.composite
def all_dimensions(draw: st.DrawFn) -> Dimensions:
    n_heads = draw(st.integers(1, 20))
    d_head = 8 * draw(st.integers(1, min(16, 160 // n_heads)))
    dims = Dimensions(
        n_mels=8 * draw(st.integers(1, 16)),
        n_frames=2 * draw(st.one_of(st.integers(1, 8), st.integers(1, 1500))),
        d_model=n_heads * d_head,
        n_heads=n_heads,
        n_layers=draw(st.integers(1, 32)),
        n_classes=draw(st.integers(2, 4096)),
    )
    if draw(st.booleans()):
        n_slots = draw(st.integers(1, min(64, dims.n_classes // 2)))
        pools = (*[2] * (n_slots - 1), dims.n_classes - 2 * (n_slots - 1))
        dims = dataclasses.replace(dims, pools=pools)
    assert dims.problem() is None
    return dims


@given(all_dimensions(), variants)
def test_tensors_needed_together_do_not_overlap(dims: Dimensions, variant: str) -> None:
    placed = {tensor.name: tensor for tensor in planner.plan(dims, variant).tensors}
    assert set(placed) == set.union(*LIVE.values())
    for names in LIVE.values():
        for one, other in itertools.combinations(sorted(names), 2):
            first, second = placed[one], placed[other]
            assert first.end <= second.offset or second.end <= first.offset, (one, other)


@given(all_dimensions(), variants)
def test_features_share_memory_with_nothing(dims: Dimensions, variant: str) -> None:
    tensors = planner.plan(dims, variant).tensors
    (mel,) = (tensor for tensor in tensors if tensor.name == NEVER_SHARED)
    for tensor in tensors:
        assert tensor is mel or tensor.end <= mel.offset or tensor.offset >= mel.end


@given(all_dimensions(), variants)
def test_layout_is_aligned_and_the_arena_ends_with_it(dims: Dimensions, variant: str) -> None:
    plan = planner.plan(dims, variant)
    assert all(tensor.offset % 8 == 0 for tensor in plan.tensors)
    assert min(tensor.offset for tensor in plan.tensors) == 0
    assert plan.arena_bytes == max(tensor.offset + tensor.bytes for tensor in plan.tensors)
    assert plan.arena_bytes >= max(plan.step_bytes().values())
    assert plan.offsets == {tensor.name: tensor.offset for tensor in plan.tensors}


@given(all_dimensions())
def test_tensors_hold_what_the_encoder_writes(dims: Dimensions) -> None:
    """Element counts times element sizes: int8, but for what docs/arithmetic.md says is wider."""
    plan = planner.plan(dims)
    t, d, d_head = dims.n_frames // 2, dims.d_model, dims.d_model // dims.n_heads
    block = plan.blocks
    needed = {
        "mel": (dims.n_frames + 2) * dims.n_mels,
        "residual": t * d * 2,
        "conv": (2 * block["conv_block"] + 1) * d,
        "conv_workspace": 4 * 3 * max(d, dims.n_mels),
        "normalized": block["projection_block"] * d,
        "projection_workspace": 4 * d,
        "attention": t * d,
        "key": t * d_head,
        "value": t * d_head,
        "attention_workspace": (t + t % 2) * 4 + t * 2,
        "output_workspace": 4 * d,
        "feed_forward_normalized": block["feed_forward_block"] * d,
        "hidden": block["feed_forward_block"] * 4 * d,
        "feed_forward_workspace": 4 * 4 * d,
        "pool_normalized": (t if dims.pools else block["pool_block"]) * d,
        "pool_workspace": (t + t % 2) * 4 + t * 2 if dims.pools else d * 4,
        "pooled": d * 2 * (len(dims.pools) or 1),
        "head_workspace": 4 * d,
    }
    assert all(1 <= tokens <= t for tokens in block.values())
    for tensor in plan.tensors:
        assert needed[tensor.name] <= tensor.bytes < needed[tensor.name] + 8, tensor.name


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("n_mels", [40, 80])
@pytest.mark.parametrize("window_s", [0.5, 1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("variant", KERNELS)
def test_presets_leave_no_gaps(preset: str, n_mels: int, window_s: float, variant: str) -> None:
    """What is needed in the fullest step is a lower bound of any arena."""
    dims = dimensions(preset, n_mels=n_mels, window_s=window_s, n_classes=31)
    plan = planner.plan(dims, variant)
    assert plan.arena_bytes == max(plan.step_bytes().values())


@pytest.mark.parametrize(
    ("preset", "n_mels", "window_s", "limit_bytes"),
    [("d96x2", 40, 2.0, 47 * 1024), ("d96x2", 80, 3.0, 82_000), ("d384x4", 80, 3.0, 270_000)],
)
@pytest.mark.parametrize("variant", KERNELS)
def test_known_sizes(
    preset: str, n_mels: int, window_s: float, limit_bytes: int, variant: str
) -> None:
    if (preset, variant) == ("d96x2", "helium"):
        limit_bytes += 2_000  # its attention takes more keys and values at a time
    dims = dimensions(preset, n_mels=n_mels, window_s=window_s, n_classes=31)
    assert planner.plan(dims, variant).arena_bytes <= limit_bytes


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ExportError, match="'neon' are unknown; there are plain, dsp, helium"):
        planner.plan(Dimensions(40, 200, 96, 3, 1, 2), "neon")


def test_plans_do_not_depend_on_layers_or_classes() -> None:
    small = planner.plan(Dimensions(40, 200, 96, 3, 1, 2))
    assert planner.plan(Dimensions(40, 200, 96, 3, 32, 2)) == small
    assert planner.plan(Dimensions(40, 200, 96, 3, 1, 4096)) == small

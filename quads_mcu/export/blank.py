"""A packed model of given sizes whose weights are all zero.

It takes the memory of a trained one and, within a percent, its instructions, so that a size can be
analyzed, built and profiled before anything is trained.
"""

from __future__ import annotations

import numpy as np

from quads_mcu import model_format
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedLayer, PackedLinear, PackedModel, PackedNorm
from quads_mcu.slots import Slot


def blank(dims: Dimensions, bits: int) -> PackedModel:
    """Return a model that passes `model_format.check`.

    Args:
        dims: sizes; dims.problem() must be None.
        bits: of every matrix, one of model_format.BITS.
    """
    linears = {
        name: _linear(shape, bits, name == "head")
        for name, shape in model_format.linear_shapes(dims).items()
    }
    norm = PackedNorm(
        gamma=np.zeros(dims.d_model, np.int16),
        beta=np.zeros(dims.d_model, np.int32),
        shift=10,  # as trained ones; kernels may take shift 1 on a slower path
        epsilon=1,
        output_scale=1.0,
    )
    gelu = np.zeros(256, np.int8)
    layers = tuple(
        PackedLayer(
            attention_norm=norm,
            score_multiplier=0,
            value_multiplier=1,
            feed_forward_norm=norm,
            gelu=gelu,
            gelu_zero_point=0,
            **{name: linears[f"layers.{i}.{name}"] for name in model_format.LAYER_LINEARS},
        )
        for i in range(dims.n_layers)
    )
    return PackedModel(
        dims=dims,
        slots=_slots(dims.pools or (dims.n_classes,)),
        conv1=linears["conv1"],
        conv1_gelu=gelu,
        conv1_gelu_zero_point=0,
        conv2=linears["conv2"],
        conv2_gelu=np.zeros(256, np.int16),
        positions=np.zeros((dims.n_tokens, dims.d_model), np.int8),
        position_multiplier=0,
        residual_scale=1.0,
        layers=layers,
        norm=norm,
        pool_multiplier=1,
        head=linears["head"],
        logit_scale=1.0,
        pool_query=np.zeros((len(dims.pools), dims.d_model), np.int8),
        provenance={"weights": "none: all zero"},
    )


def _slots(sizes: tuple[int, ...]) -> tuple[Slot, ...]:
    names = ["intent", *(f"slot {place}" for place in range(1, len(sizes)))]
    return tuple(
        Slot(name, tuple(f"{name} {index}" for index in range(size)))
        for name, size in zip(names, sizes, strict=True)
    )


def _linear(shape: tuple[int, int], bits: int, is_head: bool) -> PackedLinear:
    return PackedLinear(
        bits=bits,
        indices=np.zeros(shape, np.uint8),
        centroids=np.zeros(1 << bits, np.int8),
        bias=np.zeros(shape[0], np.int32),
        multiplier=np.zeros(0 if is_head else 1, np.int32),
        weight_scale=1.0,
        input_scale=1.0,
        output_scale=1.0,
    )

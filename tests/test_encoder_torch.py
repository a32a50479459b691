"""The torch encoder against transformers' Whisper encoder, on random and on the real weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shared_data import SHARED
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from quads_mcu.model import whisper
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Encoder, Student, sinusoids

TINY_EN = SHARED / "whisper" / "whisper_tiny_en_encoder_fp16.npz"

THEIRS = {
    "attention_norm": "self_attn_layer_norm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.out_proj",
    "feed_forward_norm": "final_layer_norm",
    "feed_forward_1": "fc1",
    "feed_forward_2": "fc2",
}


def transformers_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in encoder.state_dict().items():
        if name.startswith("layers."):
            _, index, part, kind = name.split(".")
            state[f"layers.{index}.{THEIRS[part]}.{kind}"] = tensor
        elif name == "positions":
            state["embed_positions.weight"] = tensor
        else:
            state[name.replace("norm.", "layer_norm.")] = tensor
    return state


def transformers_encoder(encoder: Encoder, activation: str) -> WhisperEncoder:
    dims = encoder.dims
    config = WhisperConfig(
        num_mel_bins=dims.n_mels,
        d_model=dims.d_model,
        encoder_layers=dims.n_layers,
        encoder_attention_heads=dims.n_heads,
        encoder_ffn_dim=dims.d_ff,
        max_source_positions=dims.n_tokens,
        activation_function=activation,
        attn_implementation="eager",
    )
    reference = WhisperEncoder(config).eval()
    reference.load_state_dict(transformers_state(encoder))
    return reference


@pytest.fixture
def tanh_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give transformers' convolutions, whose GELU is fixed, the tanh form."""
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(
        torch.nn.functional, "gelu", lambda x, approximate="none": exact(x, approximate="tanh")
    )


@pytest.mark.usefixtures("tanh_gelu")
@pytest.mark.parametrize(
    "dims",
    [
        Dimensions(40, 2, 8, 1, 1, 2),
        Dimensions(8, 50, 24, 3, 2, 2),
        Dimensions(80, 3000, 64, 2, 2, 2),
    ],
    ids=str,
)
def test_random_weights_equal_transformers(dims: Dimensions) -> None:
    torch.manual_seed(0)
    encoder = Encoder(dims).eval()
    mel = torch.randn(2, dims.n_frames, dims.n_mels)
    with torch.no_grad():
        expected = transformers_encoder(encoder, "gelu_new")(mel.transpose(1, 2)).last_hidden_state
        found = encoder(mel)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_in_bfloat16_it_is_transformers_up_to_rounding_and_so_are_gradients() -> None:
    torch.manual_seed(0)
    encoder = Encoder(Dimensions(40, 120, 64, 2, 2, 2))
    mel = torch.randn(3, 120, 40)
    weight = torch.randn(3, 60, 64)
    reference = transformers_encoder(encoder, "gelu_new")
    (reference(mel.transpose(1, 2)).last_hidden_state * weight).sum().backward()
    expected = reference(mel.transpose(1, 2)).last_hidden_state.detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(mel)
    (found.float() * weight).sum().backward()
    assert (found - expected).abs().max() < 0.1 and not torch.equal(found.float(), expected)
    parameters = dict(encoder.named_parameters())
    names = dict(zip(transformers_state(encoder), encoder.state_dict(), strict=True))
    for name, theirs in reference.named_parameters():
        if name == "embed_positions.weight":
            continue
        ours = parameters[names[name]]
        assert ours.grad is not None and theirs.grad is not None
        assert ours.grad.shape == theirs.grad.shape
        error = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert error < 0.03, f"{name}: {error:.3f}"


def test_the_head_stays_in_float32() -> None:
    torch.manual_seed(0)
    student = Student(Dimensions(8, 10, 16, 2, 1, 5, pools=(2, 3)))
    torch.nn.init.normal_(student.head.query)
    with torch.autocast("cpu", torch.bfloat16):
        tokens, logits = student(torch.randn(4, 10, 8))
    assert tokens.dtype == logits.dtype == torch.float32
    assert torch.equal(logits, student.head(tokens))


def test_tiny_en_equals_transformers_up_to_the_form_of_gelu() -> None:
    if not TINY_EN.exists():
        pytest.skip(f"no Whisper weights at {TINY_EN} (QUADS_SHARED_DATA)")
    weights = whisper.read_encoder(TINY_EN)
    dims = weights.dimensions(n_frames=200, n_classes=2)
    encoder = Encoder(dims).eval()
    encoder.load_state_dict({n: torch.from_numpy(t) for n, t in weights.state(100).items()})
    torch.manual_seed(0)
    mel = torch.randn(1, 200, 80).cumsum(1).tanh()
    with torch.no_grad():
        expected = transformers_encoder(encoder, "gelu")(mel.transpose(1, 2)).last_hidden_state
        found = encoder(mel)
    assert (found - expected).abs().mean() < 5e-3
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.9999


def test_sinusoids_are_those_stored_in_whisper() -> None:
    if not TINY_EN.exists():
        pytest.skip(f"no Whisper weights at {TINY_EN} (QUADS_SHARED_DATA)")
    stored = whisper.read_encoder(TINY_EN).tensors["positions"]
    assert np.abs(sinusoids(1500, 384).numpy() - stored).max() < 1e-3  # stored in float16


def test_student_pools_over_time() -> None:
    dims = Dimensions(8, 10, 16, 2, 1, 3)
    student = Student(dims).eval()
    mel = torch.randn(4, 10, 8)
    with torch.no_grad():
        tokens, logits = student(mel)
        expected = tokens.mean(1)
    assert tokens.shape == (4, dims.n_tokens, 16) and logits.shape == (4, 3)
    torch.testing.assert_close(tokens, student.encoder(mel))
    torch.testing.assert_close(logits, expected @ student.head.weight.T + student.head.bias)

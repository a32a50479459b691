"""Whisper encoder files: both containers, both namings, and everything that is refused."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from quads_mcu.errors import InstallationError, TrainingError
from quads_mcu.model import whisper, whisper_files
from quads_mcu.model.dimensions import Preset

D, MELS, LAYERS, POSITIONS = 128, 80, 2, 30
Tensors = dict[str, NDArray[Any]]


def openai(
    kind: type = np.float16,
    *,
    n_mels: int = MELS,
    d: int = D,
    layers: int = LAYERS,
    positions: int = POSITIONS,
) -> Tensors:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (d, n_mels, 3),
        "conv1.bias": (d,),
        "conv2.weight": (d, d, 3),
        "conv2.bias": (d,),
        "ln_post.weight": (d,),
        "ln_post.bias": (d,),
        "positional_embedding": (positions, d),
    }
    for layer in range(layers):
        block = f"blocks.{layer}."
        for part in ("attn.query", "attn.key", "attn.value", "attn.out"):
            shapes[f"{block}{part}.weight"] = (d, d)
            if part != "attn.key":
                shapes[f"{block}{part}.bias"] = (d,)
        shapes |= {f"{block}mlp.0.weight": (4 * d, d), f"{block}mlp.0.bias": (4 * d,)}
        shapes |= {f"{block}mlp.2.weight": (d, 4 * d), f"{block}mlp.2.bias": (d,)}
        for part in ("attn_ln", "mlp_ln"):
            shapes |= {f"{block}{part}.weight": (d,), f"{block}{part}.bias": (d,)}
    return {f"encoder.{n}": rng.normal(size=s).astype(kind) for n, s in shapes.items()}


def transformers(tensors: Tensors) -> Tensors:
    names = {
        "blocks.": "layers.",
        "attn_ln": "self_attn_layer_norm",
        "attn.query": "self_attn.q_proj",
        "attn.key": "self_attn.k_proj",
        "attn.value": "self_attn.v_proj",
        "attn.out": "self_attn.out_proj",
        "mlp_ln": "final_layer_norm",
        "mlp.0": "fc1",
        "mlp.2": "fc2",
        "ln_post": "layer_norm",
        "positional_embedding": "embed_positions.weight",
    }
    found = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[f"model.{name}"] = tensor
    return found


def check(encoder: whisper.WhisperEncoder, tensors: Tensors) -> None:
    assert encoder.preset == Preset(D, 2, LAYERS)
    assert encoder.n_mels == MELS
    query = encoder.tensors["layers.1.query.weight"]
    assert query.dtype == np.float32
    np.testing.assert_array_equal(query, tensors["encoder.blocks.1.attn.query.weight"])
    first = encoder.tensors["layers.0.feed_forward_1.bias"]
    np.testing.assert_array_equal(first, tensors["encoder.blocks.0.mlp.0.bias"])
    norm = encoder.tensors["layers.0.feed_forward_norm.weight"]
    np.testing.assert_array_equal(norm, tensors["encoder.blocks.0.mlp_ln.weight"])
    np.testing.assert_array_equal(encoder.tensors["norm.bias"], tensors["encoder.ln_post.bias"])


def test_npz_with_openai_names(tmp_path: Path) -> None:
    tensors = openai()
    np.savez(tmp_path / "w.npz", **tensors)
    check(whisper.read_encoder(tmp_path / "w.npz"), tensors)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_safetensors_with_either_naming(tmp_path: Path, kind: type) -> None:
    tensors = openai(kind)
    decoder = {"model.decoder.layers.0.fc1.weight": np.zeros((4, 4), kind)}
    save_file(tensors, tmp_path / "openai.safetensors")
    save_file(transformers(tensors) | decoder, tmp_path / "transformers.safetensors")
    check(whisper.read_encoder(tmp_path / "openai.safetensors"), tensors)
    check(whisper.read_encoder(tmp_path / "transformers.safetensors"), tensors)


def broken(change: str) -> Tensors:
    tensors = openai()
    if change == "missing":
        del tensors["encoder.blocks.1.mlp.2.weight"]
    elif change == "shape":
        tensors["encoder.conv2.weight"] = tensors["encoder.conv2.weight"][:, :-1]
    elif change == "nan":
        tensors["encoder.conv1.bias"][3] = np.nan
    elif change == "surplus":
        tensors["encoder.blocks.0.attn.key.bias"] = np.zeros(D, np.float16)
    elif change == "unknown":
        tensors["encoder.lstm.weight"] = np.zeros(D, np.float16)
    elif change == "integers":
        tensors["encoder.conv1.bias"] = np.zeros(D, np.int64)
    elif change == "positions":
        del tensors["encoder.positional_embedding"]
    elif change == "empty":
        tensors = {}
    elif change == "width":
        tensors["encoder.conv1.weight"] = np.zeros((4, MELS, 3), np.float16)
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "layers.1.feed_forward_2.weight' is missing"),
        ("shape", r"conv2.weight' has shape \(128, 127, 3\), expected \(128, 128, 3\)"),
        ("nan", "conv1.bias' holds values that are not finite"),
        ("surplus", "unexpected tensor 'layers.0.key.bias'"),
        ("unknown", "lstm.weight' is not part of a Whisper encoder"),
        ("integers", "conv1.bias' is int64"),
        ("positions", "positions are missing"),
        ("empty", "holds no Whisper encoder"),
        ("width", "d_model = 4 is outside"),
    ],
)
def test_refuses_tensors(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **broken(change))
    with pytest.raises(TrainingError, match=message) as caught:
        whisper.read_encoder(path)
    assert str(path) in str(caught.value)


def test_refuses_files(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(TrainingError, match=message):
            whisper.read_encoder(path)

    refused(tmp_path / "none.npz", "no such file")
    for name in ("w.npz", "w.safetensors", "w.pt", "w.onnx"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 no archive")
    refused(tmp_path / "w.npz", "not a readable .npz")
    refused(tmp_path / "w.safetensors", "not a readable .safetensors")
    refused(tmp_path / "w.pt", "not a readable checkpoint of plain weights")
    refused(tmp_path / "w.onnx", "use .npz, .safetensors, .pt or a transformers directory")
    np.savez(tmp_path / "pickled.npz", **{"encoder.conv1.bias": np.array([object()])})
    refused(tmp_path / "pickled.npz", "not a readable .npz")
    np.savez(tmp_path / "cut.npz", **openai())
    data = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.npz", "not a readable .npz")


def test_openai_pt(tmp_path: Path) -> None:
    tensors = openai()
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    state["decoder.blocks.0.mlp.0.weight"] = torch.zeros(4, 4)
    torch.save({"dims": {"n_mels": MELS}, "model_state_dict": state}, tmp_path / "tiny.pt")
    check(whisper.read_encoder(tmp_path / "tiny.pt"), tensors)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


def test_a_pt_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": Harmful()}, "w.pt")
    with pytest.raises(TrainingError, match=r"w.pt: not a readable checkpoint of plain weights"):
        whisper.read_encoder(Path("w.pt"))
    assert not Path("harmed").exists()


@pytest.mark.parametrize("form", ["whole", "shards", "bin", "classifier"])
def test_transformers_directory(tmp_path: Path, form: str) -> None:
    tensors = openai(np.float32)
    named = transformers(tensors)
    decoder = {"model.decoder.layers.0.fc1.weight": np.zeros((4, 4), np.float32)}
    if form == "whole":
        save_file(named | decoder, tmp_path / "model.safetensors")
    elif form == "classifier":
        # The state dict of WhisperForAudioClassification.
        own = {name.removeprefix("model."): value for name, value in named.items()}
        for name in ("projector", "classifier"):
            own |= {f"{name}.weight": np.zeros((4, 4), np.float32), f"{name}.bias": np.zeros(4)}
        save_file(own | {"layer_weights": np.zeros(5, np.float32)}, tmp_path / "model.safetensors")
    elif form == "bin":
        state = {name: torch.from_numpy(value) for name, value in (named | decoder).items()}
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        names = sorted(named)
        parts = {"model-00001-of-00003": names[:20], "model-00002-of-00003": names[20:]}
        where = dict.fromkeys(decoder, "model-00003-of-00003.safetensors")
        for part, held in parts.items():
            save_file({name: named[name] for name in held}, tmp_path / f"{part}.safetensors")
            where |= dict.fromkeys(held, f"{part}.safetensors")
        index = {"metadata": {}, "weight_map": where}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check(whisper.read_encoder(tmp_path), tensors)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "index.json is damaged"),
        ("[]", "index.json is damaged"),
        ('{"weight_map": {"model.encoder.conv1.bias": "../w.safetensors"}}', "not a .safetensors"),
        ('{"weight_map": {"model.encoder.conv1.bias": "w.bin"}}', "not a .safetensors"),
        ('{"weight_map": {"model.encoder.conv1.bias": "w.safetensors"}}', "no such file"),
        (None, "no model.safetensors"),
    ],
)
def test_refuses_directories(tmp_path: Path, index: str | None, message: str) -> None:
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(TrainingError, match=message):
        whisper.read_encoder(tmp_path)


def test_locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.npz"
    file.touch()
    assert whisper_files.locate("w.npz", file) == file
    for setting in ("none.npz", "some/none.pt", "a/b/c", "../x"):
        with pytest.raises(TrainingError, match="no such file; set a Whisper encoder"):
            whisper_files.locate(setting, tmp_path / setting)

    hub = types.ModuleType("huggingface_hub")
    asked: list[str] = []
    cache = tmp_path / "hub"
    cache.mkdir()

    def snapshot_download(repo_id: str, allow_patterns: list[str]) -> str:
        asked.append(repo_id)
        if repo_id.endswith("none"):
            raise OSError("404 Client Error.\nmore")
        offered = "pytorch_model.bin" if repo_id.startswith("old/") else "model.safetensors"
        if offered in allow_patterns:
            (cache / offered).touch()
        return str(cache)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    name = "openai/whisper-tiny.en"
    assert whisper_files.locate(name, tmp_path / name) == cache and asked == [name]
    (cache / "model.safetensors").unlink()
    assert whisper_files.locate("old/whisper", tmp_path / "old/whisper") == cache
    assert [file.name for file in cache.iterdir()] == ["pytorch_model.bin"]
    with pytest.raises(TrainingError, match=r"openai/none: .* \(404 Client Error.\)"):
        whisper_files.locate("openai/none", tmp_path / "openai/none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InstallationError, match="pip install huggingface_hub"):
        whisper_files.locate(name, tmp_path / name)

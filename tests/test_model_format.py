"""The packed model's file: golden bytes, round trips, and every way a file can be wrong."""

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_model import random_model
from safetensors import safe_open

from quads_mcu import model_format
from quads_mcu.errors import ModelFormatError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.slots import Slot

DIMS = Dimensions(n_mels=8, n_frames=6, d_model=16, n_heads=2, n_layers=1, n_classes=3)


@pytest.mark.parametrize(
    ("bits", "indices", "packed"),
    [
        (4, [1, 2, 3, 15], "21f3"),
        (3, [1, 2, 3, 4, 5, 6, 7, 0], "d1581f"),
        (2, [0, 1, 2, 3], "e4"),
        (8, [0, 255, 7], "00ff07"),
        (4, [5], "05"),
        (3, [7, 7, 7], "ff01"),
    ],
)
def test_packed_indices_golden_bytes(bits: int, indices: list[int], packed: str) -> None:
    """The examples of docs/arithmetic.md, section 9, worked out by hand."""
    found = model_format.pack_indices(np.array([indices], np.uint8), bits)
    assert found.tobytes().hex() == packed


@given(st.sampled_from(model_format.BITS), st.integers(1, 4), st.integers(1, 40), st.data())
def test_packing_reads_as_one_little_endian_bit_string(
    bits: int, n: int, k: int, data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=n * k, max_size=n * k))
    indices = np.array(values, np.uint8).reshape(n, k)
    packed = model_format.pack_indices(indices, bits)
    for row, expected in zip(packed, indices, strict=True):
        string = int.from_bytes(row.tobytes(), "little")
        assert [(string >> (bits * i)) & (2**bits - 1) for i in range(k)] == expected.tolist()
    assert (model_format.unpack_indices(packed, bits, k) == indices).all()


def test_index_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="16 does not fit 4 bits"):
        model_format.pack_indices(np.array([[16]], np.uint8), 4)


@pytest.mark.parametrize("bits", model_format.BITS)
def test_written_model_reads_back_equal(tmp_path: Path, bits: int) -> None:
    model = random_model(DIMS, bits)
    path = tmp_path / "deep" / "model.safetensors"
    model_format.write(model, path)
    found = model_format.read(path)
    assert found.model_hash == model.model_hash
    assert found.provenance == model.provenance
    for name, tensor in model_format.tensors(model).items():
        np.testing.assert_array_equal(model_format.tensors(found)[name], tensor, err_msg=name)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_several_slots_and_the_decision_read_back_equal(tmp_path: Path) -> None:
    model = dataclasses.replace(
        random_model(dataclasses.replace(DIMS, n_classes=7), slots=[3, 2, 2]),
        unknown_class=2,
        reject_threshold=-12345,
    )
    path = tmp_path / "model.safetensors"
    model_format.write(model, path)
    found = model_format.read(path)
    assert (found.slots, found.unknown_class, found.reject_threshold, found.frontend) == (
        model.slots,
        2,
        -12345,
        "float",
    )
    assert found.labels[:4] == ("intent 0", "intent 1", "intent 2", "slot 0")


POOLS = dataclasses.replace(DIMS, n_classes=5, pools=(3, 2))


def test_attention_pools_read_back_equal(tmp_path: Path) -> None:
    model = random_model(POOLS)
    path = tmp_path / "model.safetensors"
    model_format.write(model, path)
    found = model_format.read(path)
    assert (found.format_version, found.dims, found.model_hash) == (3, POOLS, model.model_hash)
    assert found.pool_score_multiplier == model.pool_score_multiplier > 0
    np.testing.assert_array_equal(found.pool_query, model.pool_query)
    assert found.pool_query.shape == (2, 16)


def test_the_mean_is_written_as_version_2(tmp_path: Path) -> None:
    """Older readers know nothing of pools: nothing of them may be in the file."""
    path = tmp_path / "model.safetensors"
    model_format.write(random_model(DIMS), path)
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["quads"])
        assert "pool_query" not in file.keys()  # noqa: SIM118
    assert header["format_version"] == 2
    assert "pools" not in header["dims"] and "pool_score_multiplier" not in header["scalars"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, h: h["dims"].update(pools=[2, 3]), "are not one for every slot"),
        (lambda c, h: h["dims"].update(pools=[5]), r"pool_query is int8 \(2, 16\)"),
        (lambda c, h: h["dims"].update(pools=[3, 3]), "pools of 6 classes in all"),
        (lambda c, h: h["dims"].update(pools=[3, "2"]), "are not numbers of classes"),
        (lambda c, h: h["dims"].update(pools=[]), "unexpected tensor 'pool_query'"),
        (lambda c, h: c.update(pool=c.pop("pool_query")), "unexpected tensor 'pool'"),
        (lambda c, h: h["scalars"].update(pool_score_multiplier=-1), "pool_score_multiplier = -1"),
        (lambda c, h: h["scalars"].pop("pool_score_multiplier"), "pool_score_multiplier = None"),
        (lambda c, h: h["scalars"].update(pool_multiplier=2**24), "pool_multiplier = 16777216"),
    ],
)
def test_wrong_pools_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "model.safetensors"
    model_format.write(random_model(POOLS), path)
    _edit(path, change)
    with pytest.raises(ModelFormatError, match=message):
        model_format.read(path)


def _as_version_1(model: model_format.PackedModel, path: Path) -> None:
    """Write what format version 1 was: one list of labels, and its own hash."""
    model_format.write(model, path)

    def change(container: dict[str, Any], header: dict[str, Any]) -> None:
        (slot,) = header.pop("slots")
        header |= {"format_version": 1, "labels": slot["labels"]}
        for name in ("frontend", "model_hash"):
            del header[name]
        for name in ("unknown_class", "reject_threshold"):
            del header["scalars"][name]
        digest = hashlib.sha256()
        hashed = {name: value for name, value in header.items() if name != "provenance"}
        digest.update(json.dumps(hashed, sort_keys=True).encode())
        for name, tensor in sorted(model_format.tensors(model).items()):
            digest.update(f"{name}{tensor.dtype}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        header["model_hash"] = digest.hexdigest()

    _edit(path, change)


def test_version_1_is_read_as_one_slot(tmp_path: Path) -> None:
    model = random_model(DIMS)
    path = tmp_path / "model.safetensors"
    _as_version_1(model, path)
    found = model_format.read(path)
    assert found.slots == (Slot("intent", model.labels),)
    assert (found.unknown_class, found.reject_threshold, found.frontend) == (
        -1,
        -(2**31),
        "float",
    )
    assert found.model_hash == model.model_hash
    _edit(path, lambda c, h: h.update(labels=["a", "b", "other"]))
    with pytest.raises(ModelFormatError, match="damaged"):
        model_format.read(path)
    _edit(path, lambda c, h: h.update(labels="abc"))
    with pytest.raises(ModelFormatError, match="labels are not a list of texts"):
        model_format.read(path)


def test_hash_sees_every_tensor_and_scalar() -> None:
    model = random_model(DIMS)
    changed = [
        dataclasses.replace(model, slots=(Slot("intent", ("a", "b", "c")),)),
        dataclasses.replace(model, slots=(Slot("other", model.labels),)),
        dataclasses.replace(model, unknown_class=1),
        dataclasses.replace(model, reject_threshold=-1),
        dataclasses.replace(model, position_multiplier=model.position_multiplier + 1),
        dataclasses.replace(model, positions=model.positions ^ np.int8(1)),
        dataclasses.replace(
            model, head=dataclasses.replace(model.head, centroids=model.head.centroids[::-1])
        ),
    ]
    hashes = {model.model_hash, *(other.model_hash for other in changed)}
    assert len(hashes) == len(changed) + 1
    assert dataclasses.replace(model, provenance={}).model_hash == model.model_hash


def _file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    model_format.write(random_model(DIMS), path)
    return path


def _edit(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Rewrite a safetensors file with changed container header and model metadata."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    container = json.loads(data[8 : 8 + length])
    header = json.loads(container["__metadata__"]["quads"])
    change(container, header)
    if "__metadata__" in container:
        container["__metadata__"]["quads"] = json.dumps(header)
    text = json.dumps(container).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c, h: h.update(format_version=99),
            "version 99, this quads-mcu reads 1, 2, 3",
        ),
        (lambda c, h: h.pop("format_version"), "format version None"),
        (lambda c, h: h["dims"].update(d_model=10**9), "d_model = 1000000000 is outside"),
        (lambda c, h: h["dims"].update(d_model="16"), "d_model = '16' is outside"),
        (lambda c, h: h["dims"].update(n_heads=3), "not a multiple"),
        (lambda c, h: h["dims"].pop("n_heads"), "dims must hold exactly"),
        (lambda c, h: h.update(dims=[1]), "dims must hold exactly"),
        (lambda c, h: h["slots"][0].update(labels=["a", 1, "c"]), "labels are not texts"),
        (lambda c, h: h["slots"][0].update(labels=["a", "a", "c"]), "all different"),
        (lambda c, h: h["slots"][0].update(labels=["a", "b\n", "c"]), "not printable"),
        (lambda c, h: h["slots"][0].update(labels=["a", "b"]), "2 labels for 3 classes"),
        (lambda c, h: h["slots"][0].update(name=""), "is empty"),
        (lambda c, h: h["slots"][0].pop("name"), "exactly name and labels"),
        (lambda c, h: h.update(slots=h["slots"] * 2), "2 slots, 1 to 64 of different names"),
        (lambda c, h: h.update(slots=[]), "slots are not a list"),
        (lambda c, h: h.update(slots="intent"), "slots are not a list"),
        (lambda c, h: h.update(frontend="fixd"), "frontend 'fixd'; this quads-mcu has float"),
        (lambda c, h: h.pop("frontend"), "frontend None"),
        (lambda c, h: h["scalars"].update(unknown_class=3), "unknown_class = 3 is outside -1 .. 2"),
        (lambda c, h: h["scalars"].update(reject_threshold=2**31), "reject_threshold"),
        (lambda c, h: h["scalars"].pop("reject_threshold"), "not an integer"),
        (lambda c, h: h.update(format_version=True), "format version True"),
        (lambda c, h: h.update(scalars=None), "scalars"),
        (lambda c, h: h["scalars"].update({"head.bits": 5}), "head.bits = 5; allowed"),
        (lambda c, h: h["scalars"].update({"head.bits": True}), "not an integer"),
        (lambda c, h: h["scalars"].update({"norm.shift": 31}), "norm.shift = 31 is outside"),
        (lambda c, h: h["scalars"].update({"logit_scale": -1.0}), "not a positive number"),
        (lambda c, h: h["scalars"].update({"logit_scale": float("nan")}), "not a positive"),
        (lambda c, h: h["scalars"].update({"pool_multiplier": 2**31}), "pool_multiplier"),
        (lambda c, h: h["dims"].update({"pools": [3]}), "dims must hold exactly"),
        (lambda c, h: h.update(model_hash="0" * 64), "damaged"),
        (lambda c, h: c.pop("__metadata__"), "not a packed quads-mcu model"),
        (lambda c, h: c["conv1.bias"].update(dtype="F32"), "conv1.bias is float32"),
        (lambda c, h: c.update(surplus=c.pop("conv1.bias")), "unexpected tensor 'surplus'"),
        (lambda c, h: c["conv1.bias"].update(shape=[4, 4]), "conv1.bias is int32"),
        (lambda c, h: c["conv1.bias"].update(data_offsets=[0, 10**12]), "not a readable"),
    ],
)
def test_hostile_header_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], message: str
) -> None:
    path = _file(tmp_path)
    _edit(path, change)
    with pytest.raises(ModelFormatError, match=message) as caught:
        model_format.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = _file(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelFormatError, match="not a readable model file"):
        model_format.read(path)


def test_flipped_weight_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelFormatError, match="damaged"):
        model_format.read(path)


def test_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="quads-mcu export"):
        model_format.read(tmp_path / "none")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a":' * 100_000, "x" * (model_format.MAX_METADATA_BYTES + 1)]
)
def test_metadata_that_is_not_a_model(tmp_path: Path, text: str) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(1, np.int8)}, path, metadata={"quads": text})
    with pytest.raises(ModelFormatError):
        model_format.read(path)


def test_sums_that_leave_int32_are_refused() -> None:
    model = random_model(DIMS)
    bias = model.conv1.bias.copy()
    bias[3] = 2**31 - 1
    broken = dataclasses.replace(model, conv1=dataclasses.replace(model.conv1, bias=bias))
    with pytest.raises(ModelFormatError, match="conv1: sums reach"):
        model_format.check(broken)
    gamma = np.full(16, 32767, np.int16)
    beta = np.full(16, 2**31 - 1, np.int32)
    norm = dataclasses.replace(model.norm, gamma=gamma, beta=beta)
    with pytest.raises(ModelFormatError, match="norm: sums reach"):
        model_format.check(dataclasses.replace(model, norm=norm))


def test_tables_follow_their_formulas() -> None:
    import decimal

    exact = [
        decimal.Decimal(8192) * decimal.Decimal(2) ** (-decimal.Decimal(i) / 64) for i in range(64)
    ]
    rounded = [int(value.to_integral_value(decimal.ROUND_HALF_UP)) for value in exact]
    assert model_format.exp_table().tolist() == rounded
    for d in (8, 96, 384, 1280):
        root = model_format.norm_sqrt_d(d)
        assert root**2 <= d << 52 < (root + 1) ** 2


def test_weight_bytes_count_the_tensors() -> None:
    model = random_model(DIMS, 4)
    kinds = model_format.weight_bytes(model)
    weights = sum(n * k for n, k in model_format.linear_shapes(DIMS).values())
    assert kinds["indices"] == weights // 2
    assert sum(kinds.values()) == sum(t.nbytes for t in model_format.tensors(model).values())

"""The C runtime against the numpy reference and against the formulas of docs/arithmetic.md."""

from __future__ import annotations

import ctypes
import itertools
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_build import FIRMWARE, STRICT_FLAGS, compile_shared, require_tool
from numpy.typing import NDArray
from random_model import random_model

from quads_mcu import model_format
from quads_mcu.device.build import kernel_sources
from quads_mcu.export import csource
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions, dimensions

RUNTIME = [
    *sorted((FIRMWARE / "src").glob("[eglq]*.c")),  # all but the protocol
    *kernel_sources("plain"),
]
FRONTEND = sorted((FIRMWARE / "src" / "frontend").glob("*.c"))
INCLUDES = [FIRMWARE / "include", FIRMWARE / "src", FIRMWARE / "src" / "kernels"]
BUILDS = {
    "gcc -O2": ["gcc", "-O2"],
    "clang -O3": ["clang", "-O3"],
    "gcc sanitizers": ["gcc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"],
}
SMALL = Dimensions(n_mels=8, n_frames=14, d_model=24, n_heads=3, n_layers=2, n_classes=5)
SIZES = {
    "d64x2": dimensions("d64x2", n_mels=40, window_s=1, n_classes=31),
    "d96x2": dimensions("d96x2", n_mels=40, window_s=2, n_classes=31),
    "d96x2, 80 mels": dimensions("d96x2", n_mels=80, window_s=3, n_classes=2),
    "d_head 8, T 7": SMALL,
    "T 1": Dimensions(8, 2, 16, 2, 2, 3),
    "T 2": Dimensions(8, 4, 16, 1, 1, 2),
    "T 3, 1 layer": Dimensions(16, 6, 40, 5, 1, 3),
    "T 53": Dimensions(128, 106, 24, 3, 1, 31),
    "d 8": Dimensions(8, 20, 8, 1, 1, 2),
    "pools of a slot": Dimensions(40, 100, 96, 3, 2, 6, pools=(6,)),
    "pools of slots": Dimensions(8, 46, 40, 5, 1, 14, pools=(2, 5, 3, 4)),
    "pools, T 1": Dimensions(8, 2, 16, 2, 1, 5, pools=(3, 2)),
    "pools, T 1023": Dimensions(8, 2046, 8, 1, 1, 4, pools=(2, 2)),
}
MIXED = {
    "conv1": 8, "conv2": 3, "query": 2, "key": 4, "value": 8, "output": 3,
    "feed_forward_1": 2, "feed_forward_2": 4, "head": 8,
}  # fmt: skip


Build = Callable[[model_format.PackedModel, str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that builds encoder_main.c for a model with one of BUILDS."""
    objects: dict[str, list[str]] = {}

    def run(name: str, out: Path, *arguments: str) -> None:
        require_tool(BUILDS[name][0])
        includes = [f"-I{directory}" for directory in (out, *INCLUDES)]
        done = subprocess.run(
            [*BUILDS[name], *STRICT_FLAGS, *includes, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=out,
        )
        assert done.returncode == 0, done.stderr

    def build(model: model_format.PackedModel, name: str) -> Path:
        out = tmp_path_factory.mktemp("encoder")
        csource.write_sources(model, out)
        if name not in objects:  # the runtime without frontend is the same for every model
            run(name, out, "-c", *map(str, RUNTIME))
            objects[name] = [str(path) for path in out.glob("*.o")]
        main = Path(__file__).parent / "encoder_main.c"
        run(name, out, str(main), "model_data.c", *map(str, FRONTEND), *objects[name], "-o", "run")
        return out / "run"

    return build


def _logits(program: Path, mel: NDArray[np.int8], n_classes: int) -> NDArray[np.int32]:
    done = subprocess.run([str(program)], input=mel.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.int32).reshape(len(mel), n_classes)


def _windows(dims: Dimensions, seed: int) -> NDArray[np.int8]:
    """Noise at speech levels, full range, extremes, silence, and one loud row or band."""
    rng = np.random.default_rng(seed)
    shape = (dims.n_frames, dims.n_mels)
    one_row, one_band = np.full((2, *shape), -128, np.int8)
    one_row[dims.n_frames // 2] = 127
    one_band[:, 0] = 127
    windows = [
        rng.normal(-40, 30, shape).clip(-128, 127).astype(np.int8),
        rng.integers(-128, 128, shape, dtype=np.int8),
        rng.choice(np.array([-128, 127], np.int8), shape),
        np.full(shape, -128, np.int8),
        np.full(shape, 127, np.int8),
        np.full(shape, model_format.MEL_ZERO_POINT, np.int8),
        one_row,
        one_band,
    ]
    return np.stack(windows)


@pytest.mark.parametrize("compiler", BUILDS)
@pytest.mark.parametrize("size", SIZES)
def test_logits_equal_the_reference(size: str, compiler: str, build: Build) -> None:
    model = random_model(SIZES[size], bits=4, seed=len(size))
    mel = _windows(model.dims, seed=1)
    expected = Reference(model).logits(mel)
    assert len(np.unique(expected, axis=0)) >= 4, "the model hardly looks at its input"
    program = build(model, compiler)
    np.testing.assert_array_equal(_logits(program, mel, model.dims.n_classes), expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, "mixed"])
def test_logits_equal_the_reference_for_all_bits(bits: int | str, build: Build) -> None:
    names = model_format.linear_shapes(SMALL)
    chosen = bits if isinstance(bits, int) else {n: MIXED[n.rsplit(".", 1)[-1]] for n in names}
    model = random_model(SMALL, bits=chosen, seed=7)
    mel = _windows(SMALL, seed=2)
    program = build(model, "gcc sanitizers")
    np.testing.assert_array_equal(
        _logits(program, mel, SMALL.n_classes), Reference(model).logits(mel)
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_logits_equal_the_reference_for_random_sizes(seed: int, build: Build) -> None:
    rng = np.random.default_rng(seed)
    n_heads, d_head = int(rng.integers(1, 6)), 8 * int(rng.integers(1, 5))
    dims = Dimensions(
        n_mels=8 * int(rng.integers(1, 17)),
        n_frames=2 * int(rng.integers(1, 90)),
        d_model=n_heads * d_head,
        n_heads=n_heads,
        n_layers=int(rng.integers(1, 4)),
        n_classes=int(rng.integers(2, 40)),
    )
    if seed % 2 and dims.n_classes >= 4:
        first = int(rng.integers(2, dims.n_classes - 1))
        dims = replace(dims, pools=(first, dims.n_classes - first))
    bits = {name: int(rng.choice(model_format.BITS)) for name in model_format.linear_shapes(dims)}
    model = random_model(dims, bits=bits, seed=seed)
    mel = _windows(dims, seed=seed)
    program = build(model, "gcc sanitizers")
    np.testing.assert_array_equal(
        _logits(program, mel, dims.n_classes), Reference(model).logits(mel)
    )


def test_random_models_use_the_ranges_of_their_activations() -> None:
    """Guards the comparison itself: saturated or silent layers would hide differences."""
    model = random_model(SIZES["d96x2"], seed=3)
    seen: dict[str, NDArray[np.int64]] = {}
    Reference(model).logits(_windows(model.dims, 1)[:1], trace=seen.__setitem__)
    assert seen
    for name, values in seen.items():
        if values.size >= 1000 and np.abs(values).max() <= 128:
            assert np.mean((values == 127) | (values == -128)) < 0.3, f"{name} saturates"
            assert len(np.unique(values)) > 40, f"{name} is nearly constant"


# Every core compiles the same sources.

WARNINGS = ("-Wsign-conversion", "-Wdouble-promotion", "-Wshadow", "-Wcast-align")
CORES = {
    "host gcc": ["gcc", "-O3"],
    "host clang": ["clang", "-O2"],
    "cortex-m0plus": ["arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m0plus", "-mthumb"],
    "cortex-m4": [
        "arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard",
        "-mfpu=fpv4-sp-d16",
    ],
    "cortex-m7": [
        "arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard",
        "-mfpu=fpv5-sp-d16",
    ],
    "cortex-m33": [
        "arm-none-eabi-gcc", "-Os", "-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard",
        "-mfpu=fpv5-sp-d16",
    ],
    "cortex-m55": [
        "arm-none-eabi-gcc", "-O3", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard",
        "-mfpu=auto",
    ],
}  # fmt: skip


@pytest.mark.parametrize("core", CORES)
def test_runtime_and_model_compile_without_warnings(core: str, tmp_path: Path) -> None:
    require_tool(CORES[core][0])
    csource.write_sources(random_model(SMALL, seed=4), tmp_path)
    includes = [f"-I{directory}" for directory in (tmp_path, *INCLUDES)]
    command = [*CORES[core], *STRICT_FLAGS, *WARNINGS, *includes, "-c", "model_data.c"]
    done = subprocess.run(
        [*command, *map(str, RUNTIME)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")


# The streaming interface.


class _Linear(ctypes.Structure):
    _fields_ = [
        ("indices", ctypes.c_void_p),
        ("centroids", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("multiplier", ctypes.c_void_p),
        ("n_out", ctypes.c_uint16),
        ("n_in", ctypes.c_uint16),
        ("bits", ctypes.c_uint8),
        ("per_channel", ctypes.c_uint8),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [
        ("gamma", ctypes.c_void_p),
        ("beta", ctypes.c_void_p),
        ("epsilon", ctypes.c_uint32),
        ("shift", ctypes.c_uint8),
    ]


STREAM_DIMS = Dimensions(n_mels=40, n_frames=20, d_model=16, n_heads=2, n_layers=1, n_classes=3)
WINDOW_SAMPLES = 160 * STREAM_DIMS.n_frames


@pytest.fixture(scope="module", params=model_format.FRONTENDS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    """Return the runtime with a model for one of the frontends, its `frontend`."""
    out = tmp_path_factory.mktemp("runtime")
    csource.write_sources(replace(random_model(STREAM_DIMS), frontend=request.param), out)
    shim = out / "shim.c"
    shim.write_text(
        '#include "quads.h"\n'
        "size_t state_bytes(void);\nsize_t arena_bytes(void);\nsize_t model_bytes(void);\n"
        "size_t state_bytes(void) { return sizeof(quads_t); }\n"
        "size_t arena_bytes(void) { return quads_model.plan.arena_bytes; }\n"
        "size_t model_bytes(void) { return sizeof(quads_model_t); }\n"
    )
    loaded = compile_shared(
        [shim, out / "model_data.c", *RUNTIME, *FRONTEND], [out, *INCLUDES], out, "gcc"
    )
    loaded.frontend = request.param
    return loaded


class _Stream:
    """A quads_t of the library's model with its arena."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.quads_features.restype = ctypes.c_void_p
        self.library = library
        self.state = ctypes.create_string_buffer(library.state_bytes())
        self.model_bytes = library.model_bytes()
        self.model = (ctypes.c_char * self.model_bytes).in_dll(library, "quads_model")
        words = (library.arena_bytes() + 7) // 8
        self.arena = (ctypes.c_uint64 * words)(*[0x5A5A5A5A5A5A5A5A] * words)

    def init(self) -> int:
        size = ctypes.c_size_t(self.library.arena_bytes())
        return int(self.library.quads_init(self.state, self.model, self.arena, size))

    def push(self, pcm: NDArray[np.int16]) -> int:
        return int(self.library.quads_push(self.state, _p(pcm), ctypes.c_size_t(pcm.size)))

    def close(self) -> int:
        return int(self.library.quads_close(self.state))

    def features(self) -> NDArray[np.int8] | None:
        address = self.library.quads_features(self.state)
        if address is None:
            return None
        size = STREAM_DIMS.n_frames * STREAM_DIMS.n_mels
        flat = np.frombuffer(ctypes.string_at(address, size), np.int8)
        return flat.reshape(STREAM_DIMS.n_frames, STREAM_DIMS.n_mels)

    def infer(self) -> tuple[int, list[int]]:
        logits = (ctypes.c_int32 * STREAM_DIMS.n_classes)(7, 7, 7)
        return int(self.library.quads_infer(self.state, logits, None)), list(logits)


@pytest.fixture
def stream(library: ctypes.CDLL) -> _Stream:
    stream = _Stream(library)
    assert stream.init() == 0
    return stream


def _p(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _pcm(n_samples: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).normal(0, 3000, n_samples).astype(np.int16)


@pytest.mark.parametrize("chunk", [1, 7, 160, 400, 100_000])
@pytest.mark.parametrize("n_samples", [0, 1, 199, 200, 201, 1000, WINDOW_SAMPLES, 9999])
def test_streamed_features_equal_the_window_of_the_reference(
    stream: _Stream, n_samples: int, chunk: int
) -> None:
    from quads_mcu.audio import frontend

    pcm = _pcm(n_samples)
    for start in range(0, n_samples, chunk):
        assert stream.push(pcm[start : start + chunk]) == 0
    assert stream.close() == 0
    # The reference sees the stream as the device does: nothing behind the window is ever heard
    # except by the last frame, whose analysis window ends 40 samples later.
    window = np.zeros((1, WINDOW_SAMPLES + 400), np.int16)
    window[0, :n_samples] = pcm[: window.size]
    arithmetic = stream.library.frontend
    expected = frontend.features(window, STREAM_DIMS.n_mels, STREAM_DIMS.n_frames, arithmetic)
    np.testing.assert_array_equal(stream.features(), expected[0])


def test_close_is_idempotent_and_ends_the_window(stream: _Stream) -> None:
    stream.push(_pcm(2000))
    assert stream.infer() == (-4, [7, 7, 7])
    assert stream.features() is None
    assert stream.close() == 0
    first = stream.features()
    assert stream.close() == 0
    np.testing.assert_array_equal(stream.features(), first)
    assert stream.push(_pcm(10)) == -4


def test_inference_repeats_and_restart_begins_anew(stream: _Stream) -> None:
    stream.push(_pcm(2000))
    stream.close()
    status, logits = stream.infer()
    assert status == 0 and logits != [7, 7, 7]
    assert stream.infer() == (0, logits)
    assert stream.library.quads_restart(stream.state) == 0
    assert stream.features() is None
    stream.push(_pcm(2000))
    stream.close()
    assert stream.infer() == (0, logits)


def test_features_clamp_to_8_decades_below_the_maximum(stream: _Stream) -> None:
    stream.push(np.full(1000, 32767, np.int16))
    stream.close()
    features = stream.features()
    assert features is not None
    assert features.min() == max(-128, int(features.max()) - 160)


def test_impossible_arguments_are_refused(library: ctypes.CDLL) -> None:
    stream = _Stream(library)
    size = ctypes.c_size_t(library.arena_bytes())
    init = library.quads_init
    assert stream.infer()[0] == -4
    assert stream.push(_pcm(10)) == stream.close() == library.quads_restart(stream.state) == -4
    assert init(None, stream.model, stream.arena, size) == -1
    assert init(stream.state, None, stream.arena, size) == -1
    assert init(stream.state, stream.model, None, size) == -1
    assert init(stream.state, stream.model, stream.arena, ctypes.c_size_t(size.value - 1)) == -2
    assert init(stream.state, stream.model, ctypes.byref(stream.arena, 4), size) == -2
    other = ctypes.create_string_buffer(stream.model.raw)
    other[0] = b"\x63"
    assert init(stream.state, other, stream.arena, size) == -3
    assert stream.state.raw == bytes(len(stream.state)), "an error left its mark"
    assert stream.init() == 0
    assert library.quads_push(stream.state, None, ctypes.c_size_t(1)) == -1
    assert library.quads_push(stream.state, None, ctypes.c_size_t(0)) == 0
    assert library.quads_push(None, None, ctypes.c_size_t(0)) == -1
    assert library.quads_set_features(stream.state, None) == -1
    assert library.quads_close(None) == library.quads_restart(None) == -1
    assert library.quads_features(None) is None
    assert stream.close() == 0
    assert library.quads_infer(stream.state, None, None) == -1


def test_observer_sees_every_change_of_stage_and_layer(stream: _Stream) -> None:
    seen: list[int] = []
    layers: list[int] = []
    enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint8)(lambda _, s: seen.append(s))
    layer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint16)(lambda _, n: layers.append(n))

    class Observer(ctypes.Structure):
        _fields_ = [(name, ctypes.c_void_p) for name in ("enter", "context", "layer", "poll")]

    observer = Observer(
        ctypes.cast(enter, ctypes.c_void_p), None, ctypes.cast(layer, ctypes.c_void_p), None
    )
    stream.close()
    logits = (ctypes.c_int32 * STREAM_DIMS.n_classes)()
    assert stream.library.quads_infer(stream.state, logits, ctypes.byref(observer)) == 0
    stages = model_format.STAGES
    assert seen[0] == stages.index("convolutions")
    assert seen[-1] == len(stages)
    assert set(seen) == set(range(1, len(stages) + 1))
    assert all(a != b for a, b in itertools.pairwise(seen))
    assert layers == list(range(STREAM_DIMS.n_layers + 1))


@pytest.mark.parametrize(
    ("logits", "best"),
    [([5], 0), ([1, 2], 1), ([3, 3, 3], 0), ([-5, -2, -2], 1), ([-(2**31), 2**31 - 1], 1)],
)
def test_argmax_takes_the_first_of_the_greatest(
    library: ctypes.CDLL, logits: list[int], best: int
) -> None:
    values = np.array(logits, np.int32)
    assert library.quads_argmax(_p(values), ctypes.c_uint16(len(logits))) == best


# Kernels, each against the formula in int64.


def _rq(a: NDArray[np.int64] | int, m: NDArray[np.int64] | int) -> NDArray[np.int64]:
    return np.asarray(a, np.int64) * m + 2**31 >> 32


def _random_s8(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return rng.integers(-128, 128, shape, dtype=np.int8)


def _s8_extremes(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return rng.choice(np.array([-128, 127], np.int8), shape)


def _minimum_s8(_: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return np.full(shape, -128, np.int8)


Fill = Callable[..., NDArray[np.int8]]
FILLS = {"random": _random_s8, "extremes": _s8_extremes, "minimum": _minimum_s8}


class _Weights:
    """A quads_linear_t and the arrays it points to."""

    def __init__(self, n: int, k: int, bits: int, *, per_channel: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        indices = rng.integers(0, 1 << bits, (n, k), dtype=np.uint8)
        self.centroids = _random_s8(rng, 1 << bits)
        self.centroids[0] = -128
        self.packed = model_format.pack_indices(indices, bits)
        self.bias = rng.integers(-(2**20), 2**20, n, dtype=np.int32)
        self.multiplier = rng.integers(0, 2**31, n if per_channel else 1, dtype=np.int32)
        self.weights = self.centroids[indices].astype(np.int64)
        self.struct = _Linear(
            _p(self.packed), _p(self.centroids), _p(self.bias), _p(self.multiplier), n, k, bits,
            per_channel,
        )  # fmt: skip
        self.tile = np.zeros(4 * k, np.int8)

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int64]:
        return x.astype(np.int64) @ self.weights.T + self.bias


def _size(value: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(value)


@pytest.mark.parametrize(
    ("bits", "packed", "indices"),
    [
        (4, "21F3", [1, 2, 3, 15]),
        (3, "D1581F", [1, 2, 3, 4, 5, 6, 7, 0]),
        (2, "E4", [0, 1, 2, 3]),
        (8, "00FF7F80", [0, 255, 127, 128]),
    ],
)
def test_decode_reads_the_documented_bytes(
    library: ctypes.CDLL, bits: int, packed: str, indices: list[int]
) -> None:
    """Golden bytes: docs/arithmetic.md, section 9, repeated to fill eight indices."""
    repeats = 8 // len(indices)
    data = np.frombuffer(bytes.fromhex(packed) * repeats, np.uint8)
    centroids = np.arange(1 << bits).astype(np.int8)
    linear = _Linear(_p(data), _p(centroids), None, None, 1, 8, bits, 0)
    tile = np.full((8, 4), 99, np.int8)
    library.quads_decode_rows(ctypes.byref(linear), _size(0), _size(1), _p(tile))
    np.testing.assert_array_equal(tile[:, 0].view(np.uint8), indices * repeats)
    assert not tile[:, 1:].any(), "rows that do not exist are zero"


@pytest.mark.parametrize("bits", model_format.BITS)
@pytest.mark.parametrize(("first", "count"), [(0, 4), (4, 4), (3, 2), (8, 1)])
def test_decode_finds_its_rows(library: ctypes.CDLL, bits: int, first: int, count: int) -> None:
    w = _Weights(9, 40, bits, per_channel=False)
    library.quads_decode_rows(ctypes.byref(w.struct), _size(first), _size(count), _p(w.tile))
    found = w.tile.reshape(40, 4).T[:count]
    np.testing.assert_array_equal(found, w.weights[first : first + count])


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("rows", "k", "stride"), [(1, 8, 8), (2, 24, 24), (7, 96, 96), (5, 120, 40), (3, 48, 32)]
)
def test_linear_s8(
    library: ctypes.CDLL, rows: int, k: int, stride: int, per_channel: bool, fill: str
) -> None:
    w = _Weights(16, k, 4, per_channel=per_channel, seed=k)
    w.multiplier >>= 9
    flat = FILLS[fill](np.random.default_rng(rows), (rows - 1) * stride + k)
    x = np.lib.stride_tricks.as_strided(flat, (rows, k), (stride, 1))
    y = np.full((rows, 20), 99, np.int8)
    library.quads_linear_s8(
        _p(flat), _size(stride), _size(rows), ctypes.byref(w.struct), _size(4), _size(8),
        _p(y), _size(20), _p(w.tile),
    )  # fmt: skip
    m = w.multiplier.astype(np.int64)[4:12] if per_channel else w.multiplier.astype(np.int64)
    expected = _rq(w.accumulate(x)[:, 4:12], m).clip(-128, 127)
    np.testing.assert_array_equal(y[:, :8], expected)
    assert (y[:, 8:] == 99).all()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_linear_add_s16(library: ctypes.CDLL, rows: int, per_channel: bool, fill: str) -> None:
    rng = np.random.default_rng(rows)
    w = _Weights(24, 96, 3, per_channel=per_channel)
    x = FILLS[fill](rng, rows, 96)
    residual = rng.integers(-32768, 32768, (rows, 24), dtype=np.int16)
    residual[0, :2] = -32768, 32767
    expected = (residual + _rq(w.accumulate(x), w.multiplier.astype(np.int64))).clip(-32768, 32767)
    library.quads_linear_add_s16(
        _p(x), _size(rows), ctypes.byref(w.struct), _p(residual), _p(w.tile)
    )
    np.testing.assert_array_equal(residual, expected)


@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 31])
def test_head(library: ctypes.CDLL, n_classes: int) -> None:
    w = _Weights(n_classes, 96, 8, per_channel=False)
    w.struct.multiplier = None
    pooled = np.random.default_rng(0).choice(np.array([-8191, 0, 8191], np.int16), 96)
    logits = np.full(n_classes + 1, 99, np.int32)
    for first in range(n_classes):
        logits[:] = 99
        library.quads_head(
            _p(pooled), ctypes.byref(w.struct), _size(first), _size(n_classes - first),
            _p(logits), _p(w.tile),
        )  # fmt: skip
        kept = n_classes - first
        np.testing.assert_array_equal(logits[:kept], w.accumulate(pooled)[first:])
        assert (logits[kept:] == 99).all()


def test_gelu_tables(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    every = np.arange(-128, 128).astype(np.int8)
    table8, table16 = _random_s8(rng, 256), rng.integers(-32768, 32768, 256, dtype=np.int16)
    x = every.copy()
    library.quads_gelu_s8(_p(x), _size(256), _p(table8))
    np.testing.assert_array_equal(x, table8)

    positions = _s8_extremes(rng, 256)
    residual = np.zeros(256, np.int16)
    in_place = residual.view(np.int8)[256:]
    in_place[:] = every
    library.quads_gelu_positions_s16(
        _p(in_place), _size(256), _p(table16), _p(positions), 300, _p(residual)
    )
    expected = (table16.astype(np.int64) + 300 * positions.astype(np.int64)).clip(-32768, 32767)
    np.testing.assert_array_equal(residual, expected)


def _layer_norm(
    x: list[int], gamma: list[int], beta: list[int], shift: int, epsilon: int
) -> list[int]:
    """Section 5 in Python's unbounded integers."""
    d = len(x)
    mean = (2 * sum(x) + d) // (2 * d)
    centered = [value - mean for value in x]
    vs = sum(value * value for value in centered) + epsilon
    n = 32 - vs.bit_length()
    n -= n % 2
    root = math.isqrt(vs << n if n >= 0 else vs >> -n)
    inverse = (math.isqrt(d << 52) // root) << 2
    h = [((c << 14 + n // 2) * inverse + 2**31) >> 32 for c in centered]
    scaled = [
        (a * g + b + 2 ** (shift - 1)) >> shift for a, g, b in zip(h, gamma, beta, strict=True)
    ]
    return [min(127, max(-128, value)) for value in scaled]


ROWS = {
    "zero": lambda rng, d: np.zeros(d),
    "constant": lambda rng, d: np.full(d, 32767),
    "one": lambda rng, d: np.eye(d)[0],
    "negative": lambda rng, d: np.full(d, -32768) + np.eye(d)[1],
    "extremes": lambda rng, d: rng.choice([-32768, 32767], d),
    "spike": lambda rng, d: np.full(d, -32768) + np.eye(d)[2] * 65535,
    "small": lambda rng, d: rng.integers(-2, 3, d),
    "normal": lambda rng, d: rng.normal(100, 3000, d),
    "loud": lambda rng, d: rng.integers(-32768, 32768, d),
}


@pytest.mark.parametrize("d", [8, 24, 96, 1280])
@pytest.mark.parametrize("kind", ROWS)
def test_layer_norm(library: ctypes.CDLL, kind: str, d: int) -> None:
    rng = np.random.default_rng(d)
    x = np.stack([ROWS[kind](rng, d) for _ in range(3)]).clip(-32768, 32767).astype(np.int16)
    gamma = rng.integers(-2000, 2000, d).astype(np.int16)
    beta = rng.integers(-(2**18), 2**18, d).astype(np.int32)
    y = np.zeros((3, d), np.int8)
    for shift, epsilon in ((1, 1), (14, 5), (16, 2**32 - 1)):
        norm = _Norm(_p(gamma), _p(beta), epsilon, shift)
        library.quads_layer_norm(
            _p(x), _size(3), _size(d), ctypes.byref(norm),
            ctypes.c_uint32(model_format.norm_sqrt_d(d)), _p(y),
        )  # fmt: skip
        for row, found in zip(x.tolist(), y.tolist(), strict=True):
            assert found == _layer_norm(row, gamma.tolist(), beta.tolist(), shift, epsilon)


def _exps(scores: list[int], multiplier: int) -> list[int]:
    """Section 6: e[u] = EXP[z & 63] >> (z >> 6), in floats exact enough for the table."""
    exps = []
    for score in scores:
        z = ((max(scores) - score << 4) * multiplier + 2**31) >> 32
        entry = math.floor(8192 * 2 ** (-(z & 63) / 64) + 0.5)
        exps.append(entry >> (z >> 6) if z >> 6 <= 13 else 0)
    return exps


@pytest.mark.parametrize("multiplier", [0, 1, 40_000_000, 2**31 - 1])
@pytest.mark.parametrize("n_tokens", [1, 2, 7, 100])
def test_softmax_exps(library: ctypes.CDLL, n_tokens: int, multiplier: int) -> None:
    rng = np.random.default_rng(n_tokens)
    library.quads_softmax_exps.restype = ctypes.c_uint32
    for spread in (0, 3000, 128 * 128 * 64):
        scores = rng.integers(-spread, spread + 1, n_tokens).astype(np.int32)
        exps = np.zeros(n_tokens, np.int16)
        total = library.quads_softmax_exps(_p(scores), _size(n_tokens), multiplier, _p(exps))
        assert exps.tolist() == _exps(scores.tolist(), multiplier)
        assert total == exps.sum()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 4, 5, 100])
def test_attention_scores(library: ctypes.CDLL, n_tokens: int, fill: str) -> None:
    rng = np.random.default_rng(n_tokens)
    query, key = FILLS[fill](rng, 24), FILLS[fill](rng, n_tokens, 24)
    scores = np.full(n_tokens + 3, 99, np.int32)
    library.quads_attention_scores(_p(query), _p(key), _size(n_tokens), _size(24), _p(scores))
    np.testing.assert_array_equal(scores[:n_tokens], key.astype(np.int64) @ query.astype(np.int64))
    assert (scores[n_tokens:] == 99).all()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("n_tokens", [1, 2, 101, model_format.MAX_TOKENS])
@pytest.mark.parametrize("multiplier", [1, 4096, 12_000, 2**24 - 1])
def test_attention_values(library: ctypes.CDLL, multiplier: int, n_tokens: int, fill: str) -> None:
    rng = np.random.default_rng(n_tokens)
    for uniform in (True, False):
        exps = np.full(n_tokens, 8192) if uniform else rng.integers(0, 8193, n_tokens)
        exps[0] = 8192
        value = FILLS[fill](rng, n_tokens, 16)
        total = int(exps.sum())
        n = 32 - total.bit_length()
        m = multiplier * (0xFFFFFFFF // ((total << n) >> 16)) >> (28 - n)
        assert m < 2**31
        expected = _rq(exps.astype(np.int64) @ value.astype(np.int64), m).clip(-128, 127)
        short, out = exps.astype(np.int16), np.zeros(16, np.int8)
        library.quads_attention_values(
            _p(short), ctypes.c_uint32(total), _p(value), _size(n_tokens), _size(16), multiplier,
            _p(out),
        )  # fmt: skip
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("n_tokens", [1, 2, 101, model_format.MAX_TOKENS])
@pytest.mark.parametrize("multiplier", [1, 4096, 250_000, 2**24 - 1])
@pytest.mark.parametrize("score_multiplier", [0, 30_000_000, 2**31 - 1])
def test_attention_pool(
    library: ctypes.CDLL, score_multiplier: int, multiplier: int, n_tokens: int, fill: str
) -> None:
    rng = np.random.default_rng(n_tokens)
    query, x = FILLS[fill](rng, 16), FILLS[fill](rng, n_tokens, 16)
    exps = np.array(_exps((x.astype(np.int64) @ query).tolist(), score_multiplier))
    total = int(exps.sum())
    n = 32 - total.bit_length()
    m = multiplier * (0xFFFFFFFF // ((total << n) >> 16)) >> (28 - n)
    assert m < 2**31
    expected = _rq(exps @ x.astype(np.int64), m).clip(-8191, 8191)
    pooled = np.full(17, 99, np.int16)
    workspace = np.zeros((n_tokens + 1) // 2 * 8 + 2 * n_tokens, np.uint8)
    library.quads_attention_pool(
        _p(query), _p(x), _size(n_tokens), _size(16), score_multiplier, multiplier, _p(pooled),
        _p(workspace),
    )  # fmt: skip
    np.testing.assert_array_equal(pooled[:16], expected)
    assert pooled[16] == 99


def test_pools_are_softmax_over_time() -> None:
    """The integers against float64: softmax(query tokens / sqrt(d)) tokens for every slot."""
    dims = Dimensions(8, 60, 32, 2, 1, 7, pools=(4, 3))
    model = random_model(dims, seed=6)
    seen: dict[str, NDArray[np.int64]] = {}
    logits = Reference(model).logits(_windows(dims, 3)[:3], trace=seen.__setitem__)
    tokens = seen["norm"].astype(np.float64)
    scores = tokens @ model.pool_query.T.astype(np.float64)
    # One step of the exponential's argument is 1/64 power of two.
    scores *= model.pool_score_multiplier * 16 / 2**32 / 64
    shares = 2.0 ** (scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    pooled = np.einsum("bts,btd->bsd", shares, tokens) * model.pool_multiplier / 4096
    np.testing.assert_allclose(seen["pooled"], pooled.clip(-8191, 8191), atol=60)
    exact = seen["pooled"] @ model.head.weights.T.astype(np.int64) + model.head.bias
    np.testing.assert_array_equal(logits[:, :4], exact[:, 0, :4])
    np.testing.assert_array_equal(logits[:, 4:], exact[:, 1, 4:])


@pytest.mark.parametrize("rows", [0, 1, 7, model_format.MAX_TOKENS])
@pytest.mark.parametrize("multiplier", [1, 2**22, 2**31 - 1])
def test_mean_pool(library: ctypes.CDLL, multiplier: int, rows: int) -> None:
    y = _random_s8(np.random.default_rng(rows), rows, 16)
    y[:, 0], y[:, 1] = -128, 127
    sums, pooled = np.zeros(16, np.int32), np.zeros(16, np.int16)
    library.quads_sum_rows(_p(y), _size(rows), _size(16), _p(sums))
    np.testing.assert_array_equal(sums, y.sum(axis=0, dtype=np.int64))
    library.quads_mean_pool(_p(sums), _size(16), multiplier, _p(pooled))
    expected = _rq(y.sum(axis=0, dtype=np.int64) << 8, multiplier).clip(-8191, 8191)
    np.testing.assert_array_equal(pooled, expected)

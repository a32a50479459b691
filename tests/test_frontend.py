"""Device features: near the float definition, and the C bytes equal the twin's on every build."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from c_build import FIRMWARE, STRICT_FLAGS, compile_shared, require_tool
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import SHARED

from quads_mcu import model_format
from quads_mcu.audio import files
from quads_mcu.audio.frontend import FLOAT, FRONTENDS, _log, clamp, features, frames
from quads_mcu.audio.frontend_tables import (
    CLAMP_LEVELS,
    LEVEL_OF_ONE,
    LEVELS_PER_DECADE,
    frame_samples,
    tables,
)
from quads_mcu.audio.logmel import log_mel
from quads_mcu.errors import AudioError
from quads_mcu.export.frontend_source import float_literal, render

SOURCES = sorted((FIRMWARE / "src" / "frontend").glob("*.c"))
INCLUDES = (FIRMWARE / "include", FIRMWARE / "src" / "frontend")
WARNINGS = ("-Wdouble-promotion", "-Wfloat-conversion", "-Wshadow")
# -march=native brings fused multiply-add where the host has it; it must change nothing.
BUILDS = {
    "gcc -O0": ("gcc", ("-O0",)),
    "gcc -O2": ("gcc", ("-O2",)),
    "gcc -O3 FMA": ("gcc", ("-O3", "-march=native")),
    "clang -O3": ("clang", ("-O3",)),
    # Here the sources' own pragma must forbid fusing.
    "clang -O3 FMA": ("clang", ("-O3", "-march=native", "-ffp-contract=on")),
}
# The goal is 24,000 at 80 mel bands; measured with GCC 12.2 -O2: 18,250.
MAX_INSTRUCTIONS_PER_FRAME = 20_000
INSTRUCTIONS_PER_TICK = 40 / 64  # 25 MHz timer; -icount shift=6 is 64 ns per instruction


class Frontend(ctypes.Structure):
    _fields_ = (
        ("ring", ctypes.c_int16 * 400),
        ("next", ctypes.c_uint16),
        ("missing", ctypes.c_uint16),
    )


class Stream:
    """The C frontend of one build."""

    def __init__(self, library: ctypes.CDLL, n_mels: int) -> None:
        self.library = library
        self.n_mels = n_mels
        self.state = Frontend()
        self.library.quads_frontend_process.argtypes = (
            ctypes.POINTER(Frontend),
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.c_void_p,
        )

    def frames(self, chunks: Iterable[np.ndarray]) -> np.ndarray:
        """Return every frame of a stream that arrives as `chunks`, int8 (n_frames, n_mels)."""
        self.library.quads_frontend_restart(ctypes.byref(self.state))
        out = [np.zeros((0, self.n_mels), np.int8)]
        for chunk in chunks:
            out.extend(self._feed(np.ascontiguousarray(chunk, np.int16)))
        return np.concatenate(out)

    def _feed(self, chunk: np.ndarray) -> list[np.ndarray]:
        out = []
        consumed = ctypes.c_size_t()
        at = 0
        while True:
            mel = np.zeros((1, self.n_mels), np.int8)
            left = len(chunk) - at
            ready = self.library.quads_frontend_process(
                self.state, chunk.ctypes.data + 2 * at, left, consumed, mel.ctypes.data
            )
            assert ready in (0, 1)
            assert consumed.value <= left
            assert ready or consumed.value == left, "stopped early without a frame"
            at += consumed.value
            if not ready:
                return out
            out.append(mel)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Stream]:
    """Return a function that compiles a build of BUILDS for n_mels, once."""
    done: dict[tuple[str, int], Stream] = {}

    def compiled(name: str, n_mels: int) -> Stream:
        if (name, n_mels) not in done:
            folder = tmp_path_factory.mktemp("frontend")
            (folder / "frontend_tables.h").write_text(render(n_mels))
            compiler, flags = BUILDS[name]
            library = compile_shared(
                SOURCES, (*INCLUDES, folder), folder, compiler, (*WARNINGS, *flags)
            )
            done[name, n_mels] = Stream(library, n_mels)
        return done[name, n_mels]

    return compiled


def speech(count: int) -> list[np.ndarray]:
    paths = sorted((SHARED / "wakewords").rglob("*.flac"))
    if len(paths) < count:
        pytest.skip(f"no {count} recordings below {SHARED / 'wakewords'}; set QUADS_SHARED_DATA")
    return [files.load(path) for path in paths[:: len(paths) // count][:count]]


def signal(kind: str, n: int = 4000) -> np.ndarray:
    time = np.arange(n)
    rng = np.random.default_rng(3)
    signals = {
        "zeros": np.zeros(n),
        "highest": np.full(n, 32767),
        "lowest": np.full(n, -32768),
        "alternating": np.where(time % 2, 32767, -32768),
        "square": np.where(time // 8 % 2, 32767, -32768),
        "impulse": 32767 * (time == 1000),
        "faint impulse": time == 1000,
        "white": rng.integers(-32768, 32768, n),
        "faint": rng.integers(-1, 2, n),
        "8 Hz": np.round(32767 * np.sin(2 * np.pi * 8 / 16_000 * time)),
        "1 kHz": np.round(32767 * np.sin(2 * np.pi * 1000 / 16_000 * time)),
    }
    return signals[kind].astype(np.int16)


SIGNALS = (
    "zeros",
    "highest",
    "lowest",
    "alternating",
    "square",
    "impulse",
    "faint impulse",
    "white",
    "faint",
    "8 Hz",
    "1 kHz",
)


def complete_frames(n_samples: int) -> int:
    """Return how many frames are complete after n_samples: the first after 200, then each hop."""
    return 0 if n_samples < 200 else (n_samples - 200) // 160 + 1


def test_scale_is_that_of_the_model_format() -> None:
    # Whisper's (decades + 4) / 4 of level q, where decades = (q - LEVEL_OF_ONE) / 20.
    per_level = 1 / (4 * LEVELS_PER_DECADE)
    assert per_level == model_format.MEL_SCALE
    assert LEVEL_OF_ONE - 4 * LEVELS_PER_DECADE == model_format.MEL_ZERO_POINT
    assert CLAMP_LEVELS == model_format.MEL_CLAMP_LSB
    assert FRONTENDS == model_format.FRONTENDS


# --- the twin against the definition -----------------------------------------------------------


def assert_near_definition(pcm: np.ndarray, n_mels: int) -> float:
    """Compare the frames that touch neither end; return the share of values that differ."""
    exact = log_mel(pcm, n_mels).astype(np.float64)
    reference = np.floor(np.clip(exact * 80 - 8, -128, 127) + 0.5)
    inner = slice(2, (len(pcm) - 200) // 160 + 1)
    reference = reference[inner]
    device = frames(pcm, n_mels, len(exact))[inner].astype(int)
    floor = max(reference.max(), device.max(), exact.max() * 80 - 8) - 160
    difference = np.abs(np.maximum(device, floor) - np.maximum(reference, floor))
    assert difference.max() <= 1
    return float((difference > 0.5).mean())


@pytest.mark.parametrize("n_mels", [40, 80, 128])
@pytest.mark.parametrize("kind", [kind for kind in SIGNALS if "impulse" not in kind])
def test_twin_is_within_one_lsb_of_the_definition(kind: str, n_mels: int) -> None:
    assert_near_definition(signal(kind), n_mels)


@pytest.mark.parametrize("n_mels", [40, 80])
def test_twin_is_near_the_definition_on_speech(n_mels: int) -> None:
    shares = [assert_near_definition(pcm, n_mels) for pcm in speech(20)]
    assert np.mean(shares) < 0.005


def test_levels_round_half_up_within_a_hundredth() -> None:
    level = np.arange(-128, 127)
    for distance, expected in (
        (-0.51, level - 1),
        (-0.49, level),
        (0.49, level),
        (0.51, level + 1),
    ):
        energy = (10.0 ** ((level + distance - 72) / 20)).astype(np.float32)
        assert np.array_equal(_log(energy, tables(80)), np.maximum(expected, -128))
    extremes = np.array([0.0, 1e-45, 1e-38, 1e-10, 1.0, 1e4, 1e9], np.float32)
    assert _log(extremes, tables(80)).tolist() == [-128, -128, -128, -128, 72, 127, 127]


def test_window_is_zero_on_both_sides() -> None:
    pcm = signal("white", 1000)
    padded = np.concatenate([np.zeros(1600, np.int16), pcm, np.zeros(1600, np.int16)])
    assert np.array_equal(frames(pcm, 40, 17), frames(padded, 40, 27)[10:])
    assert (frames(pcm, 40, 17)[8:] == -128).all()


def test_samples_beyond_the_window_are_ignored() -> None:
    pcm = signal("white", 4000)
    needed = frame_samples(6)
    assert np.array_equal(features(pcm, 80, 6), features(pcm[:needed], 80, 6))
    assert not np.array_equal(features(pcm, 80, 6), features(pcm[: needed - 100], 80, 6))


@pytest.mark.parametrize("n_frames", [2, 100, 300, 601])
def test_batch_equals_clip_by_clip(n_frames: int) -> None:
    pcm = np.random.default_rng(5).integers(-9000, 9000, (3, 2, 20_000)).astype(np.int16)
    batch = features(pcm, 40, n_frames)
    assert batch.shape == (3, 2, n_frames, 40)
    for index in np.ndindex(3, 2):
        assert np.array_equal(batch[index], features(pcm[index], 40, n_frames))


@pytest.mark.parametrize("shape", [(0,), (0, 100), (2, 0)])
def test_nothing_gives_silence(shape: tuple[int, ...]) -> None:
    mel = features(np.zeros(shape, np.int16), 80, 4)
    assert mel.shape == (*shape[:-1], 4, 80)
    assert (mel == -128).all()


def test_clamp_is_eight_decades_below_the_maximum_of_each_window() -> None:
    mel = np.array([[[-128, 127]], [[-128, 20]], [[-128, 40]], [[-128, -128]]], np.int8)
    assert clamp(mel)[:, 0, 0].tolist() == [-33, -128, -120, -128]
    assert clamp(mel)[:, 0, 1].tolist() == [127, 20, 40, -128]


@pytest.mark.parametrize(
    ("pcm", "n_mels"),
    [(np.zeros(400), 80), (np.int16(1), 80), (np.zeros(9, np.int16), 0), (np.zeros(9, "i2"), 129)],
)
def test_refusals(pcm: np.ndarray, n_mels: int) -> None:
    with pytest.raises(AudioError):
        features(pcm, n_mels, 10)


def test_golden_features() -> None:
    """The bytes of these features are a promise; the signal is made of integers alone."""
    noise = np.cumsum(np.arange(16_000, dtype=np.int64) ** 2 % 257 - 128) % 20_001 - 10_000
    mel = features(noise.astype(np.int16), 80, 100)
    assert hashlib.sha256(mel.tobytes()).hexdigest() == GOLDEN_FEATURES


GOLDEN_FEATURES = "5476ac6c6404b4b88bd64ee89a8fa42756c278fa2c86582808975e80c3b206a5"
GOLDEN_TABLES = {
    40: "e385d8ad6f7b2933b5b156151c5c512e71417fc23ccac42cab4277f762df0d04",
    80: "ff455510ecfc02744c253fb29a8da350a091114b1b089271bad59b4baf7ebbde",
}


# --- the tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_mels", [1, 8, 40, 80, 127, 128])
def test_slopes_hold_every_weight_once(n_mels: int) -> None:
    constants = tables(n_mels)
    weights = np.zeros((n_mels + 2, 201), np.float32)
    segment = np.repeat(np.arange(n_mels + 1), constants.mel_segments)
    bins = np.arange(1, 200)
    weights[segment, bins] = constants.mel_slopes[:, 0]
    weights[segment + 1, bins] = constants.mel_slopes[:, 1]
    assert np.array_equal(weights[1:-1], constants.mel_weights)
    assert not weights[0].any() and not weights[-1].any()
    assert (constants.mel_weights > 0).any(axis=1).all()


def test_prime_factor_maps_cover_everything_once() -> None:
    constants = tables(80)
    assert sorted(constants.sample_order.ravel()) == list(range(400))
    real = constants.real_bins[:, 2:].ravel()
    assert sorted([*constants.bins.ravel(), *real]) == list(range(201))


@pytest.mark.parametrize("n_mels", [40, 80])
def test_tables_are_the_same_on_every_machine(n_mels: int) -> None:
    assert hashlib.sha256(render(n_mels).encode()).hexdigest() == GOLDEN_TABLES[n_mels]


@pytest.mark.parametrize("n_mels", [1, 40, 80, 128])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_header_compiles_alone(n_mels: int, compiler: str, tmp_path: Path) -> None:
    (tmp_path / "frontend_tables.h").write_text(render(n_mels))
    (tmp_path / "alone.c").write_text('#include "frontend_tables.h"\ntypedef int not_empty;\n')
    command = [require_tool(compiler), *STRICT_FLAGS, *WARNINGS, "-c", "alone.c", "-o", "alone.o"]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_header_holds_the_exact_tables() -> None:
    text = render(80)
    constants = tables(80)
    for name, expected in (
        ("window", constants.window),
        ("slopes", constants.mel_slopes),
        ("twiddles", constants.twiddles),
        ("order", constants.sample_order),
        ("bins", constants.bins),
        ("real_bins", constants.real_bins),
        ("segments", constants.mel_segments),
    ):
        match = re.search(rf"quads_frontend_{name}(?:\[\d+\])+ = {{\n(.*?)\n}};", text, re.DOTALL)
        assert match, name
        numbers = re.findall(r"[-+.e0-9]+", match[1])
        assert np.array_equal(np.array(numbers, expected.dtype), expected.ravel()), name


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_literals_round_trip(value: float) -> None:
    literal = float_literal(np.float32(value))
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[-+]\d+)?f", literal)
    assert np.float32(literal[:-1]) == np.float32(value)
    assert len(re.sub(r"e.*|[-.f]", "", literal).strip("0")) <= 9


# --- C against the twin ------------------------------------------------------------------------


@pytest.mark.parametrize("n_mels", [40, 80])
@pytest.mark.parametrize("name", BUILDS)
def test_c_equals_twin_on_extreme_signals(
    build: Callable[[str, int], Stream], name: str, n_mels: int
) -> None:
    stream = build(name, n_mels)
    for kind in SIGNALS:
        pcm = signal(kind)
        expected = frames(pcm, n_mels, complete_frames(len(pcm)))
        assert np.array_equal(stream.frames([pcm]), expected), kind


@pytest.mark.parametrize("n_mels", [40, 80])
@pytest.mark.parametrize("name", BUILDS)
def test_c_equals_twin_on_speech(
    build: Callable[[str, int], Stream], name: str, n_mels: int
) -> None:
    stream = build(name, n_mels)
    for pcm in speech(100):
        expected = frames(pcm, n_mels, complete_frames(len(pcm)))
        assert np.array_equal(stream.frames([pcm]), expected)


@pytest.mark.parametrize("n_mels", [1, 128])
def test_c_equals_twin_at_other_band_counts(
    build: Callable[[str, int], Stream], n_mels: int
) -> None:
    pcm = signal("white")
    assert np.array_equal(build("gcc -O2", n_mels).frames([pcm]), frames(pcm, n_mels, 24))


SIZES = st.sampled_from([0, 1, 2, 159, 160, 161, 199, 200, 201, 400, 16_000])


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(SIZES | st.integers(0, 1000), max_size=12), seed=st.integers(0, 99))
def test_chunking_does_not_matter(
    build: Callable[[str, int], Stream], sizes: list[int], seed: int
) -> None:
    stream = build("gcc -O2", 40)
    pcm = np.random.default_rng(seed).integers(-32768, 32768, sum(sizes)).astype(np.int16)
    chunks = np.split(pcm, np.cumsum(sizes)[:-1]) if sizes else []
    expected = frames(pcm, 40, complete_frames(len(pcm)))
    assert np.array_equal(stream.frames(chunks), expected)


@pytest.mark.parametrize("n_samples", [0, 1, 199, 200, 359, 360, 519])
def test_frame_is_ready_with_its_last_sample(
    build: Callable[[str, int], Stream], n_samples: int
) -> None:
    pcm = signal("white", n_samples)
    single = build("gcc -O2", 80).frames(np.split(pcm, n_samples) if n_samples else [pcm])
    assert len(single) == complete_frames(n_samples)
    assert np.array_equal(single, frames(pcm, 80, len(single)))


def test_flushing_subnormals_changes_nothing(
    build: Callable[[str, int], Stream], tmp_path: Path
) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("flush-to-zero is switched on with an SSE register; this is not x86-64")
    source = tmp_path / "exchange_mxcsr.c"
    source.write_text(
        "#include <xmmintrin.h>\n"
        "unsigned exchange_mxcsr(unsigned value);\n"
        "unsigned exchange_mxcsr(unsigned value) {\n"
        "  unsigned before = _mm_getcsr();\n  _mm_setcsr(value);\n  return before;\n}\n"
    )
    control = compile_shared([source], (), tmp_path)
    stream = build("gcc -O2", 80)
    for kind in SIGNALS:
        pcm = signal(kind)
        before = control.exchange_mxcsr(0x9FC0)  # masked exceptions, FTZ and DAZ
        try:
            flushed = stream.frames([pcm])
        finally:
            control.exchange_mxcsr(before)
        assert np.array_equal(flushed, frames(pcm, 80, len(flushed))), kind


def emulated_cortex_m(
    folder: Path, pcm: np.ndarray, flags: Sequence[str], arithmetic: str = FLOAT
) -> tuple[bytes, np.ndarray]:
    """Run frontend_cortex_m.c at 80 bands: the mel bytes and the instructions of each stage."""
    compiler, emulator = require_tool("arm-none-eabi-gcc"), require_tool("qemu-system-arm")
    pcm.astype("<i2").tofile(folder / "pcm")
    (folder / "frontend_tables.h").write_text(render(80, arithmetic))
    here = Path(__file__).parent
    command = [compiler, *STRICT_FLAGS, *flags, "-mthumb"]
    command += ["--specs=rdimon.specs", f"-T{here / 'frontend_cortex_m.ld'}"]
    command += [f"-I{include}" for include in (*INCLUDES, folder)]
    command += [*map(str, SOURCES), str(here / "frontend_cortex_m.c"), "-o", "test.elf"]
    subprocess.run(command, cwd=folder, check=True)
    machine = [emulator, "-M", "mps2-an386", "-kernel", "test.elf", "-display", "none"]
    machine += ["-monitor", "none", "-serial", "none", "-semihosting", "-icount", "shift=6"]
    subprocess.run(machine, cwd=folder, check=True, timeout=120, stdin=subprocess.DEVNULL)
    ticks = np.fromfile(folder / "ticks", "<u4")
    return (folder / "mel").read_bytes(), ticks * INSTRUCTIONS_PER_TICK


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "limit"), [("-O2", MAX_INSTRUCTIONS_PER_FRAME), ("-Os", None)])
def test_emulated_cortex_m4f_equals_twin(flags: str, limit: int | None, tmp_path: Path) -> None:
    pcm = np.concatenate([signal(kind, 4000) for kind in SIGNALS])
    core = (flags, "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
    mel, instructions = emulated_cortex_m(tmp_path, pcm, core)

    expected = frames(pcm, 80, complete_frames(len(pcm)))
    assert mel == expected.tobytes()
    per_frame = instructions / len(expected)
    print(f"instructions per frame: {per_frame.round().astype(int)} (all, power, mel, log)")
    assert limit is None or per_frame[0] <= limit

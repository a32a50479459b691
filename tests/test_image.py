"""Model images: bytes against an independent writer, and the device's loader under sanitizers.

The loader runs in tests/image_main.c with address and undefined-behaviour sanitizers; what it
accepts is also run, and its logits compared with the integer reference.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from c_build import FIRMWARE, REPOSITORY, STRICT_FLAGS, compile_shared, require_tool
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_model import random_model

from quads_mcu import model_format, protocol
from quads_mcu.device.build import kernel_sources
from quads_mcu.errors import ExportError, ModelFormatError
from quads_mcu.export import csource, frontend_source, image, planner
from quads_mcu.export import kernels as variants
from quads_mcu.export.reference import Reference
from quads_mcu.image_format import HEADER, LAYER
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedModel
from quads_mcu.paths import data_dir
from quads_mcu.protocol import ImageStatus
from quads_mcu.report.emulated_kernel import CORES, Call, EmulatedKernels
from quads_mcu.slots import Slot

TINY = Dimensions(n_mels=8, n_frames=2, d_model=8, n_heads=1, n_layers=1, n_classes=2)
SMALL = Dimensions(n_mels=8, n_frames=14, d_model=24, n_heads=3, n_layers=2, n_classes=5)
MIXED = {
    name: (8, 4, 3, 2)[index % 4] for index, name in enumerate(model_format.linear_shapes(SMALL))
}
POSITION = {field.name: at for field, at in protocol.positions(HEADER)}
LAYER_POSITION = {field.name: at for field, at in protocol.positions(LAYER)}
SIZE = {"u8": 1, "i8": 1, "u16": 2, "i16": 2, "u32": 4, "i32": 4}
FIELD_BYTES = {field.name: SIZE[field.type] * (field.count or 1) for field in HEADER}
ARENA_BYTES = 1 << 20
HEADER_BYTES = 221
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclasses.dataclass(frozen=True)
class Opened:
    """What the loader said, and of an accepted image the model's hash, slots and logits."""

    status: ImageStatus
    found: int
    allowed: int
    model_hash: str = ""
    slots: tuple[Slot, ...] = ()
    logits: tuple[int, ...] = ()


class Loader:
    """tests/image_main.c: one process that opens any number of images."""

    def __init__(self, folder: Path) -> None:
        csource_files = csource.render_model(random_model(TINY))
        for name in ("quads_format.h", "quads_image_format.h"):
            (folder / name).write_text(csource_files[name])
        (folder / "frontend_tables.h").write_text(frontend_source.render(8, "float"))
        sources = [
            REPOSITORY / "tests" / "image_main.c",
            *(FIRMWARE / "src" / f"{name}.c"
              for name in ("quads", "encoder", "image", "image_check", "sha256")),
            *sorted((FIRMWARE / "src" / "frontend").glob("*.c")),
            *kernel_sources("plain"),
        ]  # fmt: skip
        includes = [f"-I{path}" for path in (folder, FIRMWARE / "include", FIRMWARE / "src")]
        command = [require_tool("gcc"), *STRICT_FLAGS, *SANITIZE, *includes, *map(str, sources)]
        done = subprocess.run(
            [*command, "-o", str(folder / "run")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self._errors = (folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            [folder / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        assert self._process.wait(10) == 0, self._said()
        self._process.stdout.close()
        self._errors.close()

    def open(
        self,
        data: bytes,
        mel: NDArray[np.int8] | None = None,
        arena_bytes: int = ARENA_BYTES,
        n_frames: int = 65535,
    ) -> Opened:
        """Open one image; run it on int8 features (n_frames, n_mels), zeros by default."""
        assert self._process.stdin
        self._process.stdin.write(struct.pack("<3I", arena_bytes, n_frames, len(data)) + data)
        self._process.stdin.flush()
        status, found, allowed = struct.unpack("<3I", self._read(12))
        if status:
            return Opened(ImageStatus(status), found, allowed)
        frames, mels, classes = (field(data, name) for name in ("n_frames", "n_mels", "n_classes"))
        features = np.zeros((frames, mels), np.int8) if mel is None else mel
        self._process.stdin.write(features.tobytes())
        self._process.stdin.flush()
        model_hash = self._read(32).hex()
        slots = tuple(self._slot() for _ in range(self._u32()))
        logits = struct.unpack(f"<{classes}i", self._read(4 * classes))
        return Opened(ImageStatus.OK, found, allowed, model_hash, slots, logits)

    def _slot(self) -> Slot:
        n_labels = self._u32()
        name, *labels = (self._text() for _ in range(1 + n_labels))
        return Slot(name, tuple(labels))

    def _u32(self) -> int:
        return int.from_bytes(self._read(4), "little")

    def _text(self) -> str:
        found = b""
        while (byte := self._read(1)) != b"\0":
            found += byte
        return found.decode(errors="replace")

    def _read(self, n_bytes: int) -> bytes:
        assert self._process.stdout
        found = self._process.stdout.read(n_bytes)
        if len(found) != n_bytes:
            self._process.wait(10)
            pytest.fail(f"the loader died: {self._said()}")
        return found

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    found = Loader(tmp_path_factory.mktemp("image"))
    yield found
    found.close()


def field(data: bytes, name: str) -> int:
    """An unsigned number of the header."""
    at = POSITION[name]
    return int.from_bytes(data[at : at + FIELD_BYTES[name]], "little")


def rehashed(data: bytes) -> bytes:
    """The image with the SHA-256 of what it now holds; docs/format.md: over bytes 40 and on."""
    return data[:8] + hashlib.sha256(data[40:]).digest() + data[40:]


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def with_field(data: bytes, name: str, value: int) -> bytes:
    size = FIELD_BYTES[name]
    return rehashed(patched(data, POSITION[name], (value % 256**size).to_bytes(size, "little")))


def features(dims: Dimensions, seed: int = 1) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    return rng.normal(-40, 30, (dims.n_frames, dims.n_mels)).clip(-128, 127).astype(np.int8)


@pytest.fixture(scope="module")
def small() -> PackedModel:
    model = random_model(SMALL, bits=MIXED, seed=1, slots=[3, 2])
    return dataclasses.replace(model, unknown_class=2, reject_threshold=-77)


# Bytes.


def independent(model: PackedModel, kernels: str, sequence: int) -> bytes:
    """The image as docs/format.md describes it, written without the tables of image_format.py."""
    dims, plan = model.dims, planner.plan(model.dims, kernels)
    flags = [
        (linear.bits, int(linear.multiplier.size > 1))
        for linear in (model.conv1, model.conv2, model.head)
    ]
    body = b""
    for layer in model.layers:
        norms = (layer.attention_norm, layer.feed_forward_norm)
        body += struct.pack("<iiII", layer.score_multiplier, layer.value_multiplier,
                            *(norm.epsilon for norm in norms))  # fmt: skip
        body += bytes(norm.shift for norm in norms)
        for linear in (layer.query, layer.key, layer.value, layer.output, layer.feed_forward_1,
                       layer.feed_forward_2):  # fmt: skip
            body += bytes((linear.bits, int(linear.multiplier.size > 1)))
    body += struct.pack(f"<{len(model.slots)}H", *(len(slot.labels) for slot in model.slots))
    texts = b"".join(f"{slot.name}\0".encode() + "".join(f"{label}\0" for label in slot.labels)
                     .encode() for slot in model.slots)  # fmt: skip
    header = struct.pack(
        "<4sHH32s", b"QIMG", 2, 3, bytes(32)
    ) + struct.pack(
        "<II32sBB7HIhiiiiIIBbB",
        0, sequence, bytes.fromhex(model.model_hash), list(variants.KERNELS).index(kernels),
        ("float", "fixed").index(model.frontend), dims.n_mels, dims.n_frames, dims.d_model,
        dims.n_heads, dims.n_layers, dims.n_classes, len(model.slots), len(texts),
        model.unknown_class, model.reject_threshold, model.position_multiplier,
        model.pool_multiplier, model.pool_score_multiplier,
        model_format.norm_sqrt_d(dims.d_model), model.norm.epsilon, model.norm.shift,
        model.conv1_gelu_zero_point, len(dims.pools) > 0,
    )  # fmt: skip
    header += bytes(value for pair in flags for value in pair)
    header += struct.pack("<18I", *(tensor.offset for tensor in plan.tensors))
    header += struct.pack("<I5H", plan.arena_bytes, *plan.blocks.values())
    data = header + body + texts
    for tensor in csource.packed_tensors(model, kernels).values():
        if tensor.size:
            data += b"\0" * (-len(data) % 16) + tensor.tobytes()
    data += b"\0" * (-len(data) % 16)
    return rehashed(patched(data, 40, struct.pack("<I", len(data))))


@pytest.mark.parametrize("kernels", variants.KERNELS)
@pytest.mark.parametrize("bits", model_format.BITS)
def test_bytes_are_those_of_the_document(kernels: str, bits: int) -> None:
    dims = dataclasses.replace(SMALL, pools=(3, 2) if bits % 2 else ())
    model = random_model(dims, bits=bits, seed=bits, slots=[3, 2])
    assert image.pack(model, kernels, 258) == independent(model, kernels, 258)


GOLDEN = (
    "51494d47 02000300",  # magic, versions
    "dfdd7834 4c2b099c 30a381ad 597e2c6f 02c72e0d 1834416a 0f60a313 aeb2b854",  # SHA-256
    "d00a0000 04030201",  # length, sequence
    "9b124d8c e6d662b8 a08d3a0a 0809fb60 31202ef9 f45c278a d3675b0b c44ae08d",  # model
    "00000800 02000800 01000100 02000100 19000000",  # kernels, frontend, sizes, texts
    "ffff0000 00803200 0000ffff ff7f0000 0000334f 500b0d0c 00000ba8 00",  # decision, pool, norm
    "04000401 0400",  # bits
    "10000000 00000000 30000000 48000000 48000000 50000000 30000000 38000000 40000000 48000000",
    "38000000 30000000 38000000 58000000 40000000 48000000 30000000 40000000",  # arena
    "d8000000 01000100 01000100 0100",  # its bytes, blocks
    "a8e35600 7a2e0000 940d0000 92070000 0a0c0400 04010400 04010400 0401",  # the layer
    "0200",  # labels of the slot
)


def test_tiny_image_golden() -> None:
    """Header and tables byte by byte; the SHA-256 within them pins the tensors behind them."""
    data = image.pack(random_model(TINY), "plain", sequence=0x01020304)
    assert data[:253].hex() == "".join(GOLDEN).replace(" ", "")
    assert data[253:288] == b"intent\0intent 0\0intent 1\0" + bytes(10)
    assert len(data) == 0xAD0


def test_header_reads_back(small: PackedModel) -> None:
    data = image.pack(small, "dsp", 7)
    header = image.read_header(data + b"rest of the slot")
    assert header.sha256 == hashlib.sha256(data[40:]).hexdigest()
    assert header.model_hash == small.model_hash
    assert (header.length_bytes, header.sequence, header.kernels) == (len(data), 7, 1)
    assert (header.n_classes, header.n_slots, header.frontend) == (5, 2, 0)
    assert header.plan_arena_bytes == planner.plan(SMALL, "dsp").arena_bytes


@pytest.mark.parametrize("sequence", [0, 1, 2**32 - 1])
def test_sequence_changes_nothing_else(small: PackedModel, sequence: int) -> None:
    assert image.with_sequence(image.pack(small, "plain", 5), sequence) == image.pack(
        small, "plain", sequence
    )


@pytest.mark.parametrize("sequence", [-1, 2**32])
def test_sequence_that_is_no_u32_is_refused(small: PackedModel, sequence: int) -> None:
    with pytest.raises(ExportError, match="sequence"):
        image.pack(small, "plain", sequence)
    with pytest.raises(ModelFormatError, match="sequence"):
        image.with_sequence(image.pack(small, "plain"), sequence)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: b"", "no model image"),
        (lambda data: data[:215], "no model image"),
        (lambda data: b"JUNK" + data[4:], "begins with b'JUNK'"),
        (lambda data: patched(data, 4, b"\1"), "version 1"),
        (lambda data: patched(data, 6, b"\1"), "format version 1"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: patched(data, 40, b"\0\0\0\0"), "cut off"),
        (lambda data: patched(data, 500, bytes([data[500] ^ 1])), "damaged"),
    ],
)
def test_python_refuses_what_is_no_whole_image(
    small: PackedModel, damage: Callable[[bytes], bytes], text: str
) -> None:
    with pytest.raises(ModelFormatError, match=text):
        image.read_header(damage(image.pack(small, "plain")))


def test_bound_that_the_device_could_not_prove_is_refused(small: PackedModel) -> None:
    """The bias leaves room for the weights as they are, not for 72 times the largest centroid."""
    conv1 = small.conv1
    largest = int(np.abs(conv1.centroids.astype(int)).max())
    used = np.abs(conv1.centroids.astype(int))[conv1.indices].sum(axis=1).max()
    bias = conv1.bias.copy()
    bias[0] = 2**31 - 1 - 128 * (used + (24 * largest - used) // 2)
    changed = dataclasses.replace(small, conv1=dataclasses.replace(conv1, bias=bias))
    model_format.check(changed)
    with pytest.raises(ExportError, match="conv1: sums could reach"):
        image.pack(changed, "plain")


# SHA-256.


@pytest.fixture(scope="module")
def sha(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[bytes]], bytes]:
    folder = tmp_path_factory.mktemp("sha")
    for name, text in csource.render_model(random_model(TINY)).items():
        (folder / name).write_text(text)
    shim = folder / "shim.c"
    shim.write_text("""
#include "quads_image.h"
size_t state_bytes(void);
size_t state_bytes(void) { return sizeof(quads_sha256_t); }
""")
    library = compile_shared(
        [shim, FIRMWARE / "src" / "sha256.c"], [folder, FIRMWARE / "include"], folder,
        flags=["-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all"],
    )  # fmt: skip
    library.state_bytes.restype = ctypes.c_size_t

    def digest(pieces: list[bytes]) -> bytes:
        state = ctypes.create_string_buffer(library.state_bytes())
        out = ctypes.create_string_buffer(32)
        library.quads_sha256_begin(state)
        for piece in pieces:
            library.quads_sha256_add(state, piece, ctypes.c_size_t(len(piece)))
        library.quads_sha256_end(state, out)
        return out.raw

    return digest


@pytest.mark.parametrize("length", [*range(0, 130), 255, 256, 1000, 65535, 65536, 1_000_003])
def test_sha256_is_hashlibs(sha: Callable[[list[bytes]], bytes], length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert sha([data]) == hashlib.sha256(data).digest()


@given(st.lists(st.binary(max_size=150), max_size=12))
def test_sha256_of_pieces(sha: Callable[[list[bytes]], bytes], pieces: list[bytes]) -> None:
    assert sha(pieces) == hashlib.sha256(b"".join(pieces)).digest()


# Models that run.


@pytest.mark.parametrize("bits", model_format.BITS)
@pytest.mark.parametrize("seed", range(3))
def test_logits_are_those_of_the_reference(loader: Loader, bits: int, seed: int) -> None:
    sizes = [
        (Dimensions(8, 20, 16, 2, 1, 7), [2, 2, 3]),
        (Dimensions(8, 106, 40, 5, 3, 31), [31]),
        (Dimensions(8, 46, 64, 2, 8, 9, pools=(4, 5)), [4, 5]),
    ]
    dims, slots = sizes[seed]
    model = random_model(dims, bits=bits, seed=seed, slots=slots)
    mel = features(dims, seed)
    found = loader.open(image.pack(model, "plain"), mel)
    assert found.status is ImageStatus.OK
    assert (found.model_hash, found.slots) == (model.model_hash, model.slots)
    assert found.logits == tuple(Reference(model).logits(mel[None])[0])


def test_mixed_bits_and_awkward_labels(loader: Loader, small: PackedModel) -> None:
    labels = ("Türe auf", "灯を消す", "x" * 255)
    model = dataclasses.replace(small, slots=(Slot("was?", labels), Slot("b", ("%s", '"'))))
    mel = features(SMALL)
    found = loader.open(image.pack(model, "plain") + b"\xff" * 48, mel)
    assert found.slots == model.slots
    assert found.logits == tuple(Reference(model).logits(mel[None])[0])


@pytest.mark.parametrize("variant", [(core, v) for core in CORES for v in CORES[core].kernels])
def test_image_runs_on_emulated_cores(variant: tuple[str, str], tmp_path: Path) -> None:
    """Plain, DSP and Helium order of the indices, each on the cores that use it."""
    core, kernels = variant
    if tool := CORES[core].missing_tool:
        pytest.skip(f"{tool} is not installed")
    model = random_model(SMALL, bits=MIXED, seed=4, slots=[3, 2])
    csource.write_sources(model, tmp_path, kernels)
    (tmp_path / "shim.c").write_text("""
#include <string.h>
#include "quads.h"
#include "quads_image.h"
uint32_t infer(const uint8_t *image, uint32_t n_bytes, uint8_t *arena, uint32_t arena_bytes,
               const int8_t *mel, int32_t *logits);
static _Alignas(16) uint8_t copy[64 * 1024];
static quads_image_model_t loaded;
uint32_t infer(const uint8_t *image, uint32_t n_bytes, uint8_t *arena, uint32_t arena_bytes,
               const int8_t *mel, int32_t *logits) {
  const quads_image_limits_t limits = {.arena_bytes = arena_bytes, .n_frames = UINT16_MAX};
  quads_t q;
  memcpy(copy, image, n_bytes);
  const quads_image_status_t status = quads_image_open(copy, n_bytes, &limits, &loaded);
  if (status != QUADS_IMAGE_OK) return status;
  return (uint32_t)(quads_init(&q, &loaded.model, arena, arena_bytes) ||
                    quads_set_features(&q, mel) || quads_infer(&q, logits, NULL));
}
""")
    source = data_dir("firmware") / "src"
    files = [tmp_path / "shim.c", *(source / f"{name}.c" for name in
             ("quads", "encoder", "image", "image_check", "sha256")),
             *sorted((source / "frontend").glob("*.c"))]  # fmt: skip
    data = np.frombuffer(image.pack(model, kernels), np.uint8)
    arena = np.zeros(planner.plan(SMALL, kernels).arena_bytes, np.uint8)
    mel, logits = features(SMALL), np.zeros(SMALL.n_classes, np.int32)
    with EmulatedKernels(core, kernels, ["infer"], files, [tmp_path]) as cores:
        outcome = cores.run([Call("infer", (data, data.size, arena, arena.size, mel, logits))])[0]
    assert ImageStatus(outcome.value) is ImageStatus.OK
    np.testing.assert_array_equal(outcome.arrays[3], Reference(model).logits(mel[None])[0])


# Images that are refused.


def test_every_damaged_byte_is_found(loader: Loader) -> None:
    data = image.pack(random_model(TINY), "plain")
    for at in range(len(data)):
        status = loader.open(patched(data, at, bytes([data[at] ^ 0x10]))).status
        expected = (
            {ImageStatus.MAGIC} if at < 4
            else {ImageStatus.VERSION} if at < 6
            else {ImageStatus.FORMAT} if at < 8
            else {ImageStatus.TRUNCATED, ImageStatus.DAMAGED} if 40 <= at < 44
            else {ImageStatus.DAMAGED}
        )  # fmt: skip
        assert status in expected, at


def test_every_truncation_is_found(loader: Loader) -> None:
    data = image.pack(random_model(TINY), "plain")
    for length in range(len(data)):
        found = loader.open(data[:length])
        assert found.status is ImageStatus.TRUNCATED, length
        assert found.allowed == length


@pytest.mark.parametrize("fill", [0x00, 0xFF])
def test_erased_slot_is_empty(loader: Loader, fill: int) -> None:
    assert loader.open(bytes([fill]) * 4096).status is ImageStatus.EMPTY
    assert loader.open(bytes([fill]) * 4095 + b"x").status is ImageStatus.EMPTY
    assert loader.open(bytes([fill]) * 100 + b"x" * 400).status is ImageStatus.MAGIC


def test_half_written_slot_is_damaged(loader: Loader, small: PackedModel) -> None:
    data = image.pack(small, "plain")
    for written in range(256, len(data), 256):
        slot = data[:written] + b"\xff" * (len(data) - written + 512)
        assert loader.open(slot).status is ImageStatus.DAMAGED


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("kernels", 1, ImageStatus.KERNELS),
        ("kernels", 255, ImageStatus.KERNELS),
        ("frontend", 1, ImageStatus.FRONTEND),
        ("n_mels", 40, ImageStatus.MELS),
        ("n_frames", 1001, ImageStatus.FRAMES),
        ("n_frames", 0, ImageStatus.SIZES),
        ("n_frames", 13, ImageStatus.SIZES),
        ("n_frames", 12, ImageStatus.CONTENTS),
        ("n_frames", 100, ImageStatus.CONTENTS),
        ("d_model", 0, ImageStatus.SIZES),
        ("d_model", 1288, ImageStatus.SIZES),
        ("d_model", 25, ImageStatus.SIZES),
        ("d_model", 48, ImageStatus.CONTENTS),
        ("n_heads", 0, ImageStatus.SIZES),
        ("n_heads", 2, ImageStatus.SIZES),
        ("n_heads", 24, ImageStatus.SIZES),
        ("n_heads", 1, ImageStatus.PLAN),  # wider heads
        ("n_layers", 0, ImageStatus.SIZES),
        ("n_layers", 1, ImageStatus.CONTENTS),
        ("n_layers", 3, ImageStatus.CONTENTS),
        ("n_layers", 9, ImageStatus.LAYERS),
        ("n_classes", 1, ImageStatus.SIZES),
        ("n_classes", 4, ImageStatus.CONTENTS),
        ("n_classes", 257, ImageStatus.CLASSES),
        ("n_slots", 0, ImageStatus.SIZES),
        ("n_slots", 1, ImageStatus.CONTENTS),
        ("n_slots", 3, ImageStatus.CONTENTS),
        ("n_slots", 17, ImageStatus.SLOTS),
        ("text_bytes", 0, ImageStatus.CONTENTS),
        ("text_bytes", 2**32 - 1, ImageStatus.CONTENTS),
        ("conv1_bits", 0, ImageStatus.CONTENTS),
        ("conv1_bits", 5, ImageStatus.CONTENTS),
        ("conv1_bits", 255, ImageStatus.CONTENTS),
        ("conv1_per_channel", 2, ImageStatus.CONTENTS),
        ("conv1_per_channel", 1, ImageStatus.CONTENTS),
        ("head_per_channel", 1, ImageStatus.CONTENTS),
        ("plan_arena_bytes", ARENA_BYTES + 1, ImageStatus.ARENA),
        ("plan_arena_bytes", 100, ImageStatus.PLAN),
        ("plan_mel", 4, ImageStatus.PLAN),
        ("plan_mel", 2**32 - 8, ImageStatus.PLAN),
        ("plan_head_workspace", 2**31, ImageStatus.PLAN),
        ("plan_conv_block", 0, ImageStatus.PLAN),
        ("plan_pool_block", 8, ImageStatus.PLAN),
        ("plan_pool_block", 65535, ImageStatus.PLAN),
        ("norm_shift", 0, ImageStatus.BOUNDS),
        ("norm_shift", 31, ImageStatus.BOUNDS),
        ("norm_epsilon", 0, ImageStatus.BOUNDS),
        ("sqrt_d", 0, ImageStatus.BOUNDS),
        ("unknown_class", -2, ImageStatus.BOUNDS),
        ("unknown_class", 3, ImageStatus.BOUNDS),
        ("position_multiplier", -1, ImageStatus.BOUNDS),
        ("position_multiplier", 2**15, ImageStatus.BOUNDS),
        ("pool_multiplier", 0, ImageStatus.BOUNDS),
        ("pool_score_multiplier", -1, ImageStatus.BOUNDS),
        ("attention_pools", 1, ImageStatus.CONTENTS),
    ],
)
def test_header_that_was_forged_is_refused(
    loader: Loader, small: PackedModel, name: str, value: int, status: ImageStatus
) -> None:
    """Each with the right SHA-256: what is left is the check that is meant."""
    found = loader.open(with_field(image.pack(small, "plain"), name, value), n_frames=1000)
    assert found.status is status
    if status in (
        ImageStatus.KERNELS,
        ImageStatus.FRONTEND,
        ImageStatus.MELS,
        ImageStatus.ARENA,
        ImageStatus.FRAMES,
        ImageStatus.LAYERS,
        ImageStatus.CLASSES,
        ImageStatus.SLOTS,
    ):
        assert found.found == value


def test_image_that_was_cut_and_hashed_again_is_refused(loader: Loader, small: PackedModel) -> None:
    data = image.pack(small, "plain")
    for length in (*range(HEADER_BYTES, 400), *range(400, len(data), 97), len(data) - 16):
        cut = rehashed(patched(data[:length], 40, struct.pack("<I", length)))
        assert loader.open(cut).status is ImageStatus.CONTENTS, length
    longer = rehashed(patched(data + bytes(16), 40, struct.pack("<I", len(data) + 16)))
    assert loader.open(longer).status is ImageStatus.CONTENTS


@pytest.mark.parametrize("change", [-1, 1])
def test_root_of_d_model_is_exact(loader: Loader, small: PackedModel, change: int) -> None:
    data = image.pack(small, "plain")
    assert loader.open(data).status is ImageStatus.OK
    wrong = with_field(data, "sqrt_d", field(data, "sqrt_d") + change)
    assert loader.open(wrong).status is ImageStatus.BOUNDS


@given(
    n_mels=st.just(8), n_frames=st.integers(0, 3100), d_model=st.integers(0, 1400),
    n_heads=st.integers(0, 25), n_layers=st.integers(0, 8), n_classes=st.integers(0, 256),
)  # fmt: skip
def test_sizes_are_judged_as_in_python(loader: Loader, **sizes: int) -> None:
    data = image.pack(random_model(TINY), "plain")
    for name, value in sizes.items():
        data = with_field(data, name, value)
    possible = Dimensions(**sizes).problem() is None
    assert (loader.open(data).status is not ImageStatus.SIZES) == possible


def test_plan_of_tensors_on_top_of_each_other_is_refused(
    loader: Loader, small: PackedModel
) -> None:
    """Each tensor is moved to where another one is that the same step of the encoder needs."""
    data = image.pack(small, "plain")
    tensors = planner.plan(SMALL, "plain").tensors
    moved = 0
    for one in tensors:
        for other in tensors:
            fits = other.offset + one.bytes <= field(data, "plan_arena_bytes")
            if one is not other and one.steps & other.steps and fits:
                wrong = with_field(data, f"plan_{one.name}", other.offset)
                assert loader.open(wrong).status is ImageStatus.PLAN, (one.name, other.name)
                moved += 1
    assert moved > 50


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kernels", ["plain"])
def test_every_plan_fits_to_the_byte(loader: Loader, kernels: str, seed: int) -> None:
    rng = random.Random(seed)
    heads = rng.randint(1, 4)
    dims = Dimensions(8, 2 * rng.randint(1, 60), 8 * heads * rng.randint(1, 4), heads, 1, 3)
    data = image.pack(random_model(dims, seed=seed), kernels)
    arena_bytes = field(data, "plan_arena_bytes")
    assert loader.open(data, arena_bytes=arena_bytes).status is ImageStatus.OK
    found = loader.open(data, arena_bytes=arena_bytes - 1)
    assert found == Opened(ImageStatus.ARENA, arena_bytes, arena_bytes - 1)
    smaller = with_field(data, "plan_arena_bytes", arena_bytes - 8)
    assert loader.open(smaller).status is ImageStatus.PLAN


def tensor_at(model: PackedModel, name: str) -> int:
    """Where a tensor lies, counted independently."""
    data_at = HEADER_BYTES + 30 * model.dims.n_layers + 2 * len(model.slots)
    data_at += sum(len(text.encode()) + 1 for s in model.slots for text in (s.name, *s.labels))
    for other, tensor in csource.packed_tensors(model, "plain").items():
        data_at += -data_at % 16
        if other == name:
            return data_at
        data_at += tensor.nbytes
    raise KeyError(name)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("conv2.bias", struct.pack("<i", 2**31 - 1)),
        ("layers.1.feed_forward_2.bias", struct.pack("<i", -(2**31))),
        ("head.bias", struct.pack("<i", 2**31 - 1)),
        ("conv1.multiplier", struct.pack("<i", -1)),
        ("layers.0.key.multiplier", struct.pack("<i", -(2**31))),
        ("norm.beta", struct.pack("<i", 2**31 - 1)),
        ("layers.1.attention_norm.beta", struct.pack("<i", -(2**31))),
        ("layers.0.feed_forward_norm.gamma", struct.pack("<h", -(2**15)) * 24),
    ],
)
def test_tensor_that_breaks_a_bound_is_refused(
    loader: Loader, small: PackedModel, name: str, new: bytes
) -> None:
    if name.endswith("gamma"):  # at its greatest within bounds while beta is small
        new = new[:48]
        norm = small.layers[0].feed_forward_norm
        beta = norm.beta.copy()
        beta[:] = 2**31 - 1 - 2**15 * (6 << 10) - (1 << norm.shift - 1) + 1
        data = image.pack(small, "plain")
        at = tensor_at(small, "layers.0.feed_forward_norm.beta")
        data = patched(data, at, beta.astype("<i4").tobytes())
    else:
        data = image.pack(small, "plain")
    wrong = rehashed(patched(data, tensor_at(small, name), new))
    assert loader.open(wrong).status is ImageStatus.BOUNDS


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("score_multiplier", -1, ImageStatus.BOUNDS),
        ("value_multiplier", 0, ImageStatus.BOUNDS),
        ("value_multiplier", 1 << 24, ImageStatus.BOUNDS),
        ("attention_norm_epsilon", 0, ImageStatus.BOUNDS),
        ("feed_forward_norm_shift", 31, ImageStatus.BOUNDS),
        ("query_bits", 1, ImageStatus.CONTENTS),
        ("feed_forward_2_per_channel", 7, ImageStatus.CONTENTS),
    ],
)
def test_layer_record_that_was_forged_is_refused(
    loader: Loader, small: PackedModel, name: str, value: int, status: ImageStatus
) -> None:
    size = next(SIZE[f.type] for f in LAYER if f.name == name)
    data = image.pack(small, "plain")
    at = HEADER_BYTES + 30 + LAYER_POSITION[name]  # of the second layer
    wrong = rehashed(patched(data, at, (value % 256**size).to_bytes(size, "little")))
    assert loader.open(wrong).status is status


@pytest.mark.parametrize(
    "texts",
    [
        b"intent\0a\0b\0\0slot\0c\0d\0",  # an empty label
        b"\0a\0b\0c\0slot\0d\0e\0",  # an empty name
        b"intent\0a\0b\0c\0slot\0d\0eee",  # no end
        b"intent\0a\0b\0c\0slot\0d\0e\0f\0",  # one too many
        b"\0" * 20,
    ],
)
def test_texts_that_do_not_fit_the_slots_are_refused(
    loader: Loader, small: PackedModel, texts: bytes
) -> None:
    data = image.pack(small, "plain")
    at, size = HEADER_BYTES + 60 + 4, field(data, "text_bytes")
    filled = texts[:-1].ljust(size - 1, b"z") + texts[-1:] if len(texts) < size else texts[:size]
    wrong = rehashed(patched(data, at, filled))
    assert loader.open(wrong).status is ImageStatus.CONTENTS


def test_slots_of_one_label_are_refused(loader: Loader, small: PackedModel) -> None:
    data = image.pack(small, "plain")
    for sizes in ((4, 1), (5, 0), (0, 5), (2, 2), (65535, 6), (3, 3)):
        wrong = rehashed(patched(data, HEADER_BYTES + 60, struct.pack("<2H", *sizes)))
        assert loader.open(wrong).status is ImageStatus.CONTENTS, sizes


def test_fuzzed_images_never_crash(loader: Loader, small: PackedModel) -> None:
    """Random mutations with the right SHA-256; what is accepted runs, sanitizers watching."""
    rng = random.Random(0)
    sources = [image.pack(small, "plain"), image.pack(random_model(TINY, seed=3), "plain")]
    verdicts: dict[ImageStatus, int] = {}
    for _ in range(4000):
        data = bytearray(rng.choice(sources))
        front = rng.random() < 0.8
        for _ in range(rng.choice([1, 1, 2, 8, 40])):
            at = rng.randrange(40, 330 if front else len(data))
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        if rng.random() < 0.2:
            del data[rng.randrange(HEADER_BYTES, len(data)) :]
        data[40:44] = struct.pack("<I", len(data))
        found = loader.open(rehashed(bytes(data)), n_frames=400)
        verdicts[found.status] = verdicts.get(found.status, 0) + 1
    assert ImageStatus.DAMAGED not in verdicts and ImageStatus.EMPTY not in verdicts
    reached = {ImageStatus.OK, ImageStatus.CONTENTS, ImageStatus.SIZES, ImageStatus.PLAN,
               ImageStatus.BOUNDS, ImageStatus.ARENA, ImageStatus.KERNELS}  # fmt: skip
    assert reached <= set(verdicts)


# What C knows of the kernels' sizes.


@pytest.mark.parametrize("kernels", variants.KERNELS)
def test_sizes_of_the_kernels_are_those_of_the_planner(kernels: str, tmp_path: Path) -> None:
    (tmp_path / "quads_format.h").write_text(csource.render_format())
    sizes = next(p for p in kernel_sources(kernels) if p.stem == "quads_kernel_sizes")
    library = compile_shared([sizes], [tmp_path, FIRMWARE / "include", FIRMWARE / "src"], tmp_path)
    known = variants.kernels(kernels)

    def c(name: str, *values: int) -> int:
        function = getattr(library, name)
        function.restype = ctypes.c_size_t
        return int(function(*map(ctypes.c_size_t, values)))

    rng = random.Random(1)
    for _ in range(300):
        rows, n_in, n_out = rng.randint(1, 1500), 8 * rng.randint(1, 640), rng.randint(1, 5120)
        bits, d_head, heads = rng.choice(model_format.BITS), 8 * rng.randint(1, 20), 3
        assert c("quads_index_bytes", n_out, n_in, bits) == known.index_bytes(n_out, n_in, bits)
        assert c("quads_linear_bytes", rows, n_in) == known.linear_bytes(rows, n_in)
        assert c("quads_head_bytes", n_in) == known.head_bytes(n_in)
        assert c("quads_attention_bytes", rows, d_head, heads * d_head) == known.attention_bytes(
            rows, d_head, heads * d_head
        )

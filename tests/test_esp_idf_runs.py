"""The port to ESP-IDF, executed on this PC with fakes of ESP-IDF's functions (esp_idf/fake_idf.c).

The project is the exported one, compiled by its own CMake files: test server, listening between
tests, model slots and the second core, against the references. What this leaves open: ESP-IDF
itself, the chips' peripherals, and their time.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO

import numpy as np
import pytest
from c_build import STRICT_FLAGS, require_tool
from esp_idf_project import HERE, compile_all, configure, exported, settings
from firmware_build import DIMS, model
from numpy.typing import NDArray
from random_model import random_model
from test_listener import RECORDINGS

from quads_mcu.audio import frontend
from quads_mcu.config import Config
from quads_mcu.device import update
from quads_mcu.device.client import Client
from quads_mcu.device.link import Link
from quads_mcu.errors import ProtocolError
from quads_mcu.export import image, listener
from quads_mcu.export.listener import GateSettings
from quads_mcu.export.reference import Reference
from quads_mcu.model_format import PackedModel

BOARDS = {"esp32": False, "esp32s3": True}  # whether the link is USB; both have two cores
SLOT_BYTES = 0x3_0000
BUFFER_SAMPLES = 256
NOTHING = np.zeros(0, np.int16)
PIN = 7
SETTINGS = GateSettings.of(Config().listen)
LINE = re.compile(r"(.*:) (.*) \(\d+ ms of speech, answered \d+ ms after its end\)")

Board = tuple[str, IO[str]]  # address, and what it writes
Start = Callable[..., contextlib.AbstractContextManager[Board]]


@pytest.fixture(scope="module", params=BOARDS)
def board(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def start(board: str, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Return a context manager that runs the project and gives its port and its output."""
    folder = tmp_path_factory.mktemp("esp-idf")
    build = folder / "build"
    values = settings(usb=BOARDS[board], both_cores=True, pie=False)
    project = exported(board, "bin")
    done = configure(project, build, values)
    assert done.returncode == 0, done.stderr
    compile_all(build)
    program = folder / "program"
    command = [require_tool("gcc"), *STRICT_FLAGS, "-D_GNU_SOURCE", f"-I{HERE / 'include'}"]
    command += [f"-I{build}", str(HERE / "fake_idf.c"), *map(str, sorted(build.rglob("*.obj")))]
    linked = subprocess.run(
        [*command, "-pthread", "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert linked.returncode == 0, linked.stderr
    packed = project / "components" / "quads" / "model" / "model.bin"

    @contextlib.contextmanager
    def run(
        pcm: NDArray[np.int16] = NOTHING, lose: int = -1, flashed: bytes | None = None
    ) -> Iterator[Board]:
        (folder / "pcm").write_bytes(pcm.tobytes())
        (folder / "flashed").write_bytes(packed.read_bytes() if flashed is None else flashed)
        arguments = [str(SLOT_BYTES), str(folder / "flashed"), str(folder / "pcm"), str(lose)]
        with subprocess.Popen(
            [str(program), *arguments], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                lines = [process.stdout.readline().split() for _ in range(3)]
                assert lines[:2] == [["gpio", str(PIN), "1"], ["gpio", str(PIN), "0"]]
                assert lines[2][0] == "port"
                yield f"127.0.0.1:{lines[2][1]}", process.stdout
                assert process.poll() is None
            finally:
                process.kill()

    return run


@contextlib.contextmanager
def connected(address: str) -> Iterator[Client]:
    with Link(f"socket://{address}") as link:
        yield Client(link)


def test_server_is_bit_equal_and_names_itself(start: Start, board: str) -> None:
    rng = np.random.default_rng(2)
    pcm = (rng.normal(size=DIMS.n_frames * 160) * 2000).astype(np.int16)
    mel = rng.integers(-128, 128, (DIMS.n_frames, DIMS.n_mels)).astype(np.int8)
    features = frontend.features(pcm, DIMS.n_mels, DIMS.n_frames)
    logits = Reference(model()).logits(np.stack([features, mel]))
    with start() as (address, _), connected(address) as client:
        hello = client.check(model().model_hash)
        assert (hello.board, hello.stack_bytes) == (board, 6144 + 512)
        assert hello.build_id != bytes(8).hex()
        client.send_pcm(pcm)
        np.testing.assert_array_equal(client.features(), features)
        np.testing.assert_array_equal(client.infer().logits, logits[0])
        client.send_features(mel)
        np.testing.assert_array_equal(client.infer().logits, logits[1])
        assert client.stats().stack_used_bytes == 6144 + 512 - 1000


def heard(address: str, n_lines: int) -> list[str]:
    """Return what the board prints while nobody asks it anything."""
    host, port = address.split(":")
    text = b""
    with socket.create_connection((host, int(port)), timeout=60) as line:
        while text.count(b"\n") < n_lines:
            text += line.recv(4096)
    return text.decode().splitlines()


@functools.cache
def choosy() -> PackedModel:
    """The project's model with a threshold that accepts about half of what is heard."""
    sounds = [listener.listen(model(), RECORDINGS[name], SETTINGS) for name in ("noise", "loud")]
    scores = [
        int(logits[answers[0]] - logits[model().unknown_class])
        for sound in sounds
        for logits, answers in zip(sound.logits, sound.answers, strict=True)
    ]
    return replace(model(), reject_threshold=sorted(scores)[len(scores) // 2])


def expected(pcm: NDArray[np.int16]) -> list[tuple[str, str]]:
    """Return what the twin hears: kind and labels."""
    found = listener.listen(choosy(), pcm, SETTINGS)
    kinds = ["not a command, perhaps:" if rejected else "heard:" for rejected in found.rejected]
    labels = [
        " ".join(slot.labels[answer] for slot, answer in zip(choosy().slots, row, strict=True))
        for row in found.answers.tolist()
    ]
    return list(zip(kinds, labels, strict=True))


@pytest.mark.parametrize("name", ["noise", "loud"])
def test_listening_hears_what_the_twin_hears_and_toggles_pins(start: Start, name: str) -> None:
    pcm = RECORDINGS[name]
    pcm = pcm[: len(pcm) // BUFFER_SAMPLES * BUFFER_SAMPLES]
    wanted = expected(pcm)
    assert len(wanted) >= 4
    with start(pcm, flashed=image.pack(choosy(), "esp")) as (address, output):
        lines = heard(address, 1 + len(wanted))
        assert lines[0] == "listening"
        found = [LINE.fullmatch(line) for line in lines[1:]]
        assert [match and (match[1], match[2]) for match in found] == wanted
        first = model().slots[0].labels[0]
        toggles = sum(kind == "heard:" and text.split()[0] == first for kind, text in wanted)
        levels = [output.readline().split() for _ in range(toggles)]
        assert levels == [["gpio", str(PIN), str((i + 1) % 2)] for i in range(toggles)]


def test_commands_and_rejections_occur() -> None:
    kinds = {kind for name in ("noise", "loud") for kind, _ in expected(RECORDINGS[name])}
    assert kinds == {"heard:", "not a command, perhaps:"}


def test_a_host_interrupts_listening_and_it_goes_on_later(start: Start) -> None:
    with start(RECORDINGS["noise"]) as (address, _):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as line:
            text = b""
            while b"\n" not in text:
                text += line.recv(4096)
            assert text.startswith(b"listening\r\n")
            line.sendall(b"\x00")
            text = b""
            while b"listening\r\n" not in text:
                text += line.recv(4096)
        with connected(address) as client:
            client.check(model().model_hash)
            client.send_features(np.zeros((DIMS.n_frames, DIMS.n_mels), np.int8))
            assert client.infer().logits.shape == (DIMS.n_classes,)


def test_lost_audio_is_no_end_of_listening(start: Start) -> None:
    pcm = RECORDINGS["noise"]
    lose = 300  # at 4.8 s
    rest = listener.listen(
        model(), pcm[(lose + 1) * BUFFER_SAMPLES :], GateSettings.of(Config().listen)
    )
    with start(pcm, lose) as (address, _):
        lines = heard(address, 1 + len(rest.utterances))
        assert len(lines) >= 1 + len(rest.utterances) and lines[0] == "listening"


# --- model slots ------------------------------------------------------------------------------


def test_another_model_is_sent_into_the_other_slot_and_runs(start: Start) -> None:
    other = random_model(DIMS, seed=77)
    mel = np.random.default_rng(1).integers(-128, 128, (1, DIMS.n_frames, DIMS.n_mels))
    mel = mel.astype(np.int8)
    with start() as (address, _), connected(address) as client:
        client.check(model().model_hash)
        update.update_model(client, image.pack(other, "esp"))
        client.check(other.model_hash)
        client.send_features(mel[0])
        np.testing.assert_array_equal(client.infer().logits, Reference(other).logits(mel)[0])
        update.update_model(client, image.pack(model(), "esp"))
        client.check(model().model_hash)


@pytest.mark.parametrize("damage", ["empty", "a bit"])
def test_without_a_valid_model_it_says_why_and_takes_one(start: Start, damage: str) -> None:
    packed = bytearray(image.pack(model(), "esp"))
    packed[-1000] ^= 1
    flashed = bytes(packed) if damage == "a bit" else b"\xff" * 64
    with start(flashed=flashed) as (address, _):
        assert "no valid model" in heard(address, 1)[0]
        with connected(address) as client:
            with pytest.raises(ProtocolError):
                client.hello()
            update.update_model(client, image.pack(model(), "esp"))
            client.check(model().model_hash)

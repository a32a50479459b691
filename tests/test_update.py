"""Another model over the serial port: whole round trips with firmware that runs as a process.

The host firmware is built with sanitizers; its slots are a file, which outlives the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from firmware_build import require
from numpy.typing import NDArray
from random_model import random_model
from typer.testing import CliRunner

from quads_mcu import cli, image_format, model_format
from quads_mcu.audio import frontend
from quads_mcu.device import boards, build, flash
from quads_mcu.device.client import Client, RefusedError
from quads_mcu.device.link import DroppedError, Link
from quads_mcu.device.update import ModelInfo, model_info, update_model
from quads_mcu.errors import LinkError, ModelFormatError, ProtocolError
from quads_mcu.export import csource, image
from quads_mcu.export.reference import Reference, decide
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedModel
from quads_mcu.protocol import ImageStatus, Status
from quads_mcu.run_dir import RunDir
from quads_mcu.slots import Slot

SLOT_BYTES = 64 * 1024
ARENA_BYTES = 20_000
PCM = (np.random.default_rng(5).normal(size=6000) * 4000).astype(np.int16)


def a_model(seed: int, **sizes: int) -> PackedModel:
    known = {"n_mels": 40, "n_frames": 40, "d_model": 32, "n_heads": 2, "n_layers": 2}
    dims = Dimensions(**known | {"n_classes": 5} | sizes)
    return random_model(dims, bits=(4, 3, 2)[seed % 3], seed=seed)


# The one compiled in, and three to send: other labels, other sizes, other slots.
BUILT = a_model(0)
FIRST = dataclasses.replace(
    a_model(1), slots=(Slot("intent", ("an", "aus")), Slot("raum", ("küche", "bad", "flur")))
)
SECOND = a_model(2, n_frames=50, d_model=48, n_heads=3, n_layers=3, n_classes=9)
THIRD = a_model(3, n_frames=30, d_model=16, n_layers=1, n_classes=2)


def with_defines(board: boards.Board, **defines: int) -> boards.Board:
    return dataclasses.replace(board, defines=MappingProxyType({**board.defines, **defines}))


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Host firmware with room for larger models than the one compiled in."""
    out = tmp_path_factory.mktemp("update")
    board = with_defines(boards.load("host"), QUADS_ARENA_BYTES=ARENA_BYTES)
    require(board)
    csource.write_sources(BUILT, out / "source")
    return build.build(board, out / "source", out / "build", sanitize=True).elf


class Board:
    """Host firmware and the file of its slots; starts and dies any number of times."""

    def __init__(self, elf: Path, slots: Path) -> None:
        self.elf, self.slots = elf, slots
        slots.write_bytes(b"\xff" * 2 * SLOT_BYTES)

    @contextlib.contextmanager
    def power(self) -> Iterator[str]:
        """Run the firmware; yield the URL of its link."""
        command = [str(self.elf), "--tcp", "0", "--model-slots", str(self.slots)]
        with flash.Session(boards.load("host"), command) as self.session:
            yield self.session.url
            assert "Sanitizer" not in self.session.output(), self.session.output()

    @contextlib.contextmanager
    def start(self) -> Iterator[Client]:
        with self.power() as url, Link(url) as link:
            yield Client(link, timeout_s=1.0, compute_timeout_s=5.0)

    def kill(self) -> None:
        self.session._process.kill()
        self.session._process.wait()

    def damage(self, slot: int, at: int = 3000) -> None:
        data = bytearray(self.slots.read_bytes())
        data[slot * SLOT_BYTES + at] ^= 4
        self.slots.write_bytes(data)


@pytest.fixture
def board(elf: Path, tmp_path: Path) -> Board:
    return Board(elf, tmp_path / "slots")


def packed(model: PackedModel, sequence: int = 0) -> bytes:
    return image.pack(model, "plain", sequence)


def assert_runs(client: Client, model: PackedModel) -> None:
    """Identity, features and logits are those of the model's reference."""
    hello = client.check(model.model_hash)
    assert hello.slots == tuple(len(slot.labels) for slot in model.slots)
    assert (hello.n_frames, hello.n_classes) == (model.dims.n_frames, model.dims.n_classes)
    client.send_pcm(PCM)
    mel = client.features()
    np.testing.assert_array_equal(mel, expected_features(model))
    found = client.infer()
    np.testing.assert_array_equal(found.logits, Reference(model).logits(mel[None])[0])
    answers, rejected = decide(model, found.logits[None])
    assert (found.answers.tolist(), found.rejected) == (answers[0].tolist(), bool(rejected[0]))
    assert len(client.layers()) == model.dims.n_layers + 2
    assert client.stats().arena_used_bytes <= hello.arena_bytes


def expected_features(model: PackedModel) -> NDArray[np.int8]:
    return frontend.features(PCM, model.dims.n_mels, model.dims.n_frames)


def begin(client: Client, data: bytes) -> int:
    """Begin by hand; return the offset that is expected next."""
    model_info(client)  # the client learns how much the board takes
    answer = client.request("model_begin", {"header": data[: image_format.HEADER_BYTES]})
    assert isinstance(answer["next_offset_bytes"], int)
    return answer["next_offset_bytes"]


def send(client: Client, data: bytes, offset: int = 0, size: int = 768) -> None:
    for at in range(offset, len(data), size):
        part = {"offset_bytes": at, "data": data[at : at + size]}
        assert client.request("model_data", part) == {
            "next_offset_bytes": at + len(data[at : at + size])
        }


def statuses(info: ModelInfo) -> list[ImageStatus]:
    return [slot.status for slot in info.slots]


# Round trips.


def test_empty_board_gets_one_model_after_another(board: Board) -> None:
    with board.start() as client:
        info = model_info(client)
        assert (info.running, statuses(info)) == (None, [ImageStatus.EMPTY] * 2)
        assert [slot.slot_bytes for slot in info.slots] == [SLOT_BYTES] * 2
        steps: list[tuple[str, float, float]] = []
        for index, model in enumerate((FIRST, SECOND, THIRD)):
            steps.clear()
            found = update_model(client, packed(model), lambda *step: steps.append(step))
            assert (found.slot, found.sequence) == (index % 2, index + 1)
            assert found.n_bytes == len(packed(model))
            assert steps[-1] == ("sending the model", found.n_bytes, found.n_bytes)
            assert [done for _, done, _ in steps] == sorted({done for _, done, _ in steps})
            assert_runs(client, model)
        info = model_info(client)
        assert info.running == 0 and info.slots[1].model_hash == SECOND.model_hash
    with board.start() as client:
        assert_runs(client, THIRD)


def test_update_in_the_middle_of_an_utterance(board: Board) -> None:
    with board.start() as client:
        update_model(client, packed(SECOND))
        client.send_pcm(PCM)
        update_model(client, packed(FIRST))
        with pytest.raises(ProtocolError, match="infer: no complete window"):
            client.infer()
        assert_runs(client, FIRST)


def test_model_that_runs_already_is_not_written_again(board: Board) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        before = board.slots.read_bytes()
        found = update_model(client, packed(FIRST, sequence=77))
        assert (found.slot, found.sequence, found.n_bytes) == (0, 1, 0)
        assert board.slots.read_bytes() == before


def test_image_in_the_slots_needs_no_update(board: Board) -> None:
    """As a flasher leaves it: written to a slot of a board that is off."""
    data = packed(SECOND, sequence=9)
    board.slots.write_bytes(b"\xff" * SLOT_BYTES + data + b"\xff" * (SLOT_BYTES - len(data)))
    with board.start() as client:
        assert model_info(client).running == 1
        assert_runs(client, SECOND)
        assert update_model(client, packed(FIRST)).sequence == 10


@pytest.mark.parametrize(
    ("numbers", "running"),
    [((1, 2), 1), ((2, 1), 0), ((5, 5), 0), ((2**32 - 1, 0), 0), ((0, 2**31), 1)],
)
def test_greater_sequence_number_runs(board: Board, numbers: tuple[int, int], running: int) -> None:
    parts = (packed(model, n) for model, n in zip((FIRST, SECOND), numbers, strict=True))
    board.slots.write_bytes(b"".join(part.ljust(SLOT_BYTES, b"\xff") for part in parts))
    with board.start() as client:
        assert model_info(client).running == running
        assert_runs(client, (FIRST, SECOND)[running])


def test_last_sequence_number_has_no_successor(board: Board) -> None:
    board.slots.write_bytes(packed(FIRST, 2**32 - 1).ljust(2 * SLOT_BYTES, b"\xff"))
    with board.start() as client:
        with pytest.raises(ProtocolError, match="last sequence number"):
            update_model(client, packed(SECOND))
        assert_runs(client, FIRST)


def test_slots_larger_than_what_an_image_leaves_are_filled_to_the_end(
    elf: Path, tmp_path: Path
) -> None:
    data = packed(SECOND)
    board = Board(elf, tmp_path / "slots")
    board.slots.write_bytes(b"\xff" * 2 * len(data))
    with board.start() as client:
        update_model(client, packed(SECOND))
        update_model(client, packed(FIRST))
        assert_runs(client, FIRST)
    board.slots.write_bytes(b"\xff" * (2 * len(data) - 32))
    with board.start() as client:
        text = (
            rf"longer than the bytes that are there \(found {len(data)}, allowed {len(data) - 16}"
        )
        with pytest.raises(ProtocolError, match=text):
            update_model(client, packed(SECOND))


def test_command_line_updates_a_board_that_runs(board: Board, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    model_format.write(SECOND, run.model_path)
    with board.power() as url:
        options = ["--run", str(run.path), "--target", "host", "--port", url]
        done = CliRunner().invoke(cli.app, ["flash", "--model-only", "--running", *options])
        assert done.exit_code == 0, done.output
        assert f"runs model {SECOND.model_hash[:12]} from slot 0" in " ".join(done.stderr.split())
        with Link(url) as link:
            assert_runs(Client(link), SECOND)


# Nothing to run.


def test_without_a_model_everything_else_says_why(board: Board) -> None:
    with board.start() as client:
        for call in (client.hello, client.infer, client.stats, client.layers):
            with pytest.raises(
                RefusedError, match=r"no valid model \(slot 0: empty; slot 1: empty"
            ):
                call()
        assert model_info(client).running is None


def test_two_damaged_models_leave_a_board_that_can_be_helped(board: Board) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        update_model(client, packed(SECOND))
    board.damage(0)
    data = bytearray(board.slots.read_bytes())
    data[SLOT_BYTES] ^= 1
    board.slots.write_bytes(data)
    with board.start() as client:
        with pytest.raises(
            ProtocolError, match=r"slot 0: damaged: .*SHA-256; slot 1: not a model image"
        ):
            client.hello()
        assert statuses(model_info(client)) == [ImageStatus.DAMAGED, ImageStatus.MAGIC]
        update_model(client, packed(THIRD))
        assert_runs(client, THIRD)


def test_newest_model_damaged_at_rest_gives_way_to_the_other(board: Board) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        update_model(client, packed(SECOND))
    board.damage(1)
    with board.start() as client:
        info = model_info(client)
        assert (info.running, statuses(info)) == (0, [ImageStatus.OK, ImageStatus.DAMAGED])
        assert_runs(client, FIRST)
        assert update_model(client, packed(THIRD)).slot == 1
    with board.start() as client:
        assert_runs(client, THIRD)


def test_older_model_damaged_at_rest_is_not_missed(board: Board) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        update_model(client, packed(SECOND))
    board.damage(0)
    with board.start() as client:
        assert_runs(client, SECOND)


# Interrupted.


@pytest.mark.parametrize("pieces", [0, 1, 2, 5, -1])
def test_killed_while_it_receives_the_old_model_runs(board: Board, pieces: int) -> None:
    data = packed(SECOND)
    total = -(-len(data) // 768)
    last = pieces if pieces >= 0 else total
    with board.start() as client:
        update_model(client, packed(FIRST))
        new = image.with_sequence(data, 2)
        begin(client, new)
        send(client, new[: last * 768])
        assert_runs(client, FIRST)  # meanwhile
        board.kill()
    with board.start() as client:
        info = model_info(client)
        assert (info.running, statuses(info)) == (0, [ImageStatus.OK, ImageStatus.EMPTY])
        assert_runs(client, FIRST)
        update_model(client, data)
        assert_runs(client, SECOND)


def test_killed_right_after_the_end_the_new_model_runs(board: Board) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        update_model(client, packed(SECOND))
        board.kill()
    with board.start() as client:
        assert_runs(client, SECOND)


@pytest.mark.parametrize("kept", [1, 100, 220, 221, 255])
def test_power_lost_while_the_first_bytes_are_written(board: Board, kept: int) -> None:
    """They come last; whatever part of them got there, the old model runs."""
    with board.start() as client:
        update_model(client, packed(FIRST))
        update_model(client, packed(SECOND))
    data = bytearray(board.slots.read_bytes())
    data[SLOT_BYTES + kept : SLOT_BYTES + 256] = b"\xff" * (256 - kept)
    board.slots.write_bytes(data)
    with board.start() as client:
        assert model_info(client).running == 0
        assert_runs(client, FIRST)


# pyserial leaves a socket open whose other end is gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_board_is_reported_and_can_be_updated_again(board: Board) -> None:
    def kill_half_way(_: str, done: float, total: float) -> None:
        if done > total / 2:
            board.kill()

    with board.start() as client:
        update_model(client, packed(FIRST))
        with pytest.raises(LinkError):
            update_model(client, packed(SECOND), kill_half_way)
    with board.start() as client:
        assert_runs(client, FIRST)


class Dropping(Link):
    """A link that is dropped at its n-th writes."""

    def __init__(self, url: str, drops: set[int]) -> None:
        super().__init__(url)
        self.drops, self.writes, self.sent = drops, 0, 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.sent += len(data)
        if self.writes in self.drops:
            self.close()
            raise DroppedError("dropped")
        super().write(data)


@pytest.mark.parametrize("drops", [{1}, {2}, {3}, {4}, {4, 9, 14}, {30}])
def test_dropped_link_goes_on_where_it_was(board: Board, drops: set[int]) -> None:
    data = packed(SECOND)
    with board.power() as url, Dropping(url, drops) as link:
        client = Client(link, timeout_s=1.0, compute_timeout_s=5.0)
        if drops == {1}:
            with pytest.raises(DroppedError):  # nothing has begun
                update_model(client, data)
            return
        update_model(client, data)
        assert link.sent < 1.1 * len(data) + 4000
        assert_runs(client, SECOND)


def test_answer_to_the_end_lost(board: Board) -> None:
    """The board has changed over; the client finds out instead of sending all of it again."""
    data = packed(SECOND)
    pieces = -(-len(data) // 768)

    class Deaf(Dropping):
        def write(self, sent: bytes) -> None:
            Link.write(self, sent)
            self.writes += 1
            self.sent += len(sent)
            if self.writes == 2 + pieces + 1:  # info, begin, pieces, end
                self.read(1.0)
                self.close()

    with board.power() as url, Deaf(url, set()) as link:
        client = Client(link, timeout_s=1.0, compute_timeout_s=5.0)
        assert update_model(client, data).sequence == 1
        assert link.sent < 1.1 * len(data) + 4000
        assert_runs(client, SECOND)


def test_link_that_always_drops_is_an_error(board: Board) -> None:
    with (
        board.power() as url,
        Dropping(url, {3, 6, 9, 12, 15, 18}) as link,
        pytest.raises(DroppedError),
    ):
        update_model(Client(link), packed(SECOND))


# Refused.


@pytest.mark.parametrize(
    ("data", "text", "status"),
    [
        (image.pack(SECOND, "dsp"), "packed for other kernels", ImageStatus.KERNELS),
        (packed(dataclasses.replace(SECOND, frontend="fixed")), "another arithmetic",
         ImageStatus.FRONTEND),
        (packed(a_model(1, n_mels=48)), r"mel bands .*found 48, allowed 40", ImageStatus.MELS),
        (packed(a_model(1, n_frames=600)), rf"arena bytes .*allowed {ARENA_BYTES}",
         ImageStatus.ARENA),
        (packed(a_model(1, d_model=8, n_heads=1, n_layers=9)), "found 9, allowed 8",
         ImageStatus.LAYERS),
        (packed(a_model(1, n_classes=257)), "found 257, allowed 256", ImageStatus.CLASSES),
    ],
)  # fmt: skip
def test_model_that_cannot_run_here_is_refused_before_anything_is_erased(
    board: Board, data: bytes, text: str, status: ImageStatus
) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        update_model(client, packed(THIRD))
        before = board.slots.read_bytes()
        with pytest.raises(
            RefusedError, match=f"model_begin: model image refused: .*{text}"
        ) as why:
            update_model(client, data)
        assert why.value.status == Status.IMAGE + status
        assert board.slots.read_bytes() == before
        assert_runs(client, THIRD)


def test_damaged_file_does_not_leave_the_host(board: Board) -> None:
    data = bytearray(packed(FIRST))
    data[1000] ^= 1
    with board.start() as client, pytest.raises(ModelFormatError, match="damaged"):
        update_model(client, bytes(data))


def rehashed(data: bytes) -> bytes:
    return data[:8] + hashlib.sha256(data[40:]).digest() + data[40:]


@pytest.mark.parametrize("repeated", [False, True])
def test_bytes_damaged_on_the_way_are_found_on_the_board(board: Board, repeated: bool) -> None:
    data = packed(SECOND, 2)
    wrong = data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
    with board.start() as client:
        update_model(client, packed(FIRST))
        begin(client, data)
        send(client, wrong)
        for _ in range(2 if repeated else 1):  # the reason stays until the next attempt
            with pytest.raises(RefusedError, match="refused: damaged") as why:
                client.request("model_end", {})
            assert why.value.status == Status.IMAGE + ImageStatus.DAMAGED
        assert statuses(model_info(client)) == [ImageStatus.OK, ImageStatus.DAMAGED]
        assert_runs(client, FIRST)
        update_model(client, data)
        assert_runs(client, SECOND)


def test_contents_that_no_model_has_are_found_on_the_board(board: Board) -> None:
    """The SHA-256 is right, a layer has weights of 5 bits."""
    data = bytearray(packed(SECOND, 2))
    data[image_format.HEADER_BYTES + 18] = 5
    wrong = rehashed(bytes(data))
    with board.start() as client:
        update_model(client, packed(FIRST))
        with pytest.raises(ProtocolError, match="refused: tables, texts and tensors"):
            update_model(client, wrong)
        assert_runs(client, FIRST)


@pytest.mark.parametrize("sequence", [0, 1])
def test_older_image_does_not_count_and_is_refused(board: Board, sequence: int) -> None:
    with board.start() as client:
        update_model(client, packed(FIRST))
        with pytest.raises(ProtocolError, match=f"value {sequence} out of range, limit 2"):
            begin(client, packed(SECOND, sequence))
        assert_runs(client, FIRST)


def test_requests_out_of_order_are_refused(board: Board) -> None:
    data = packed(SECOND, 3)
    with board.start() as client:
        model_info(client)
        nothing = {"offset_bytes": 0, "data": data[:256]}
        with pytest.raises(ProtocolError, match="no whole model received: 0 of 0 bytes"):
            client.request("model_data", nothing)
        with pytest.raises(ProtocolError, match="no whole model received"):
            client.request("model_end", {})
        for header in (b"", data[:100], data[:222]):
            with pytest.raises(
                ProtocolError, match=f"payload of {len(header)} bytes, expected 221"
            ):
                client.request("model_begin", {"header": header})
        assert begin(client, data) == 0
        send(client, data[:768])
        for offset, size, text in (
            (1024, 256, "chunk at offset 1024, expected 768"),
            (512, 512, "chunk at offset 512, expected 768"),
            (768, 300, "payload of 300 bytes, expected 256"),
            (768, 1, "payload of 1 bytes, expected 0"),
            (2**32 - 256, 256, "expected 768"),
        ):
            with pytest.raises(ProtocolError, match=text):
                client.request("model_data", {"offset_bytes": offset, "data": bytes(size)})
        for offset, size in ((0, 256), (0, 768), (512, 256), (700, 10), (768, 0)):
            again = {"offset_bytes": offset, "data": bytes(size)}  # not looked at: known already
            assert client.request("model_data", again) == {"next_offset_bytes": 768}
        with pytest.raises(ProtocolError, match=f"received: 768 of {len(data)} bytes"):
            client.request("model_end", {})
        assert begin(client, data) == 768
        send(client, data[: len(data) // 256 * 256], 768, size=256)
        rest = len(data) // 256 * 256
        if rest < len(data):
            too_long = {"offset_bytes": rest, "data": bytes(512)}
            with pytest.raises(ProtocolError, match="payload of 512 bytes"):
                client.request("model_data", too_long)
            send(client, data, rest)
        for _ in range(2):
            assert client.request("model_end", {}) == {"slot": 0}
        with pytest.raises(ProtocolError, match="no whole model"):
            client.request("model_data", nothing)
        assert_runs(client, SECOND)


def test_another_image_begins_anew(board: Board) -> None:
    with board.start() as client:
        begin(client, packed(FIRST, 1))
        send(client, packed(FIRST, 1)[:768])
        assert begin(client, packed(SECOND, 1)) == 0
        send(client, packed(SECOND, 1))
        client.request("model_end", {})
        assert_runs(client, SECOND)


# Other firmware.


def test_host_firmware_without_slots_runs_the_model_it_was_built_with(elf: Path) -> None:
    with flash.open_board(boards.load("host"), elf) as client:
        assert_runs(client, BUILT)
        with pytest.raises(ProtocolError, match="no slots for models; flash all of it"):
            update_model(client, packed(FIRST))
        with pytest.raises(ProtocolError, match="no slots for models"):
            begin(client, packed(FIRST))
        assert_runs(client, BUILT)


def test_firmware_that_knows_no_updates(tmp_path: Path) -> None:
    board = dataclasses.replace(boards.load("host"), defines=MappingProxyType({}))
    csource.write_sources(BUILT, tmp_path / "source")
    elf = build.build(board, tmp_path / "source", tmp_path / "build").elf
    with flash.open_board(board, elf) as client:
        with pytest.raises(ProtocolError, match="no slots for models; flash all of it"):
            update_model(client, packed(FIRST))
        assert_runs(client, BUILT)


def test_firmware_without_a_model_of_its_own(tmp_path: Path) -> None:
    """As a project with --weights bin: no model_data.c."""
    host = boards.load("host")
    board = with_defines(host, QUADS_MODEL_COMPILED_IN=0, QUADS_ARENA_BYTES=ARENA_BYTES)
    csource.write_sources(BUILT, tmp_path / "source")
    (tmp_path / "source" / "model_data.c").unlink()
    firmware = Path(build.data_dir("firmware"))
    sources = [*build.runtime_sources("plain"), *build.application_sources(False),
               *build.port_sources(board)]  # fmt: skip
    includes = [tmp_path / "source", firmware / "include", firmware / "src", firmware / "ports"]
    elf = build.compile_and_link(board, sources, includes, tmp_path / "build", True).elf
    with (
        flash.open_board(board, elf) as client,
        pytest.raises(ProtocolError, match="no valid model"),
    ):
        client.hello()
    with Board(elf, tmp_path / "slots").start() as client:
        update_model(client, packed(SECOND))
        assert_runs(client, SECOND)


def test_listening_firmware_changes_its_model(tmp_path: Path) -> None:
    """And refuses windows that its ring has no room for."""
    csource.write_sources(BUILT, tmp_path / "source")
    board = with_defines(boards.load("host"), QUADS_ARENA_BYTES=ARENA_BYTES)
    built = build.build(
        board, tmp_path / "source", tmp_path / "build", sanitize=True, listening=True
    )
    listener = Board(built.elf, tmp_path / "slots")
    with listener.start() as client:
        with pytest.raises(ProtocolError, match="no valid model"):
            client.hello()
        for model in (FIRST, THIRD):
            assert update_model(client, packed(model)).hello.model_hash == model.model_hash
        with pytest.raises(ProtocolError, match=r"more frames .*found 50, allowed 40"):
            update_model(client, packed(SECOND))
        assert client.hello().model_hash == THIRD.model_hash


def test_cortex_m4_runs_what_it_is_sent(tmp_path: Path) -> None:
    """With DSP kernels; PSRAM stands in for flash."""
    board = with_defines(
        boards.load("qemu-an386"), QUADS_MODEL_UPDATE=1, QUADS_ARENA_BYTES=ARENA_BYTES,
        QUADS_MODEL_SLOTS_AT=0x2180_0000, QUADS_MODEL_SLOT_BYTES=SLOT_BYTES,
    )  # fmt: skip
    require(board)
    csource.write_sources(BUILT, tmp_path / "source", board.kernels)
    elf = build.build(board, tmp_path / "source", tmp_path / "build").elf
    with flash.open_board(board, elf) as client:
        with pytest.raises(ProtocolError, match="slot 0: empty; slot 1: empty"):
            client.hello()
        for model in (FIRST, THIRD):
            update_model(client, image.pack(model, "dsp"))
            assert_runs(client, model)
        with pytest.raises(ProtocolError, match=r"other kernels .*found 0, allowed 1"):
            update_model(client, packed(SECOND))
        assert client.stats().stack_used_bytes <= board.stack_bytes

"""Slots from the manifest to the device: columns, losses, decisions, and a command's accuracy."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from c_build import FIRMWARE, compile_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from random_model import random_model

from quads_mcu import slots as slot_table
from quads_mcu.audio.datasets import load_pcm
from quads_mcu.audio.files import write_wav
from quads_mcu.audio.layouts import read_manifest
from quads_mcu.audio.utterances import combine
from quads_mcu.config import QuantizationSection, TrainSection
from quads_mcu.errors import ConfigError, TrainingError
from quads_mcu.export import csource, pack
from quads_mcu.export.reference import Reference, decide, scores
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedModel
from quads_mcu.report import statistics
from quads_mcu.slots import Slot
from quads_mcu.training import evaluation, losses, trainer
from quads_mcu.training.problem import Batch, Problem, Split

SLOTS = (Slot("drink", ("latte", "mocha", "tea")), Slot("size", ("none", "large")))
LOGITS = st.lists(
    st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3) | st.sampled_from([-(2**31), 2**31 - 1]),
    min_size=6,
    max_size=6,
)


# --- manifests ------------------------------------------------------------------------------


def manifest(folder: Path, rows: str, header: str = "path,split,drink,slots") -> Path:
    for name in ("a", "b", "c", "d"):
        write_wav(folder / f"{name}.wav", np.full(160, 5000, np.int16))
    path = folder / "manifest.csv"
    path.write_text(f"{header}\n{rows}")
    return path


ROWS = (
    'a.wav,train,latte,"{""size"": ""large"", ""milk"": ""a bit of soy milk""}"\n'
    'b.wav,train,mocha,"{""milk"": ""milk"", ""shots"": 2}"\n'
    "c.wav,valid,latte,\n"
)


def test_slots_come_from_columns_and_keys_in_them(tmp_path: Path) -> None:
    columns = {
        "drink": "drink",
        "size": "slots.size",
        "shots": "slots.shots",
        "milk": "slots.milk /(soy )?milk/",
        "milk_amount": "slots.milk /a bit of|some/",
    }
    dataset = read_manifest(manifest(tmp_path, ROWS), slots=columns)
    assert dataset.problems == []
    assert [item.answers for item in dataset.utterances] == [
        ("latte", "large", "none", "soy milk", "a bit of"),
        ("mocha", "none", "2", "milk", "none"),
        ("latte", "none", "none", "none", "none"),
    ]
    assert dataset.slots == (
        Slot("drink", ("latte", "mocha")),
        Slot("size", ("none", "large")),
        Slot("shots", ("none", "2")),
        Slot("milk", ("milk", "soy milk")),
        Slot("milk_amount", ("none", "a bit of")),
    )
    clips = load_pcm(combine([dataset]), "train", 200, False, lambda *_: None)
    assert clips.answers.tolist() == [[0, 1, 0, 1, 1], [1, 0, 1, 0, 0]]
    assert clips.labels.tolist() == [0, 1]
    clips = load_pcm(combine([dataset]), "valid", 200, False, lambda *_: None)
    assert clips.answers.tolist() == [[0, 0, 0, slot_table.NO_ANSWER, 0]]


def test_a_column_with_a_dot_is_a_column(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.wav,train,x\n", "path,split,a.b")
    assert read_manifest(path, slots={"s": "a.b"}).utterances[0].answers == ("x",)


def test_bad_slots_are_told_with_their_place(tmp_path: Path) -> None:
    path = manifest(tmp_path, 'a.wav,train,latte,"[1]"\nb.wav,train,latte,{\n')
    problems = read_manifest(path, slots={"size": "slots.size"}).problems
    assert [(item.line, item.kind) for item in problems] == [(2, "bad line"), (3, "bad line")]
    assert "column 'slots' is not a JSON object: '[1]'" in problems[0].text
    for text, message in (
        ("milk", "no column 'milk'; columns found: 'path', 'split', 'drink', 'slots'"),
        ("slots.size /x", "the pattern in 'slots.size /x' does not end in /"),
        ("slots.size /(/", r"\[slots\] size: '\('"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_manifest(path, slots={"size": text})


def test_the_same_file_with_other_answers_is_a_conflict(tmp_path: Path) -> None:
    rows = 'a.wav,train,latte,{}\na.wav,train,latte,"{""s"": ""x""}"\n'
    path = manifest(tmp_path, rows)
    found = combine([read_manifest(path, slots={"drink": "drink", "s": "slots.s"})])
    assert found.utterances == []
    assert "latte + none, latte + x" in found.problems[0].text


# --- training -------------------------------------------------------------------------------


def test_losses_add_up_over_slots() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.5, 0.0], [0.0, 0.0, 3.0, -2.0, 1.0]])
    answers = torch.tensor([[1, 0], [0, 1]])
    expected = 0.0
    for row, answer in zip(logits.double().numpy(), answers.numpy(), strict=True):
        for part, right in ((row[:3], answer[0]), (row[3:], answer[1])):
            expected += (np.log(np.exp(part).sum()) - part[right]) / 2
    assert float(losses.cross_entropy(logits, answers, [3, 2])) == pytest.approx(expected, rel=1e-6)
    assert losses.exact_match(logits, answers, [3, 2]) == 0.5
    assert losses.exact_match(logits, torch.tensor([[1, 0], [2, -1]]), [3, 2]) == 0.5
    assert losses.exact_match(logits, torch.tensor([[-1, 0], [2, -1]]), [3, 2]) == 0.0


def test_divergence_adds_up_over_slots() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(2, 4, 5))
    expected = 0.0
    for part in (slice(0, 3), slice(3, 5)):
        p, q = (np.exp(x[:, part] / 2) for x in (other, own))
        p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
        expected += 4 * (p * np.log(p / q)).sum(1).mean()
    found = losses.divergence(torch.from_numpy(own), torch.from_numpy(other), [3, 2], 2.0)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def problem(train: list[list[int]], valid: list[list[int]]) -> Problem:
    dims = Dimensions(8, 4, 8, 1, 1, 5)

    def split(rows: list[list[int]]) -> Split:
        answers = np.array(rows, np.int64).reshape(-1, 2)
        return Split(np.zeros((len(rows), 4, 8), np.int8), answers)

    return Problem(dims, SLOTS, split(train), split(valid), lambda epoch: iter(()), 0)


def test_every_answer_of_every_slot_must_be_trained() -> None:
    problem([[0, 0], [1, 1], [2, 1]], [[0, 0]]).check()
    with pytest.raises(
        TrainingError,
        match=r"train has no usable utterance of 1 of 3 labels of slot drink: tea \(0 in valid\); "
        r"add some, or give the slot a /pattern/ in \[slots\] drink that matches only other",
    ):
        problem([[0, 0], [1, 1]], [[0, 0]]).check()
    with pytest.raises(
        TrainingError,
        match=r"1 of 2 labels of slot size: large \(1 in valid\); add some",
    ):
        problem([[0, 0], [1, 0], [2, 0]], [[0, 1]]).check()
    with pytest.raises(TrainingError, match="split valid has no usable utterance"):
        problem([[0, 0], [1, 1], [2, 1]], []).check()
    lone = (Slot("drink", ("latte",)), SLOTS[1])
    task = dataclasses.replace(problem([[0, 0], [0, 1]], [[0, 0]]), slots=lone)
    with pytest.raises(TrainingError, match=r"1 label\(s\) of slot drink \(latte\)"):
        task.check()


def test_labels_that_validation_lacks_are_counted() -> None:
    assert problem([[0, 0], [1, 1], [2, 1]], [[0, 0], [1, 1], [2, -1]]).unvalidated() == []
    many = Slot("drink", tuple(f"drink {n}" for n in range(14)))
    task = problem([[n, n % 2] for n in range(14)], [[0, 0], [13, 0]])
    assert dataclasses.replace(task, slots=(many, SLOTS[1])).unvalidated() == [
        "split valid has no usable utterance of 12 of 14 labels of slot drink, so that validation "
        f"says nothing of them: {', '.join(f'drink {n}' for n in range(1, 11))} and 2 more",
        "split valid has no usable utterance of 1 of 2 labels of slot size, so that validation "
        "says nothing of them: large",
    ]


def test_unknown_speech_must_validate() -> None:
    slots = (Slot("drink", ("latte", "mocha", "unknown")), SLOTS[1])
    rows = [[0, 0], [1, 1], [2, 0]]
    dataclasses.replace(problem(rows, rows), slots=slots).check()
    with pytest.raises(TrainingError, match=r"split valid has nothing of label unknown"):
        dataclasses.replace(problem(rows, rows[:2]), slots=slots).check()
    with pytest.raises(TrainingError, match=r"name recordings of split train under \[data\] unkn"):
        dataclasses.replace(problem(rows[:2], rows), slots=slots).check()


@pytest.mark.usefixtures("one_thread")
def test_two_slots_are_trained_packed_and_computed(tmp_path: Path) -> None:
    """The drink is the band that is loud, the size whether the second half is louder."""
    rng = np.random.default_rng(0)
    answers = np.array(list(itertools.product(range(3), range(2))) * 12, np.int64)
    mel = rng.integers(-100, -40, (len(answers), 12, 8))
    for row, (drink, size) in enumerate(answers):
        mel[row, :, 2 * drink : 2 * drink + 2] += 60
        mel[row, 6:] += 40 * size
    data = Split(mel.astype(np.int8), answers)

    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        order = np.random.default_rng([5, epoch]).permutation(len(answers))
        for rows in order.reshape(9, 8):
            yield Batch(rows, data.mel[rows])

    dims = Dimensions(8, 12, 16, 2, 1, 5)
    settings = TrainSection(
        warmup_epochs=8, cycles=0, final_epochs=1, lr_encoder=5e-3, lr_head=5e-3, lr_quant=1e-3
    )
    task = Problem(dims, SLOTS, data, data, batches, 9, fingerprint="x")
    loop = trainer.Trainer(task, settings, QuantizationSection(), 0, tmp_path)
    loop.run(lambda *_: None)
    assert loop.selections["quantized"].kept > 0.9
    model = pack.pack(tmp_path)
    assert model.slots == SLOTS
    found, rejected = decide(model, Reference(model).logits(data.mel))
    assert (found == answers).all(axis=1).mean() > 0.9
    assert not rejected.any()
    floating = slot_table.argmax(evaluation.float_logits(tmp_path, data.mel), SLOTS)
    assert (floating == answers).all(axis=1).mean() == loop.selections["float"].kept


# --- decisions ------------------------------------------------------------------------------


def by_hand(model: PackedModel, logits: list[int]) -> tuple[list[int], bool, int]:
    """docs/arithmetic.md, section 7, word by word."""
    answers, first = [], 0
    for place, slot in enumerate(model.slots):
        part = logits[first : first + len(slot.labels)]
        first += len(slot.labels)
        allowed = [c for c in range(len(part)) if place or c != model.unknown_class]
        answers.append(next(c for c in allowed if all(part[c] >= part[o] for o in allowed)))
    unknown = logits[model.unknown_class] if model.unknown_class >= 0 else 0
    score = logits[answers[0]] - unknown
    return answers, score < model.reject_threshold, score


DECIDING = [
    (sizes, unknown, threshold)
    for sizes, unknown in (([6], -1), ([6], 5), ([6], 0), ([2, 4], 1), ([2, 4], 0), ([2, 2, 2], -1))
    for threshold in (0, 1, -1, 2**31 - 1, -(2**31))
]


SHIM = """#include "quads.h"
int decide(const uint16_t *sizes, uint16_t n_slots, int16_t unknown_class, int32_t threshold,
           const int32_t *logits, uint16_t *answers);
int decide(const uint16_t *sizes, uint16_t n_slots, int16_t unknown_class, int32_t threshold,
           const int32_t *logits, uint16_t *answers) {
  quads_slot_t slots[6] = {{0}};
  for (uint16_t i = 0; i < n_slots; i++) {
    slots[i].first = (uint16_t)(i == 0 ? 0 : slots[i - 1].first + slots[i - 1].n_labels);
    slots[i].n_labels = sizes[i];
  }
  quads_model_t model = quads_model;
  model.slots = slots;
  model.n_slots = n_slots;
  model.unknown_class = unknown_class;
  model.reject_threshold = threshold;
  return quads_decide(&model, logits, answers);
}
"""
DECIDE_DIMS = Dimensions(n_mels=40, n_frames=2, d_model=8, n_heads=1, n_layers=1, n_classes=6)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    out = tmp_path_factory.mktemp("decide")
    csource.write_sources(random_model(DECIDE_DIMS), out)
    (out / "shim.c").write_text(SHIM)
    sources = [out / "shim.c", out / "model_data.c", FIRMWARE / "src" / "quads.c"]
    sources += sorted((FIRMWARE / "src" / "frontend").glob("*.c"))
    includes = [out, FIRMWARE / "include", FIRMWARE / "src", FIRMWARE / "src" / "frontend"]
    return compile_shared(sources, includes, out)


@pytest.fixture(scope="module")
def models() -> list[PackedModel]:
    return [
        dataclasses.replace(
            random_model(DECIDE_DIMS, slots=sizes),
            unknown_class=unknown,
            reject_threshold=threshold,
        )
        for sizes, unknown, threshold in DECIDING
    ]


def on_device(library: ctypes.CDLL, model: PackedModel, logits: list[int]) -> tuple[int, list[int]]:
    sizes = slot_table.sizes(model.slots)
    answers = (ctypes.c_uint16 * len(sizes))()
    decision = library.decide(
        (ctypes.c_uint16 * len(sizes))(*sizes),
        ctypes.c_uint16(len(sizes)),
        ctypes.c_int16(model.unknown_class),
        ctypes.c_int32(model.reject_threshold),
        (ctypes.c_int32 * 6)(*logits),
        answers,
    )
    return decision, list(answers)


@settings(deadline=None, max_examples=60)
@given(logits=LOGITS)
def test_reference_and_device_decide_as_written(
    library: ctypes.CDLL, models: list[PackedModel], logits: list[int]
) -> None:
    for model in models:
        answers, rejected, score = by_hand(model, logits)
        array = np.array([logits], np.int32)
        found, said = decide(model, array)
        assert (found.tolist(), said.tolist()) == ([answers], [rejected])
        assert scores(model, array)[1].tolist() == [score]
        assert on_device(library, model, logits) == (int(not rejected), answers)


def test_device_refuses_null_pointers(library: ctypes.CDLL) -> None:
    answers = (ctypes.c_uint16 * 1)(7)
    logits = (ctypes.c_int32 * 6)()
    assert library.quads_decide(None, logits, answers) == -1
    assert library.decide((ctypes.c_uint16 * 1)(6), 1, -1, 0, None, answers) == -1
    assert library.decide((ctypes.c_uint16 * 1)(6), 1, -1, 0, logits, None) == -1
    assert answers[0] == 7


def test_threshold_zero_rejects_what_the_unknown_class_wins() -> None:
    model = dataclasses.replace(
        random_model(Dimensions(8, 2, 8, 1, 1, 3), slots=[3]), unknown_class=2, reject_threshold=0
    )
    logits = np.array(list(itertools.product(range(3), repeat=3)), np.int32)
    _, rejected = decide(model, logits)
    np.testing.assert_array_equal(rejected, logits.argmax(axis=1) == 2)


# --- names and figures ----------------------------------------------------------------------


def test_answers_have_names_of_their_slot_in_c() -> None:
    slots = (Slot("intent", ("on", "off")), Slot("a", ("b c", "x")), Slot("a b", ("c", "x")))
    assert csource.answer_names(slots) == [
        ["QUADS_INTENT_ON", "QUADS_INTENT_OFF"],
        ["QUADS_ANSWER_A_B_C", "QUADS_ANSWER_A_X"],
        ["QUADS_ANSWER_A_B_C_0", "QUADS_ANSWER_A_B_X"],
    ]
    slots = (Slot("größe", ("x", "y")), Slot("GROSSE", ("x", "y")), Slot("groe", ("x", "y")))
    assert len(set(csource.slot_names(slots))) == 3


def test_a_command_is_right_when_every_slot_is() -> None:
    truth = np.array([[0, 0], [1, 1], [2, 1], [0, 1]])
    answers = np.array([[0, 0], [1, 0], [2, 1], [1, 1]])
    found = statistics.whole_command(truth, answers, SLOTS)
    assert (found.correct, found.total) == (2, 4)
    by_slot = statistics.per_slot(truth, answers, SLOTS)
    assert [a.correct for a in by_slot.values()] == [3, 3]
    # drink: latte 2/3, mocha 2/3, tea 1; size: none 2/3, large 4/5
    assert by_slot["drink"].macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert by_slot["size"].macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.macro_f1 == pytest.approx((7 / 9 + 11 / 15) / 2)


def test_segments_follow_each_other() -> None:
    assert slot_table.segments(SLOTS) == [slice(0, 3), slice(3, 5)]
    logits = np.array([[1, 5, 5, 0, 9], [7, 0, 0, 4, 4]])
    assert slot_table.argmax(logits, SLOTS).tolist() == [[1, 1], [0, 0]]
    assert slot_table.from_json(slot_table.to_json(SLOTS)) == SLOTS

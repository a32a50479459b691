"""Synthesized speech: reproducible, resumable, disjoint speakers, and text of any kind."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from silent import counted

from quads_mcu import config as project
from quads_mcu.audio import sources, synth
from quads_mcu.audio.layouts import read_manifest
from quads_mcu.audio.synth import synthesize, synthesize_templates, synthesize_texts
from quads_mcu.errors import AudioError, ConfigError, InstallationError

PHRASES = {
    "lights_on": ["turn on the lights", "lights on"],
    "größe/日本 😀": ["größer, bitte", 'say "quote"\nand a line'],
    "../../evil": ["good bye"],
}


@pytest.fixture(autouse=True)
def needs_espeak(request: pytest.FixtureRequest) -> None:
    if request.node.name != "test_missing_package":
        pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")


def digest(folder: Path) -> str:
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content.update(str(path.relative_to(folder)).encode())
        content.update(path.read_bytes() if path.is_file() else b"")
    return content.hexdigest()


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    return synthesize(PHRASES, tmp_path_factory.mktemp("synth") / "out", 16, 5, counted)


def test_manifest_and_sounds(made: Path) -> None:
    found = rows(made)
    assert list(found[0]) == ["path", "speaker", "transcript", "split", "duration_s", "label"]
    # Five phrases: 16 to train, 16 // 8 to validate and as many to test each.
    assert len(found) == 5 * 20
    assert {row["label"] for row in found} == set(PHRASES)
    for row in found:
        path = made.parent / row["path"]
        assert path.is_relative_to(made.parent / "audio") and row["path"].isascii()
        assert path.resolve().is_relative_to(made.parent.resolve())
        pcm, rate_hz = soundfile.read(path, dtype="int16")
        assert (rate_hz, pcm.ndim) == (16_000, 1)
        assert abs(len(pcm) / 16_000 - float(row["duration_s"])) < 1e-5
        assert 0.2 < len(pcm) / 16_000 < 6 and np.abs(pcm.astype(int)).max() > 1000


def test_the_data_set_reader_takes_the_manifest(made: Path) -> None:
    dataset = read_manifest(made, "label")
    assert dataset.problems == []
    assert sorted(dataset.labels) == sorted(PHRASES)


def test_speakers_and_timbres_are_disjoint(made: Path) -> None:
    speakers: dict[str, set[str]] = {"train": set(), "valid": set(), "test": set()}
    for row in rows(made):
        speakers[row["split"]].add(row["speaker"])
    assert len(speakers["train"]) > 40
    timbres = [{name.partition("+")[2] for name in names} for names in speakers.values()]
    assert all(timbres)
    assert len(set.union(*timbres)) == sum(map(len, timbres))


def test_equal_arguments_give_equal_bytes(made: Path, tmp_path: Path) -> None:
    again = synthesize(PHRASES, tmp_path / "again", 16, 5, counted)
    assert digest(again.parent) == digest(made.parent)


def test_another_seed_gives_other_sounds(made: Path, tmp_path: Path) -> None:
    other = synthesize(PHRASES, tmp_path / "other", 16, 6, counted)
    assert digest(other.parent) != digest(made.parent)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return synthesize({"a": ["hello"]}, tmp_path / "small", 2, 0, counted)


def again(small: Path, per_phrase: int = 2) -> list[float]:
    calls: list[float] = []
    synthesize(
        {"a": ["hello"]},
        small.parent,
        per_phrase,
        0,
        lambda _text, done, _total: calls.append(done),
    )
    return calls


def test_complete_output_is_used_again(small: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in small.parent.rglob("*")}
    assert again(small) == [4]
    assert {path: path.stat().st_mtime_ns for path in small.parent.rglob("*")} == stamps


def test_other_arguments_replace_the_output(small: Path) -> None:
    (small.parent / "mine.txt").write_text("kept")
    assert again(small, per_phrase=3) == [1, 2, 3, 4, 5]
    assert len(list(small.parent.rglob("*.wav"))) == 5
    assert (small.parent / "mine.txt").exists()


@pytest.mark.parametrize("damage", ["sound", "cut", "manifest", "record", "nonsense"])
def test_damaged_output_is_made_again(small: Path, damage: str) -> None:
    before = digest(small.parent)
    sound = next(small.parent.rglob("*.wav"))
    record = small.parent / "synth.json"
    if damage == "sound":
        sound.unlink()
    elif damage == "cut":
        sound.write_bytes(sound.read_bytes()[:-2])
    elif damage == "manifest":
        small.write_text(small.read_text() + "more,x,y,z,train,1\n")
    elif damage == "record":
        record.write_text(json.dumps({**json.loads(record.read_text()), "manifest_sha256": None}))
    else:
        record.write_text("{")
    assert again(small) == [1, 2, 3, 4]
    assert digest(small.parent) == before


def test_foreign_files_are_left_alone(small: Path) -> None:
    (small.parent / "synth.json").unlink()
    before = digest(small.parent)
    with pytest.raises(ConfigError, match="not made by synthesis; choose another folder"):
        again(small)
    assert digest(small.parent) == before


def test_interruption_leaves_no_manifest(tmp_path: Path) -> None:
    def stop(description: str, completed: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize({"a": ["hello"]}, tmp_path / "out", 5, 0, stop)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    synthesize({"a": ["hello"]}, tmp_path / "out", 5, 0, counted)
    assert len(rows(tmp_path / "out" / "manifest.csv")) == 7


def test_speakers_repeat_only_after_all_had_a_turn(tmp_path: Path) -> None:
    voices = ["en+f1", "en-us+m1", "en-us+f2", "en+m2"]
    found = rows(synthesize({"a": ["hi"]}, tmp_path, 4, 0, counted, voices))
    train = [row["speaker"] for row in found if row["split"] == "train"]
    assert len(train) == 4 and len(set(train[:2])) == 2 and len(set(train)) == 2


def test_a_single_speaker_only_trains(tmp_path: Path) -> None:
    found = rows(synthesize({"a": ["hi"]}, tmp_path, 2, 0, counted, ["en+f1"]))
    assert [row["split"] for row in found] == ["train", "train"]


@pytest.mark.parametrize(
    ("phrases", "match"),
    [
        ({}, "nothing to synthesize"),
        ({"a": []}, "nothing to synthesize"),
        ({"a": [" "]}, "a: ' ' cannot be spoken"),
        ({"a": ["x\0y"]}, "cannot be spoken"),
        ({"a": ["x" * 1001]}, "cannot be spoken: 1 .. 1000"),
        ({"a": ["on"], "b": ["ON "]}, "'ON ' stands under a and b"),
    ],
)
def test_refused_phrases(tmp_path: Path, phrases: dict[str, list[str]], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        synthesize(phrases, tmp_path / "out", 1, 0, counted)
    assert not (tmp_path / "out").exists()


def test_phrase_without_sound(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gives no sound for '\.\.\.'"):
        synthesize({"a": ["..."]}, tmp_path, 1, 0, counted)


@pytest.mark.parametrize("voice", ["zz-top", "en;f1", "../en", "", "en+"])
def test_unknown_voice(tmp_path: Path, voice: str) -> None:
    with pytest.raises(ConfigError, match="voice"):
        synthesize({"a": ["hi"]}, tmp_path, 1, 0, counted, [voice])


def test_failing_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _ = synth._espeak_paths()
    data = tmp_path / "data"
    (data / "voices" / "!v").mkdir(parents=True)
    monkeypatch.setattr(synth, "_espeak_paths", lambda: (library, str(data)))
    with pytest.raises(AudioError, match="espeak-ng did not start with data in"):
        synthesize({"a": ["hi"]}, tmp_path / "out", 1, 0, counted, ["en+f1"])


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AudioError, match="cannot be written"):
        synthesize({"a": ["hi"]}, tmp_path / "file", 1, 0, counted, ["en+f1"])


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InstallationError, match=r"pip install 'quads-mcu\[synth\]'"):
        synthesize({"a": ["hi"]}, tmp_path, 1, 0, counted)


def test_no_joke_voices() -> None:
    _, data = synth._espeak_paths()
    speakers = synth._speakers(["en-us"], data)
    variants = {name.partition("+")[2] for names in speakers.values() for name in names}
    assert len(variants) > 60
    assert not variants & {"whisper", "whisperf", "croak", "Demonic", "robosoft", "UniRobot"}


@pytest.mark.slow
def test_a_large_set_is_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthesize(PHRASES, tmp_path / name, 700, 0, counted)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    shutil.rmtree(tmp_path)


def test_templates_fill_the_columns_of_their_slots(tmp_path: Path) -> None:
    values = {"size": ["small", "large"], "drink": ["tea", "milk"]}
    templates = ["a [{size}] {drink}", "(some|more) {drink} please"]
    slots = ("drink", "size", "sugar")
    arguments = templates, values, slots, tmp_path / "out", 8, 0, counted, ["en-us+f2"]
    manifest = synthesize_templates(*arguments)
    found = rows(manifest)
    assert list(found[0])[-3:] == list(slots) and len(found) == 16
    for row in found:
        said = row["transcript"].split()
        assert row["drink"] in said and row["sugar"] == ""
        assert (row["size"] or "nothing") in said or not {"small", "large"} & set(said)
    assert {row["size"] for row in found} == {"", "small", "large"}
    dataset = read_manifest(manifest, slots={name: name for name in slots})
    assert [slot.labels for slot in dataset.slots][1] == ("none", "large", "small")
    assert synthesize_templates(*arguments) == manifest
    with pytest.raises(ConfigError, match=r"\[values\] size: no such slot; \[slots\] has drink"):
        synthesize_templates(templates, values, ["drink"], tmp_path / "x", 1, 0, counted)
    with pytest.raises(ConfigError, match=r"\[data\] templates in quads.toml is empty"):
        synthesize_templates([], values, slots, tmp_path / "x", 1, 0, counted)


def test_texts_are_spoken_once_by_speakers_of_their_split(tmp_path: Path) -> None:
    texts = [f"sentence number {number}" for number in range(16)]
    odd = ["???", "x" * 2000, "nul\0byte", "lone \udc80 surrogate"]
    found = rows(synthesize_texts([*odd, *texts], tmp_path / "out", 3, counted))
    assert sorted(row["transcript"] for row in found) == sorted(texts)
    assert [row["split"] for row in found].count("train") == 12
    timbres = {
        split: {row["speaker"].partition("+")[2] for row in found if row["split"] == split}
        for split in ("train", "valid", "test")
    }
    assert not timbres["train"] & (timbres["valid"] | timbres["test"])
    with pytest.raises(ConfigError, match="none of 4 texts can be spoken"):
        synthesize_texts(odd, tmp_path / "none", 3, counted)


@pytest.mark.parametrize("name", ["other.txt", "other.csv"])
def test_a_file_of_texts_is_unknown_speech(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("QUADS_CACHE", str(tmp_path / "cache"))
    commands = synthesize({"on": ["on"], "off": ["off"]}, tmp_path / "c", 2, 0, counted)
    texts = [f"what about {number}" for number in range(20)]
    table = "text,intent\n" + "".join(f"{text},x\n" for text in texts)
    (tmp_path / name).write_text(table if name.endswith("csv") else "\n".join(["", *texts]))
    tree = {
        "data": {"manifests": [str(commands)], "unknown": [f"{name}#train,valid"],
                 "unknown_texts": 16},
    }  # fmt: skip
    config = project.from_tree(tree, where="test", root=tmp_path)
    dataset = sources.load(config, counted)
    assert dataset.problems == [] and dataset.labels == ["off", "on", "unknown"]
    spoken = [item for item in dataset.utterances if item.label == "unknown"]
    assert [item.split for item in spoken].count("train") == 12
    assert [item.split for item in spoken].count("valid") == 2 == len(spoken) - 12
    (tmp_path / name).write_text("text,intent\n" if name.endswith("csv") else "\n\n")
    with pytest.raises(ConfigError, match=f"{name}: not a single text"):
        sources.load(config, counted)

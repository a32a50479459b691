"""Published data sets in exactly the form they come in: FSC, SLURP, Speech Commands v2."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import numpy as np
import pytest

from quads_mcu import config as project
from quads_mcu import console
from quads_mcu.audio import layouts, unknown
from quads_mcu.audio.datasets import load_dataset, load_pcm
from quads_mcu.audio.files import write_wav
from quads_mcu.audio.utterances import Dataset
from quads_mcu.config import Config
from quads_mcu.errors import AudioError, ConfigError, TrainingError
from quads_mcu.slots import NO_ANSWER, Slot
from quads_mcu.training import train


def quiet(*_: object) -> None:
    pass


def sound(path: Path, n: int = 1600, level: float = 3000.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(n)
    write_wav(path, (rng.standard_normal(n) * level).astype(np.int16))
    return path


def counted(dataset: Dataset) -> collections.Counter[tuple[str, str]]:
    return collections.Counter((item.split, item.label) for item in dataset.utterances)


def configured(folder: Path, **sections: dict[str, object]) -> Config:
    return project.from_tree(sections, where="test", root=folder)


# --- Fluent Speech Commands ---------------------------------------------------------------------

# The files of fluent_speech_commands_dataset/data begin with an unnamed index column; rows as
# published, one per split and kind of intent.
FSC_HEADER = ",path,speakerId,transcription,action,object,location\n"
FSC = {
    "train": [
        ("2BqVo8kVB2Skwgyb", "0a3129c0-4474", "Change language", "change language", "none", "none"),
        ("2BqVo8kVB2Skwgyb", "0ee42a80-4474", "Resume", "activate", "music", "none"),
        ("4BrX8aDqK2cLZRYl", "1d9f3920-4474", "Turn the lights on", "activate", "lights", "none"),
    ],
    "valid": [
        ("DMApMRmGq5hjkyvX", "4ae3f3d0-4474", "Lights on in the kitchen", "activate", "lights",
         "kitchen"),
    ],
    "test": [
        ("4aGjX3AG5xcxeL7a", "51a2b6f0-4474", 'Pause the music, "please"', "deactivate", "music",
         "none"),
    ],
}  # fmt: skip


def fsc(folder: Path) -> Path:
    for split, rows in FSC.items():
        text = FSC_HEADER
        for number, (speaker, name, said, *answers) in enumerate(rows):
            path = f"wavs/speakers/{speaker}/{name}.wav"
            sound(folder / path)
            quoted = '"' + said.replace('"', '""') + '"' if "," in said else said
            text += f"{number},{path},{speaker},{quoted},{','.join(answers)}\n"
        data = folder / "data"
        data.mkdir(exist_ok=True)
        (data / f"{split}_data.csv").write_text(text)
    (folder / "data" / "speaker_demographics.csv").write_text("speakerId,gender\n")
    return folder


def test_fsc_has_intents_of_three_words_and_official_splits(tmp_path: Path) -> None:
    found = layouts.read_fsc(fsc(tmp_path))
    assert found.problems == []
    assert [(item.split, item.label, item.speaker) for item in found.utterances] == [
        ("train", "change language", "2BqVo8kVB2Skwgyb"),
        ("train", "activate music", "2BqVo8kVB2Skwgyb"),
        ("train", "activate lights", "4BrX8aDqK2cLZRYl"),
        ("valid", "activate lights kitchen", "DMApMRmGq5hjkyvX"),
        ("test", "deactivate music", "4aGjX3AG5xcxeL7a"),
    ]
    assert all(item.path.is_file() for item in found.utterances)


def test_fsc_fills_slots(tmp_path: Path) -> None:
    fsc(tmp_path)
    columns = {name: name for name in ("action", "object", "location")}
    config = configured(tmp_path, data={"fsc": "."}, slots=columns)
    found = load_dataset(config, quiet)
    assert found.slots == (
        Slot("action", ("activate", "change language")),
        Slot("object", ("none", "lights", "music")),
        Slot("location", ("none",)),
    )
    assert load_pcm(found, "valid", 1600, False, quiet).answers.tolist() == [[0, 1, NO_ANSWER]]
    assert load_pcm(found, "test", 1600, False, quiet).answers.tolist() == [[NO_ANSWER, 2, 0]]
    assert [str(item) for item in found.problems] == [
        f"{tmp_path / 'quads.toml'}: slot {text}"
        for text in (
            "action: 1 value(s) that split train never has count as wrong (utterances: 0 of split "
            "valid and 1 of split test): deactivate",
            "location: 1 value(s) that split train never has count as wrong (utterances: 1 of "
            "split valid and 0 of split test): kitchen",
        )
    ]


def test_fsc_errors_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope: no such folder; \[data\] fsc names a folder"):
        layouts.read_fsc(tmp_path / "nope")
    folder = fsc(tmp_path)
    (folder / "wavs/speakers/4aGjX3AG5xcxeL7a/51a2b6f0-4474.wav").unlink()
    found = layouts.read_fsc(folder)
    assert [(item.kind, item.line, item.path.name) for item in found.problems] == [
        ("missing", 2, "51a2b6f0-4474.wav")
    ]
    path = folder / "data" / "test_data.csv"
    path.write_text(",path,speakerId,transcription,action\n")
    with pytest.raises(ConfigError, match=r"test_data.csv: no column 'object', 'location'"):
        layouts.read_fsc(folder)
    path.unlink()
    with pytest.raises(ConfigError, match=r"test_data.csv: cannot be read"):
        layouts.read_fsc(folder)


# --- SLURP --------------------------------------------------------------------------------------


def slurp_entry(number: int, intent: str, said: str, files: list[str], *entities: object) -> str:
    scenario, _, action = intent.partition("_")
    return json.dumps(
        {
            "slurp_id": number,
            "sentence": said,
            "sentence_annotation": said,
            "intent": intent,
            "action": action,
            "tokens": [
                {"surface": word, "id": at, "lemma": word, "pos": "NN"}
                for at, word in enumerate(said.split())
            ],
            "scenario": scenario,
            "recordings": [
                {"file": name, "wer": 0.0, "ent_wer": None, "status": "correct"} for name in files
            ],
            "entities": list(entities),
        }
    )


def slurp(folder: Path, text: dict[str, list[str]] | None = None) -> Path:
    time = {"span": [5], "type": "time"}
    coffee = {"span": [0, 1], "type": "drink"}
    text = text or {
        "train": [
            slurp_entry(1, "alarm_set", "wake me up at ten today", ["audio-1.flac"], time),
            slurp_entry(2, "email_query", "any mail", ["audio-2-headset.flac", "audio-2.flac"]),
        ],
        "devel": [slurp_entry(3, "alarm_set", "wake me", ["audio--1504194842.flac"])],
        "test": [slurp_entry(4, "iot_coffee", "iced coffee please", ["audio-4.flac"], coffee)],
    }
    for name, lines in text.items():
        path = folder / "dataset" / "slurp" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        for line in lines:
            for recording in json.loads(line)["recordings"]:
                sound_flac(folder / "audio" / "slurp_real" / recording["file"])
    return folder


def sound_flac(path: Path) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = (np.random.default_rng(0).standard_normal(800) * 2000).astype(np.int16)
    soundfile.write(path, pcm, 16_000)


def test_slurp_has_an_utterance_per_recording(tmp_path: Path) -> None:
    found = layouts.read_slurp(slurp(tmp_path))
    assert found.problems == []
    assert [(item.split, item.label, item.path.name) for item in found.utterances] == [
        ("train", "alarm_set", "audio-1.flac"),
        ("train", "email_query", "audio-2-headset.flac"),
        ("train", "email_query", "audio-2.flac"),
        ("valid", "alarm_set", "audio--1504194842.flac"),
        ("test", "iot_coffee", "audio-4.flac"),
    ]


def test_slurp_fills_slots_and_entities(tmp_path: Path) -> None:
    columns = {"scenario": "scenario", "when": "entities.time", "drink": "entities.drink"}
    found = load_dataset(configured(slurp(tmp_path), data={"slurp": "."}, slots=columns), quiet)
    assert [item.answers for item in found.utterances][-1] == ("iot", "none", "iced coffee")
    assert found.slots[1] == Slot("when", ("none", "today"))


SMALL = {"audio": {"window_s": 0.5}, "student": {"preset": "d64x2"}}


def test_slurp_whose_devel_lacks_an_intent_is_trained_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As published: devel has no audio_volume_other."""
    monkeypatch.setattr(console, "_said", set())
    said = ["audio_volume_other", "audio_volume_up", "alarm_set"]
    text = {
        name: [
            slurp_entry(number, intent, "x", [f"audio-{name}-{number}.flac"])
            for number, intent in enumerate(said)
            if name != "devel" or intent != "audio_volume_other"
        ]
        for name in ("train", "devel", "test")
    }
    config = configured(slurp(tmp_path, text), data={"slurp": "."}, **SMALL)
    problem = train.load_problem(config, quiet)
    problem.check()
    assert problem.slots == (Slot("intent", tuple(sorted(said))),)
    assert problem.valid.answers.tolist() == [[2], [0]]
    assert capsys.readouterr().err == (
        "warning: split valid has no usable utterance of 1 of 3 labels, so that validation says "
        "nothing of them: audio_volume_other\n"
    )
    # Or one intent for several, by what a pattern matches.
    merged = configured(
        tmp_path, data={"slurp": "."}, slots={"intent": "intent /audio_volume|.+/"}, **SMALL
    )
    assert train.load_problem(merged, quiet).slots == (
        Slot("intent", ("alarm_set", "audio_volume")),
    )


def test_slurp_intents_of_the_test_split_alone_are_refused_by_name(tmp_path: Path) -> None:
    config = configured(slurp(tmp_path), data={"slurp": "."}, **SMALL)
    with pytest.raises(
        TrainingError,
        match=r"1 of 3 labels, only split test has them: iot_coffee \(0 in valid, 1 in test\); add "
        r"some, or leave the label out: list the others in \[intents\]",
    ):
        train.load_problem(config, quiet)


def test_slurp_entities_that_training_never_has_count_as_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_said", set())
    times = {"train": ("today", "ten", ""), "devel": ("noon", "ten", ""), "test": ("ten", "noon")}
    text = {
        name: [
            slurp_entry(
                number,
                "alarm_set",
                f"wake me {time}",
                [f"audio-{name}-{number}.flac"],
                *([{"span": [2], "type": "time"}] if time else []),
            )
            for number, time in enumerate(found)
        ]
        for name, found in times.items()
    }
    slots = {"when": "entities.time", "asked": "entities.time /ten|today/"}
    config = configured(slurp(tmp_path, text), data={"slurp": "."}, slots=slots, **SMALL)
    problem = train.load_problem(config, quiet)
    assert problem.slots == (
        Slot("when", ("none", "ten", "today")),
        Slot("asked", ("none", "ten", "today")),
    )
    assert problem.train.answers.tolist() == [[2, 2], [1, 1], [0, 0]]
    assert problem.valid.answers.tolist() == [[NO_ANSWER, 0], [1, 1], [0, 0]]
    printed = capsys.readouterr().err
    assert "slot when: 1 value(s) that split train never has count as wrong (utter" in printed
    assert "slot asked: " not in printed


def test_slurp_takes_synthesized_speech_for_training_where_it_is(tmp_path: Path) -> None:
    slurp(tmp_path)
    entry = slurp_entry(9, "music_play", "play", ["audio--1.flac"])
    (tmp_path / "dataset" / "slurp" / "train_synthetic.jsonl").write_text(entry)
    assert "music_play" not in layouts.read_slurp(tmp_path).labels
    sound_flac(tmp_path / "audio" / "slurp_synth" / "audio--1.flac")
    assert counted(layouts.read_slurp(tmp_path))["train", "music_play"] == 1


def test_slurp_problems_have_their_place(tmp_path: Path) -> None:
    slurp(tmp_path)
    (tmp_path / "audio" / "slurp_real" / "audio-1.flac").unlink()
    train = tmp_path / "dataset" / "slurp" / "train.jsonl"
    broken = [
        '{"recordings": "x", "scenario": "a", "action": "b"}',
        '{"recordings": [{"wer": 0}], "scenario": "a", "action": "b"}',
        "{",
        slurp_entry(5, "a_b", "x", ["audio-2.flac"], {"span": [7], "type": "t"}),
        '{"recordings": [{"file": "audio-2.flac"}], "action": "b"}',
    ]
    train.write_text(train.read_text() + "\n".join(broken) + "\n")
    problems = layouts.read_slurp(tmp_path).problems
    assert [(item.line, item.kind) for item in problems] == [
        (1, "missing"),
        (3, "bad line"),
        (4, "bad line"),
        (5, "bad line"),
        (6, "bad line"),
        (7, "unlabelled"),
    ]
    (tmp_path / "audio" / "slurp_real").rename(tmp_path / "audio" / "elsewhere")
    with pytest.raises(ConfigError, match=r"audio/slurp_real: no such folder; \[data\] slurp"):
        layouts.read_slurp(tmp_path)


# --- Speech Commands v2 -------------------------------------------------------------------------


def speech_commands(folder: Path) -> Path:
    """Every word of version 2, five recordings each: three train, one validates, one tests."""
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for at, word in enumerate(layouts.WORDS):
        for number in range(5):
            name = f"{word}/{at * 5 + number:08x}_nohash_{number}.wav"
            sound(folder / name, 1600)
            if number >= 3:
                lists["validation" if number == 3 else "testing"].append(name)
    for name, lines in lists.items():
        (folder / f"{name}_list.txt").write_text("".join(f"{line}\n" for line in lines))
    for name, seconds in (("doing_the_dishes", 60), ("white_noise", 61)):
        sound(folder / "_background_noise_" / f"{name}.wav", 16_000 * seconds)
    (folder / "_background_noise_" / "README.md").write_text("noise\n")
    (folder / "LICENSE").write_text("CC BY 4.0\n")
    return folder


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech_commands(tmp_path_factory.mktemp("speech_commands_v0.02"))


def test_there_are_35_words() -> None:
    assert len(set(layouts.WORDS)) == 35
    assert layouts.WORDS[:10] == layouts.TEN_WORDS


def test_the_35_class_task_has_the_official_splits(v2: Path) -> None:
    config = configured(v2, data={"speech_commands": ".", "speech_commands_task": 35})
    found = load_dataset(config, quiet)
    assert found.problems == []
    assert found.labels == sorted(layouts.WORDS)
    counts = counted(found)
    for word in layouts.WORDS:
        assert [counts[split, word] for split in ("train", "valid", "test")] == [3, 1, 1]


def test_the_12_class_task_adds_a_tenth_unknown_and_a_tenth_silence(v2: Path) -> None:
    config = configured(v2, data={"speech_commands": ".", "speech_commands_task": 12})
    found = load_dataset(config, quiet)
    assert set(found.labels) == {*layouts.TEN_WORDS, "_unknown_", "_silence_"}
    counts = counted(found)
    for split, known in (("train", 30), ("valid", 10), ("test", 10)):
        assert sum(counts[split, word] for word in layouts.TEN_WORDS) == known
        assert counts[split, "_unknown_"] == counts[split, "_silence_"] == known // 10
    others = [item for item in found.utterances if item.label == "_unknown_"]
    assert all(item.path.parent.name not in layouts.TEN_WORDS for item in others)
    listed = (v2 / "testing_list.txt").read_text().split()
    for item in others:
        tested = f"{item.path.parent.name}/{item.path.name}" in listed
        assert tested == (item.split == "test")


def test_silence_of_different_splits_does_not_overlap(v2: Path) -> None:
    found = layouts.read_speech_commands_task(v2, 12)
    parts = {"train": (0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1)}
    silences = [item for item in found.utterances if item.label == "_silence_"]
    for item in silences:
        seconds = 60 if item.path.stem == "doing_the_dishes" else 61
        low, high = (part * seconds * 16_000 for part in parts[item.split])
        assert low - 1 <= item.start and item.start + item.length <= high + 1
    assert len({(item.path, item.start) for item in silences}) == len(silences)
    clips = load_pcm(found, "train", 16_000, True, quiet)
    stretch = next(row for row, item in enumerate(clips.utterances) if item.label == "_silence_")
    item = clips.utterances[stretch]
    import soundfile

    whole, _ = soundfile.read(item.path, dtype="int16")
    np.testing.assert_array_equal(clips.pcm[stretch], whole[item.start : item.start + 16_000])


def test_tasks_need_the_whole_set(tmp_path: Path) -> None:
    folder = speech_commands(tmp_path)
    (folder / "_background_noise_").rename(folder / ".noise")
    with pytest.raises(ConfigError, match=r"_background_noise_: no sound files"):
        layouts.read_speech_commands_task(folder, 12)
    layouts.read_speech_commands_task(folder, 35)
    (folder / "wow").rename(folder / "_wow")
    with pytest.raises(ConfigError, match=r"/wow: no such folder; .* = 35 needs wow"):
        layouts.read_speech_commands_task(folder, 35)
    (folder / "testing_list.txt").unlink()
    with pytest.raises(ConfigError, match=r"testing_list.txt: no such file"):
        layouts.read_speech_commands_task(folder, 12)


def test_speech_commands_cannot_fill_slots(v2: Path) -> None:
    config = configured(v2, data={"speech_commands": "."}, slots={"a": "b"})
    with pytest.raises(ConfigError, match="one label per file"):
        load_dataset(config, quiet)


# --- unknown speech -----------------------------------------------------------------------------


def commands(folder: Path) -> str:
    text = "path,label,split\n"
    for split in ("train", "valid", "test"):
        for label in ("on", "off"):
            sound(folder / f"{label}_{split}.wav")
            text += f"{label}_{split}.wav,{label},{split}\n"
    (folder / "manifest.csv").write_text(text)
    return "manifest.csv"


def test_unknown_recordings_become_windows_of_the_last_label(tmp_path: Path) -> None:
    name = commands(tmp_path)
    sound(tmp_path / "talk" / "long.wav", 8000 * 3 + 4000)
    sound(tmp_path / "talk" / "longer.wav", 8000 * 3 + 3999)
    sound(tmp_path / "talk" / "short.wav", 100)
    (tmp_path / "talk" / "rows.csv").write_text(
        "path,split\nlong.wav,train\nlonger.wav,valid\nshort.wav,test\n"
    )
    data = {"manifests": [name], "unknown": ["talk/rows.csv"]}
    config = configured(tmp_path, data=data, audio={"window_s": 0.5})
    found = load_dataset(config, quiet)
    assert found.labels == ["off", "on", "unknown"]
    windows = [
        (item.path.name, item.start, item.length)
        for item in found.utterances
        if item.label == "unknown"
    ]
    assert windows == [
        *(("long.wav", start, 8000) for start in (0, 8000, 16000, 24000)),
        *(("longer.wav", start, 8000) for start in (0, 8000, 16000)),
        ("short.wav", 0, 0),
    ]
    clips = load_pcm(found, "train", 8000, True, quiet)
    assert clips.labels.tolist() == [1, 0, 2, 2, 2, 2]
    assert clips.lengths.tolist()[2:] == [8000, 8000, 8000, 4000]


def test_unknown_speech_fills_no_slot(tmp_path: Path) -> None:
    commands(tmp_path)
    sound(tmp_path / "x" / "a.wav", 100)
    data = {"manifests": ["manifest.csv"], "unknown": ["x"]}
    slots = {"what": "label", "where": "label /o(?=ff)/"}
    found = load_dataset(configured(tmp_path, data=data, slots=slots), quiet)
    assert found.slots == (Slot("what", ("off", "on", "unknown")), Slot("where", ("none", "o")))
    assert found.utterances[-1].answers == ("unknown", "none")


def test_a_command_is_not_unknown(tmp_path: Path) -> None:
    name = commands(tmp_path)
    data = {"manifests": [name], "unknown": [f"{name}#train"]}
    found = load_dataset(configured(tmp_path, data=data), quiet)
    assert [item.kind for item in found.problems] == ["conflict", "conflict", "untrained"]
    assert "unknown" not in {item.label for item in found.utterances}


def test_unknown_entries_that_cannot_be_used(tmp_path: Path) -> None:
    name = commands(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.csv").write_text("path,label\n")
    for entry, message in (
        ("nope", r"nope: no such file or folder \(\[data\] unknown\)"),
        ("empty", r"empty: no recording in split train, valid, test"),
        (f"{name}#dev", "no split 'dev'; allowed"),
        ("noise.csv", "no column 'split'"),
    ):
        data = {"manifests": [name], "unknown": [entry]}
        with pytest.raises((ConfigError, AudioError), match=message):
            load_dataset(configured(tmp_path, data=data), quiet)


def test_silence_is_quiet_seeded_and_never_twice_the_same() -> None:
    found = unknown.silence(25 * 199 + 1, 1600, 3, "train")
    assert (found.dtype, found.shape) == (np.int16, (200, 1600))
    rms = np.sqrt((found.astype(np.float64) ** 2).mean(axis=1))
    assert rms.max() < 33 and rms.min() < 1 and np.median(rms) > 1
    np.testing.assert_array_equal(found, unknown.silence(25 * 200, 1600, 3, "train"))
    assert (found != unknown.silence(25 * 200, 1600, 4, "train")).any()
    assert (found != unknown.silence(25 * 200, 1600, 3, "test")).any()
    assert unknown.silence(0, 1600, 3, "valid").shape == (0, 1600)

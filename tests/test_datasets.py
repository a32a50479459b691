"""Manifests, folders and windows: a bad row or file is reported and stops nothing."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shared_data import SHARED
from silent import silent

from quads_mcu.audio import datasets, files
from quads_mcu.audio.datasets import load_dataset, load_noise, load_pcm
from quads_mcu.audio.layouts import read_manifest, read_speech_commands
from quads_mcu.audio.splits import SPLITS, choose_valid, speech_commands_split
from quads_mcu.audio.utterances import Clips, Dataset, Problem, Utterance, combine, report
from quads_mcu.config import Config, DataSection
from quads_mcu.errors import AudioError, ConfigError


def sound(path: Path, n: int = 1600, level: float = 3000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = (np.random.default_rng(n).standard_normal(n) * level).astype(np.int16)
    soundfile.write(path, pcm, 16_000)
    return path


def csv_manifest(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def kinds(problems: list[Problem]) -> list[tuple[str, int]]:
    return [(problem.kind, problem.line) for problem in problems]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c", "d"):
        sound(tmp_path / f"{name}.wav")
    return tmp_path


GOOD = "path,label,split,speaker\na.wav,on,train,x\nb.wav,off,valid,y\nc.wav,on,test,\n"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        "\ufeff" + GOOD,
        GOOD.replace(",", " , "),
        GOOD.replace("\n", "\n\n") + "\n,,,\n",
        GOOD.removesuffix("\n"),
        'path,label,split,speaker\n"a.wav","on","train","x"\nb.wav,off,valid,y\nc.wav,on,test,""',
    ],
    ids=["plain", "crlf", "cr", "bom", "spaces", "blank", "no_end", "quoted"],
)
def test_csv(folder: Path, text: str) -> None:
    dataset = read_manifest(csv_manifest(folder, text), "label")
    assert dataset.problems == []
    assert dataset.labels == ["off", "on"]
    assert [(u.path.name, u.label, u.split, u.speaker) for u in dataset.utterances] == [
        ("a.wav", "on", "train", "x"),
        ("b.wav", "off", "valid", "y"),
        ("c.wav", "on", "test", ""),
    ]


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_jsonl(folder: Path, start: str) -> None:
    rows = [
        {"path": "a.wav", "label": 7, "split": "train", "speaker": None, "slots": {"size": "big"}},
        {"path": "b.wav", "label": "größer", "split": "valid"},
    ]
    text = start + "\r\n".join(json.dumps(row) for row in rows) + "\n\n"
    dataset = read_manifest(csv_manifest(folder, text, "m.jsonl"), "label")
    assert dataset.problems == []
    assert dataset.labels == ["7", "größer"]


def test_bad_csv_lines_are_reported_with_their_line(folder: Path) -> None:
    lines = [
        "path,label,split",
        "a.wav,on,train",
        "too,few",
        "b.wav,on,train,too,many",
        ",on,train",
        "b.wav,,train",
        "b.wav,on,dev",
        "nowhere.wav,on,train",
        "x" * 300 + ",on,train",
        "\udcff\udcfe.wav,on,train",
        'b.wav,"on"x,train',
        '"two\nlines.wav",on,train',
        "b.wav,off,valid",
        'c.wav,"never closed,train',
        "d.wav,on,train",
    ]
    dataset = read_manifest(csv_manifest(folder, "\n".join(lines) + "\n"), "label")
    assert [u.path.name for u in dataset.utterances] == ["a.wav", "b.wav"]
    assert kinds(dataset.problems) == [
        ("bad line", 3),
        ("bad line", 4),
        ("bad line", 5),
        ("unlabelled", 6),
        ("unknown split", 7),
        ("missing", 8),
        ("missing", 9),
        ("bad line", 10),
        ("bad line", 11),
        ("missing", 12),
        ("bad line", 15),
    ]
    assert "lost: lines 15 to 16" in dataset.problems[-1].text
    assert "'dev' is not one of train, valid, test" in dataset.problems[4].text
    assert f"{folder / 'nowhere.wav'} ({folder / 'manifest.csv'}:8)" in str(dataset.problems[5])


def test_bad_json_lines(folder: Path) -> None:
    good = '{"path": "a.wav", "label": "on", "split": "train"}'
    lines = [good, "{", "[1]", "null", "[" * 100_000, '{"label": "on", "split": "train"}']
    dataset = read_manifest(csv_manifest(folder, "\n".join(lines), "m.jsonl"), "label")
    assert len(dataset.utterances) == 1
    assert kinds(dataset.problems) == [("bad line", line) for line in (2, 3, 4, 5, 6)]


def test_missing_columns_name_those_found(folder: Path) -> None:
    path = csv_manifest(folder, "file,intent,split\na.wav,on,train\n")
    with pytest.raises(ConfigError, match="no column 'path', 'label'; columns found: 'file', 'in"):
        read_manifest(path, "label")
    path = csv_manifest(folder, "path,intent,split\na.wav,on,train\n")
    assert read_manifest(path, "intent").labels == ["on"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0\0\0", b"\xff\xfep\0a\0t\0h\0,\0"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_not_a_manifest(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="no column 'path'") as caught:
        read_manifest(tmp_path / name, "label")
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["missing.csv", "folder.csv", "manifest.txt"])
def test_unusable_manifest_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=name):
        read_manifest(tmp_path / name, "label")


def test_paths_may_leave_the_folder(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    text = (
        f"path,label,split\n../a.wav,on,train\n{folder / 'b.wav'},on,valid\n"
        "/dev/zero,on,train\n..,on,train\n../none.wav,on,train\n"
    )
    dataset = read_manifest(csv_manifest(inner, text), "label")
    assert len(dataset.utterances) == 2
    assert kinds(dataset.problems) == [("missing", 4), ("missing", 5), ("missing", 6)]


def many(folder: Path, speakers: list[str]) -> Dataset:
    rows = ["path,label,split,speaker,pseudo_speaker"]
    for number, speaker in enumerate(speakers):
        (folder / f"{number}.wav").touch()
        rows.append(f"{number}.wav,{number % 2},train,,{speaker}")
    return read_manifest(csv_manifest(folder, "\n".join(rows)), "label")


def test_valid_split_by_speaker(tmp_path: Path) -> None:
    dataset = many(tmp_path, [f"s{number % 20}" for number in range(200)])
    split_of = collections.defaultdict(set)
    for item in dataset.utterances:
        split_of[item.speaker].add(item.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    assert sum(splits == {"valid"} for splits in split_of.values()) == 2
    assert dataset.utterances == many(tmp_path, [f"s{n % 20}" for n in range(200)]).utterances


@pytest.mark.parametrize("speakers", [[""] * 40, ["one"] * 40, ["one", "two"] * 20])
def test_valid_split_without_enough_speakers_takes_a_tenth_of_each_label(
    tmp_path: Path, speakers: list[str]
) -> None:
    valid = [item for item in many(tmp_path, speakers).utterances if item.split == "valid"]
    assert collections.Counter(item.label for item in valid) == {"0": 2, "1": 2}


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 0), (2, 1), (3, 1), (15, 2), (100, 10)])
def test_share_of_valid(n: int, expected: int) -> None:
    names = [f"{number}.wav" for number in range(n)]
    chosen = choose_valid(names, ["on"] * n, [""] * n)
    assert len(chosen) == expected
    # Adding rows elsewhere does not move a row that was chosen by its name.
    assert chosen == choose_valid(names, ["on"] * n, [""] * n)


def test_no_train_needs_no_valid(folder: Path) -> None:
    dataset = read_manifest(csv_manifest(folder, "path,label,split\na.wav,on,test\n"), "label")
    assert [item.split for item in dataset.utterances] == ["test"]


# Names from the validation and testing lists that come with Speech Commands v0.01.
@pytest.mark.parametrize(
    ("split", "speakers"),
    [
        ("valid", "3aa6f4e2 471a0925 4abefdf5 7c1d8533 364c0853 6a27a9bf 56eb74ae"),
        ("test", "0c40e715 0ea0e2f4 42beb5eb 44260689 022cd682 ffb86d3c e41a903b f6af2457"),
    ],
)
def test_speech_commands_rule(split: str, speakers: str) -> None:
    for speaker in speakers.split():
        assert speech_commands_split(f"{speaker}_nohash_0.wav") == split
        assert speech_commands_split(f"{speaker}_nohash_12.wav") == split


def speech_commands(folder: Path) -> Path:
    names = ["0c40e715_nohash_0.wav", "471a0925_nohash_3.wav", "aaaaaaaa_nohash_0.wav"]
    for label in ("up", "down", "bird"):
        for name in names:
            sound(folder / label / name)
    sound(folder / "_background_noise_" / "tap.wav")
    (folder / "up" / "README.md").write_text("text")
    (folder / "README.md").write_text("text")
    (folder / "nothing").mkdir()
    (folder / ".git").mkdir()
    return folder


def test_speech_commands_by_hash(tmp_path: Path) -> None:
    dataset = read_speech_commands(speech_commands(tmp_path))
    assert dataset.labels == ["bird", "down", "up"]
    assert [(p.path.name, p.kind) for p in dataset.problems] == [("nothing", "missing")]
    up = {item.path.name[:8]: item.split for item in dataset.utterances if item.label == "up"}
    assert up == {"0c40e715": "test", "471a0925": "valid", "aaaaaaaa": "train"}
    assert {item.speaker for item in dataset.utterances} == set(up)


def test_speech_commands_by_lists(tmp_path: Path) -> None:
    speech_commands(tmp_path)
    (tmp_path / "testing_list.txt").write_text("up/aaaaaaaa_nohash_0.wav\n")
    (tmp_path / "validation_list.txt").write_text("up/0c40e715_nohash_0.wav\r\n")
    dataset = read_speech_commands(tmp_path)
    up = {item.path.name[:8]: item.split for item in dataset.utterances if item.label == "up"}
    assert up == {"0c40e715": "valid", "471a0925": "train", "aaaaaaaa": "test"}


def test_speech_commands_of_some_classes(tmp_path: Path) -> None:
    dataset = read_speech_commands(speech_commands(tmp_path), ["up", "down"])
    assert dataset.labels == ["down", "up"]
    assert "'bird' is not in [intents]; 3 files left out" in str(dataset.problems[0])


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_no_speech_commands(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=name):
        read_speech_commands(tmp_path / name)


def test_combine_finds_conflicts_duplicates_and_leaks(folder: Path) -> None:
    (folder / "sub").mkdir()
    text = (
        "path,label,split\na.wav,on,train\na.wav,on,train\nb.wav,on,train\nb.wav,off,train\n"
        "c.wav,on,train\nsub/../c.wav,on,test\nd.wav,dim,valid\n"
    )
    part = read_manifest(csv_manifest(folder, text), "label")
    dataset = combine([part], ["off", "on"])
    assert [(u.path.name, u.split) for u in dataset.utterances] == [
        ("a.wav", "train"),
        ("c.wav", "train"),
    ]
    assert dataset.labels == ["off", "on"]
    assert kinds(dataset.problems) == [
        ("unknown label", 8),
        ("duplicate", 3),
        ("conflict", 4),
        ("conflict", 5),
        ("leak", 7),
    ]
    assert combine([part]).labels == ["dim", "on"]


def test_load_dataset(folder: Path) -> None:
    speech_commands(folder / "sc")
    csv_manifest(folder, GOOD.replace("label", "intent"))
    csv_manifest(folder, "path,label,split\nd.wav,on,train\n", "synth.csv")
    data = DataSection(["manifest.csv"], "sc", label_column="intent")
    intents = {name: ["x"] for name in ("up", "on", "off", "dim")}
    calls: list[float] = []
    dataset = load_dataset(
        Config(data=data, intents=intents, root=folder),
        lambda _text, completed, _total: calls.append(completed),
        extra=[folder / "synth.csv"],
    )
    assert dataset.labels == ["up", "on", "off", "dim"]
    assert len(dataset.utterances) == 7
    assert calls == [1, 2, 3]
    untrained = [problem.text for problem in dataset.problems if problem.kind == "untrained"]
    assert untrained == [f"no training utterance for label {name!r}" for name in ("off", "dim")]


def test_load_dataset_without_sources(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no training data: name manifests"):
        load_dataset(Config(), silent)
    csv_manifest(folder, "path,label,split\nx.wav,on,train\n")
    config = Config(data=DataSection(["manifest.csv"]), root=folder)
    with pytest.raises(AudioError, match=r"no usable utterance; problems: 1, the first: .*x\.wav"):
        load_dataset(config, silent)


def dataset_of(*paths: Path) -> Dataset:
    rows = [Utterance(path, ("on",), "train", "", f"m.csv:{n}") for n, path in enumerate(paths, 2)]
    return Dataset(rows, [], ["off", "on"])


def test_load_pcm_reports_every_bad_file(tmp_path: Path) -> None:
    good = sound(tmp_path / "good.wav", 800)
    long = sound(tmp_path / "long.flac", 2000)
    clipped = tmp_path / "clipped.wav"
    square = np.tile(np.array([32767, -32768], np.int16), 500)
    soundfile.write(clipped, square, 16_000)
    quiet = tmp_path / "silent.wav"
    soundfile.write(quiet, np.full(900, -32, np.int16), 16_000)
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, np.int16), 16_000)
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    dataset = dataset_of(good, long, clipped, quiet, empty, text, tmp_path / "gone.wav")
    clips = load_pcm(dataset, "train", 1000, False, silent)
    assert kinds(clips.problems) == [
        ("too long", 3),
        ("clipped", 4),
        ("silent", 5),
        ("empty", 6),
        ("unreadable", 7),
        ("unreadable", 8),
    ]
    assert [u.path for u in clips.utterances] == [good, long, clipped]
    assert (clips.pcm.shape, clips.pcm.dtype) == ((3, 1000), np.int16)
    assert (clips.labels.tolist(), clips.lengths.tolist()) == ([1, 1, 1], [800, 1000, 1000])
    np.testing.assert_array_equal(clips.pcm[2], square)
    np.testing.assert_array_equal(clips.pcm[0, :800], soundfile.read(good, dtype="int16")[0])
    assert not clips.pcm[0, 800:].any()
    assert clips.problems[0].manifest == Path("m.csv")


def test_load_pcm_trims_before_it_crops(tmp_path: Path) -> None:
    pcm = np.zeros(80_000, np.int16)
    pcm[40_000:56_000] = np.random.default_rng(0).standard_normal(16_000) * 3000
    soundfile.write(tmp_path / "a.wav", pcm, 16_000)
    clips = load_pcm(dataset_of(tmp_path / "a.wav"), "train", 32_000, True, silent)
    assert clips.problems == []
    assert clips.lengths.tolist() == [16_000 + 1600 + 2400]
    np.testing.assert_array_equal(clips.pcm[0, 1600:17_600], pcm[40_000:56_000])


def test_load_pcm_of_an_empty_or_unknown_split() -> None:
    clips = load_pcm(Dataset([], [], []), "test", 100, True, silent)
    assert (clips.pcm.shape, clips.labels.shape, clips.lengths.shape) == ((0, 100), (0,), (0,))
    with pytest.raises(ConfigError, match="no split 'dev'; allowed: train, valid, test"):
        load_pcm(Dataset([], [], []), "dev", 100, True, silent)


def test_windows_that_no_memory_holds(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"split train: 1 windows of .* more than the .*window_s"):
        load_pcm(dataset_of(tmp_path / "a.wav"), "train", 1 << 55, True, silent)


def noise_config(folder: Path, *entries: str) -> Config:
    return Config(data=DataSection(noise=list(entries)), root=folder)


def test_load_noise(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test", "valid"), 1):
        sound(tmp_path / "set" / f"{name}.wav", 100 * number)
    sound(tmp_path / "folder" / "deep" / "z.flac", 500)
    sound(tmp_path / "folder" / "a.wav", 600)
    (tmp_path / "folder" / "notes.txt").write_text("text")
    sound(tmp_path / "one.wav", 700)
    rows = "".join(f"{name}.wav,{name}\n" for name in ("train", "test", "valid"))
    csv_manifest(tmp_path / "set", "path,split\n" + rows)
    csv_manifest(tmp_path / "set", "path\ntest.wav\nvalid.wav\n", "all.csv")
    config = noise_config(tmp_path, "set/manifest.csv", "set/all.csv", "folder", "one.wav")
    assert [len(noise) for noise in load_noise(config)] == [100, 200, 300, 600, 500, 700]
    assert load_noise(Config()) == []


@pytest.mark.parametrize(
    ("entry", "error", "match"),
    [
        ("missing.wav", ConfigError, "no such file or folder"),
        ("missing.csv", ConfigError, "cannot be read"),
        ("empty", ConfigError, "no noise recordings"),
        ("test.csv", ConfigError, "no noise recordings"),
        ("bad.csv", ConfigError, "bad.csv:2: 3 fields"),
        ("silent.wav", AudioError, "without sound"),
        ("text.wav", AudioError, "not a readable"),
    ],
)
def test_unusable_noise(tmp_path: Path, entry: str, error: type[Exception], match: str) -> None:
    (tmp_path / "empty").mkdir()
    csv_manifest(tmp_path, "path,split\na.wav,test\n", "test.csv")
    csv_manifest(tmp_path, "path,split\na,b,c\n", "bad.csv")
    soundfile.write(tmp_path / "silent.wav", np.zeros(100, np.int16), 16_000)
    (tmp_path / "text.wav").write_text("text")
    with pytest.raises(error, match=match):
        load_noise(noise_config(tmp_path, entry))


def test_report_counts_and_shows_the_first_few() -> None:
    problems = [Problem(Path(f"{n}.wav"), n, "silent", "silent", Path("m.csv")) for n in range(5)]
    problems.append(Problem(Path("x"), 0, "missing", "no sound files"))
    assert report(problems).splitlines() == [
        "silent: 5",
        "  0.wav (m.csv:0): silent",
        "  1.wav (m.csv:1): silent",
        "  2.wav (m.csv:2): silent",
        "  ... and 2 more",
        "missing: 1",
        "  x: no sound files",
    ]
    assert report([]) == ""


def real(name: str) -> Config:
    path = SHARED / name / "manifest.csv"
    if not path.is_file():
        pytest.skip(f"no {name} recordings in {SHARED} (set QUADS_SHARED_DATA)")
    return Config(data=DataSection(manifests=[str(path)]))


@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [
        ("wakewords", (1254, 216, 354), 6),
        ("s2i", (311, 51, 116), 10),
        ("digits", (1500, 500, 500), 10),
    ],
)
def test_real_manifests(name: str, counts: tuple[int, int, int], classes: int) -> None:
    dataset = load_dataset(real(name), silent)
    found = collections.Counter(item.split for item in dataset.utterances)
    assert tuple(found[split] for split in SPLITS) == counts
    assert (dataset.problems, len(dataset.labels)) == ([], classes)


def test_real_clips_come_out_bit_identical() -> None:
    dataset = load_dataset(real("wakewords"), silent)
    clips = load_pcm(dataset, "valid", 32_000, False, silent)
    assert len(clips.pcm) == 216
    for row, item in enumerate(clips.utterances):
        pcm = soundfile.read(item.path, dtype="int16")[0]
        if len(pcm) <= 32_000:
            np.testing.assert_array_equal(clips.pcm[row, : len(pcm)], pcm)


def test_trimmed_orders_are_about_3_s() -> None:
    dataset = load_dataset(real("s2i"), silent)
    chosen = [item for item in dataset.utterances if item.split != "test"]
    lengths_s = [len(files.trim(files.load(item.path))) / 16_000 for item in chosen]
    assert 3.1 < float(np.median(lengths_s)) < 3.4
    assert float(np.mean(np.array(lengths_s) < 6.0)) >= 0.99


def test_manifest_entry_can_name_its_splits(tmp_path: Path) -> None:
    rows = "path,label,split\n"
    for index, split in enumerate(("train", "valid", "test")):
        files.write_wav(tmp_path / f"{index}.wav", np.full(1600, 1000 + index, np.int16))
        rows += f"{index}.wav,a,{split}\n"
    (tmp_path / "m.csv").write_text(rows)

    def splits(entry: str) -> list[str]:
        section = DataSection(manifests=[entry])
        config = Config(data=section, root=tmp_path)
        return [item.split for item in datasets.load_dataset(config, lambda *_: None).utterances]

    assert splits("m.csv") == ["train", "valid", "test"]
    assert splits("m.csv#test") == ["test"]
    assert splits("m.csv#train,valid") == ["train", "valid"]
    with pytest.raises(ConfigError, match="no split 'tset'; allowed: train, valid, test"):
        splits("m.csv#tset")


def test_spread_takes_rows_from_everywhere() -> None:
    utterances = [Utterance(Path(str(i)), ("a",), "test", "", str(i)) for i in range(10)]
    clips = Clips(
        np.arange(10, dtype=np.int16)[:, None],
        np.arange(10)[:, None],
        np.ones(10, np.int64),
        utterances,
        [],
    )
    assert clips.spread(4).pcm[:, 0].tolist() == [0, 3, 6, 9]
    assert clips.spread(99).labels.tolist() == list(range(10))
    assert [item.source for item in clips.spread(2).utterances] == ["0", "9"]


def test_synthesized_test_clips_are_used_only_without_recorded_ones(tmp_path: Path) -> None:
    for name in ("real", "spoken"):
        text = "path,label,split\n"
        for split in ("train", "valid", "test"):
            sound(tmp_path / f"{name}_{split}.wav")
            text += f"{name}_{split}.wav,a,{split}\n"
        (tmp_path / f"{name}.csv").write_text(text)

    def tested(manifests: list[str]) -> list[str]:
        config = Config(data=DataSection(manifests=manifests), root=tmp_path)
        dataset = load_dataset(config, silent, [tmp_path / "spoken.csv"])
        return [item.path.name for item in dataset.utterances if item.split == "test"]

    assert tested(["real.csv"]) == ["real_test.wav"]
    assert tested(["real.csv#train"]) == ["spoken_test.wav"]

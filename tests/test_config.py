"""quads.toml: defaults, limits, refusals with a next step, and what `render` writes loads again."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quads_mcu import config as project
from quads_mcu.config import AudioSection, Config, DataSection, StudentSection, TrainSection
from quads_mcu.errors import ConfigError

SECTIONS = [
    "project", "intents", "slots", "values", "data", "audio", "student", "teacher", "train",
    "augment", "quantization", "rejection", "listen", "target", "thresholds",
]  # fmt: skip


def write(folder: Path, text: str) -> Path:
    path = folder / "quads.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    """Return the message of the refusal, which must name the file and be one line."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        project.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert caught.value.exit_code == 2
    return message.removeprefix(f"{path}: ")


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    config = project.load(write(tmp_path, ""))
    assert config == Config()
    assert (config.project.name, config.audio.n_mels, config.audio.window_s) == ("voice", 40, 2.0)
    assert config.root == tmp_path


def test_a_folder_means_its_quads_toml(tmp_path: Path) -> None:
    write(tmp_path, "[audio]\nn_mels = 80\n")
    assert project.load(tmp_path).audio == AudioSection(n_mels=80)


def test_base_holds_for_what_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "whole.toml").write_text(
        '[project]\nname = "a"\n[intents]\non = ["on"]\noff = ["off"]\n'
        "[train]\ncycles = 7\nalpha = 0.25\n",
        encoding="utf-8",
    )
    text = '[project]\nbase = "whole.toml"\n[intents]\ngo = ["go"]\n[train]\nalpha = 0.75\n'
    config = project.load(write(tmp_path, text))
    assert config.train == TrainSection(cycles=7, alpha=0.75)
    assert config.intents == {"go": ["go"]}
    assert (config.project.name, config.root) == ("a", tmp_path)


def test_base_is_one_file_of_the_same_folder(tmp_path: Path) -> None:
    for name in ("../other.toml", "/etc/passwd", "a/b.toml"):
        message = refused(tmp_path, f'[project]\nbase = "{name}"\n')
        assert message.startswith(f"[project] base = {name!r} must be the name of a file")
    message = refused(tmp_path, '[project]\nbase = "quads.toml"\n')
    assert message == "[project] base = 'quads.toml' has a base itself; name that one"
    (tmp_path / "wrong.toml").write_text("[train]\nalpha = 2\n", encoding="utf-8")
    path = write(tmp_path, '[project]\nbase = "wrong.toml"\n[train]\nalpha = 0.5\n')
    with pytest.raises(ConfigError, match=r"wrong\.toml: \[train\] alpha = 2"):
        project.load(path)
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        project.load(write(tmp_path, '[project]\nbase = "none.toml"\n'))


def test_settings_are_taken(tmp_path: Path) -> None:
    text = """
    [intents]
    lights_on = ["turn on the lights", "lights on"]
    "größe 😀" = ["größer"]
    [data]
    manifests = ["a.csv", "b.jsonl"]
    trim = true
    [audio]
    window_s = 3
    [augment]
    snr_db = [3, 9.5]
    """
    config = project.load(write(tmp_path, text))
    assert config.intents["größe 😀"] == ["größer"]
    assert config.data == DataSection(manifests=["a.csv", "b.jsonl"], trim=True)
    assert config.audio.window_s == 3.0 and isinstance(config.audio.window_s, float)
    assert config.augment.snr_db == [3.0, 9.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]", f"unknown section [trian]; did you mean train? allowed: {', '.join(SECTIONS)}"),
        ("x = 1", f"unknown section [x]; allowed: {', '.join(SECTIONS)}"),
        (
            "[audio]\nn_mel = 40",
            "unknown key [audio] n_mel; did you mean n_mels? allowed: n_mels, window_s",
        ),
        ("[audio]\nwindow_s.x = 1", "[audio] window_s must be of type float, not {'x': 1}"),
        ("audio = 3", "audio must be a section [audio], not 3"),
        ("[[audio]]", "audio must be a section [audio], not [{}]"),
        ("[audio]\nn_mels = 41", "[audio] n_mels = 41 is not one of: 40, 80"),
        ('[audio]\nn_mels = "40"', "[audio] n_mels must be of type int, not '40'"),
        ("[audio]\nn_mels = 40.0", "[audio] n_mels must be of type int, not 40.0"),
        ("[audio]\nwindow_s = 0.4", "[audio] window_s = 0.4 is outside 0.5 .. 30.0"),
        ("[audio]\nwindow_s = 31", "[audio] window_s = 31.0 is outside 0.5 .. 30.0"),
        ("[audio]\nwindow_s = nan", "[audio] window_s = nan is not a finite number"),
        ("[train]\nalpha = inf", "[train] alpha = inf is not a finite number"),
        ("[augment]\nsnr_db = [nan, 1]", "[augment] snr_db = nan is not a finite number"),
        ("[audio]\nwindow_s = 1" + "0" * 400, "[audio] window_s is too large for a number"),
        ("[train]\nthreads = -1", "[train] threads = -1 is outside 0 .. 1024"),
        ("[thresholds]\nram_bytes = -1", "[thresholds] ram_bytes = -1 is outside 0 .. inf"),
        ("[train]\ncycles = true", "[train] cycles must be of type int, not True"),
        ("[data]\ntrim = 1", "[data] trim must be of type bool, not 1"),
        ('[data]\nmanifests = "a.csv"', "[data] manifests must be a list, not 'a.csv'"),
        ("[data]\nmanifests = [1]", "[data] manifests must be of type str, not 1"),
        ('[augment]\nsnr_db = ["6"]', "[augment] snr_db must be of type float, not '6'"),
        ('[student]\npreset = "d96"', "[student] preset: no architecture 'd96'; there are "
         "d64x2, d96x2, d128x3, d192x4, d384x4, whisper-tiny, whisper-base, whisper-small, "
         "whisper-medium, whisper-large, and any dWIDTHxLAYERS"),
        ('[student]\npreset = "d100x2"', "[student] preset: d100x2: a width of 100; it must be a "
         "multiple of 32, a head's"),
        ('[student]\npreset = "d96x33"', "[student] preset: d96x33: n_layers = 33 is outside "
         "1 .. 32"),
        ("[train]\ndistill_epochs = [3, -1]", "[train] distill_epochs = -1 is outside 0 .. 1000"),
        ("[train]\ncycles = 3\nquant_epochs = [3, 1]", "[train] quant_epochs = [3, 1] is of 2 "
         "cycles, and cycles = 3; give one number for each cycle, or one for all"),
        ('[intents]\non = "turn on"', "[intents] on must be a list of phrases"),
        ("[intents]\non = []", "[intents] on must be a list of phrases"),
        ('[intents]\non = ["x", " "]', "[intents] on must be a list of phrases"),
        ("[intents]\non = [1]", "[intents] on must be a list of phrases"),
        ("[slots]\nsize = 1", "[slots] size must name a manifest column"),
        ('[slots]\nsize = " "', "[slots] size must name a manifest column"),
        ("[quantization]\ntrain_scales = true", "[quantization] train_scales = true trains the "
         "scales of channel_scales, which is false; set channel_scales = true, or "
         "train_scales = false"),
        ('[train]\ncrop = true\n[student]\npooling = "mean"', "[train] crop trains on shorter "
         'windows, over which [student] pooling = "mean" is another mean; set pooling = '
         '"attention", or crop = false'),
        ('[train]\ncrop = true\ntoken_share = 0.5\n[teacher]\nweights = "x.npz"', "[train] crop "
         "compares token by token, and token_share = 0.5 also means over whole windows; set "
         "token_share = 1.0, or crop = false"),
        ('[slots]\nsize = "a"\n[intents]\non = ["x"]', "[intents] names the labels of one slot, "
         "[slots] several; use one of them"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text) == message


@pytest.mark.parametrize(
    "text", ["[audio", "[a]\n[a]", "x = ", "[audio]\nn_mels = 1" + "0" * 5000, "x=" + "[" * 50_000]
)
def test_not_toml(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).startswith("not valid TOML: ")


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; `quads-mcu init NAME` writes one"):
        project.load(tmp_path / "quads.toml")
    (tmp_path / "latin1.toml").write_bytes(b'[project]\nname = "gr\xf6\xdfe"\n')
    with pytest.raises(ConfigError, match=r"latin1\.toml: cannot be read: "):
        project.load(tmp_path / "latin1.toml")


def test_render_explains_every_setting() -> None:
    lines = project.render(Config()).splitlines()
    sections = [line.strip("[]") for line in lines if line.startswith("[")]
    assert sections == SECTIONS
    for number, line in enumerate(lines):
        assert len(line) <= 110
        if " = " in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# ")
    assert "# Mel bands. One of 40, 80." in lines
    assert "# Seed of everything random. (0 .. 2147483647)" in lines


def test_render_is_valid_toml_with_every_key() -> None:
    tree = tomllib.loads(project.render(Config()))
    for section in dataclasses.fields(Config):
        if section.name not in ("root", "intents", "slots", "values"):
            kind = getattr(Config(), section.name)
            assert list(tree[section.name]) == [item.name for item in dataclasses.fields(kind)]


# Lone surrogates cannot be written as UTF-8, so no file can hold them.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    intents=st.dictionaries(TEXT, st.lists(TEXT.filter(str.strip), min_size=1, max_size=3)),
    texts=st.lists(TEXT, max_size=3),
    number=st.floats(0.0, 1.0),
    flag=st.booleans(),
)
def test_what_render_writes_loads_again(
    tmp_path_factory: pytest.TempPathFactory,
    intents: dict[str, list[str]],
    texts: list[str],
    number: float,
    flag: bool,
) -> None:
    config = Config(
        intents=intents,
        data=DataSection(manifests=texts, noise=texts, trim=flag, label_column="\x7f\\\"'\t"),
        student=StudentSection(init="".join(texts)),
        train=TrainSection(alpha=number, lr_encoder=number * 1e-7),
    )
    folder = tmp_path_factory.mktemp("config")
    assert project.load(write(folder, project.render(config))) == config
    assert list(project.load(folder).intents) == list(intents)


def test_tree_round_trip() -> None:
    config = Config(intents={"on": ["x"]}, audio=AudioSection(80, 1.5))
    assert project.from_tree(project.to_tree(config), where="settings") == config


def test_presets_are_the_models() -> None:
    from quads_mcu.model.dimensions import PRESETS

    for preset in (*PRESETS, "d32x1", "d160x3", "d512x6", "d1280x32"):
        tree = {"student": {"preset": preset}}
        assert project.from_tree(tree, where="x").student.preset == preset


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("data/a.csv", "/project/data/a.csv"),
        ("../a.csv", "/project/../a.csv"),
        ("/abs/a.csv", "/abs/a.csv"),
        ("${SPEECH}/a.csv", "/corpora/a.csv"),
        ("${NOT_SET:-/fallback}/a.csv", "/fallback/a.csv"),
        ("${NOT_SET:-near}/a.csv", "/project/near/a.csv"),
        ("${SPEECH:-/fallback}/a.csv", "/corpora/a.csv"),
        ("a$b{c}", "/project/a$b{c}"),
        ("${unclosed", "/project/${unclosed"),
    ],
)
def test_resolve(monkeypatch: pytest.MonkeyPatch, entry: str, expected: str) -> None:
    monkeypatch.setenv("SPEECH", "/corpora")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert Config(root=Path("/project")).resolve(entry) == Path(expected)


def test_unset_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match=r"variable NOT_SET \(used in '\$\{NOT_SET\}/x'\) is not"):
        Config().resolve("${NOT_SET}/x")


def test_sections_are_frozen() -> None:
    frozen: Any = Config().audio
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.n_mels = 80


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parent.parent / "examples").glob("*/*.toml")),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_every_recipe_of_the_examples_loads(path: Path) -> None:
    """One that inherits may contradict what its base says now."""
    assert project.load(path).project.name

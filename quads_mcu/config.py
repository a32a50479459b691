"""The project file `quads.toml`: every setting with its default, unit and limits.

The dataclasses below are the one source: `quads-mcu init` writes the commented file from them,
and `load` refuses whatever they do not describe.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quads_mcu.errors import ConfigError
from quads_mcu.model import dimensions

SAMPLE_RATE = 16_000
FILE_NAME = "quads.toml"


def _setting(
    default: Any,
    doc: str,
    *,
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    metadata = {"doc": doc, "choices": choices, "low": low, "high": high}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ProjectSection:
    """[project]"""

    name: str = _setting("voice", "Name of the project; appears in reports and firmware.")
    seed: int = _setting(0, "Seed of everything random.", low=0, high=2**31 - 1)
    base: str = _setting(
        "", "Project file beside this one that holds for every setting not written here."
    )


@dataclass(frozen=True)
class DataSection:
    """[data]"""

    manifests: list[str] = _setting(
        [],
        "Manifests (CSV, JSONL: path, label, split), relative to this file; FILE#test: one split.",
    )
    speech_commands: str = _setting("", "Folder in the Speech Commands layout; empty for none.")
    speech_commands_task: int = _setting(
        0,
        "Official task: ten words with _unknown_ and _silence_, or 35; 0: as [intents].",
        choices=(0, 12, 35),
    )
    fsc: str = _setting("", "Folder of Fluent Speech Commands; empty for none.")
    slurp: str = _setting("", "Folder of SLURP; empty for none.")
    unknown: list[str] = _setting(
        [],
        "What is no command: manifests (FILE#test: one split), folders, texts (.txt, .csv).",
    )
    unknown_texts: int = _setting(
        1000,
        "Of a file of texts under unknown: how many are spoken (espeak-ng).",
        low=1,
        high=1_000_000,
    )
    unknown_share: float = _setting(
        0.4, "Largest share of an epoch that is unknown speech.", low=0.0, high=0.95
    )
    unlabelled: list[str] = _setting(
        [], "Other speech to learn the teacher's features from: manifests or folders, split train."
    )
    label_column: str = _setting(
        "label", "Manifest column that holds the intent, where there is no [slots]."
    )
    noise: list[str] = _setting(
        [], "Noise for augmentation: manifests (split train is used), sound files or folders."
    )
    trim: bool = _setting(False, "Cut leading and trailing silence before the window is placed.")
    synth: bool = _setting(
        False, "Add synthesized speech (espeak-ng) of the [intents] phrases or the templates."
    )
    synth_per_phrase: int = _setting(
        60, "Synthesized training utterances per phrase or template.", low=1, high=100_000
    )
    templates: list[str] = _setting(
        [], "Commands with [slots]: `(make|get) me a [{size}] {drink}`, said with [values]."
    )


@dataclass(frozen=True)
class AudioSection:
    """[audio]"""

    n_mels: int = _setting(40, "Mel bands.", choices=(40, 80))
    window_s: float = _setting(2.0, "Length of the utterance window, s.", low=0.5, high=30.0)


@dataclass(frozen=True)
class StudentSection:
    """[student]"""

    preset: str = _setting(
        "d96x2",
        f"Width and depth, dWIDTHxLAYERS: {', '.join(dimensions.PRESETS)}, or any between.",
    )
    init: str = _setting(
        "random",
        '"random", "teacher" (as fine-tuned), or a Whisper encoder as in [teacher]; cut to size.',
    )
    pooling: str = _setting(
        "attention",
        "Over time: an attention pool for each slot (the teacher's as well), or one mean.",
        choices=("attention", "mean"),
    )


@dataclass(frozen=True)
class TeacherSection:
    """[teacher]"""

    weights: str = _setting(
        "",
        "Whisper encoder (.npz, .safetensors, .pt, transformers folder, hub id); empty: none.",
    )
    projection: str = _setting(
        "linear",
        "Between features of different width: learned, or the authors' dilated max-pool.",
        choices=("linear", "pooling"),
    )
    fine_tune_epochs: int = _setting(
        0, "Epochs of training the teacher's encoder on the task first.", low=0, high=1000
    )
    fine_tune_lr: float = _setting(
        1e-4, "Peak learning rate of the teacher's training.", low=0.0, high=1.0
    )
    head_epochs: int = _setting(
        60, "Epochs of training the head on the frozen teacher.", low=1, high=10_000
    )


@dataclass(frozen=True)
class TrainSection:
    """[train]"""

    seed: int = _setting(
        0,
        "Another training of the student, on the same data with the same teacher.",
        low=0,
        high=2**20,
    )
    warmup_epochs: int = _setting(
        14, "Distillation epochs before the first cycle.", low=0, high=10_000
    )
    cycles: int = _setting(2, "Distillation-quantization cycles (paper: 5).", low=0, high=100)
    distill_epochs: int | list[int] = _setting(
        2, "Epochs per distillation phase; [3, 6]: of each cycle.", low=0, high=1000
    )
    quant_epochs: int | list[int] = _setting(
        1, "Epochs per quantization phase, or of each cycle.", low=0, high=1000
    )
    final_epochs: int = _setting(
        3,
        "Epochs of the final quantization phase (Eq. 6); 0: codebooks are fitted, not trained.",
        low=0,
        high=1000,
    )
    synth_ratio: float = _setting(
        0.0, "Synthesized utterances per recording in an epoch; 0: all of them.", low=0, high=1000
    )
    batch_size: int = _setting(32, "Utterances per step.", low=1, high=4096)
    crop: bool = _setting(
        False, "Train on windows that end half a second after a batch's longest utterance."
    )
    alpha: float = _setting(
        0.5, "Weight of the feature loss against cross-entropy (Eq. 3).", low=0.0, high=1.0
    )
    token_share: float = _setting(
        0.0,
        "Share of the feature loss on every token of a teacher in quiet, whose head answers.",
        low=0.0,
        high=1.0,
    )
    logit_share: float = _setting(
        0.0, "Share of the teacher's answers in the classification loss.", low=0.0, high=1.0
    )
    average: float = _setting(
        0.0,
        "Decay of a moving average of the weights in distillation; 0: none.",
        low=0,
        high=0.9999,
    )
    lr_encoder: float = _setting(
        2e-3,
        "Peak learning rate of the encoder; about 1e-4 for one that starts from Whisper.",
        low=0.0,
        high=1.0,
    )
    lr_head: float = _setting(
        2e-3, "Peak learning rate of the head and of the projection.", low=0.0, high=1.0
    )
    lr_quant: float = _setting(
        2e-4, "Peak learning rate in quantization phases.", low=0.0, high=1.0
    )
    quant_optimizer: str = _setting(
        "adamw",
        "Of quantization phases; sgd has momentum 0.9, as in the authors' code.",
        choices=("adamw", "sgd"),
    )
    reassign_steps: int = _setting(
        10,
        "Steps after which weights go to the nearest centroid; 0: they keep the one fitted.",
        low=0,
        high=1_000_000,
    )
    threads: int = _setting(0, "CPU threads; 0: all cores.", low=0, high=1024)
    device: str = _setting(
        "auto", "Where to train; auto: a GPU if there is one.", choices=("auto", "cpu", "cuda")
    )

    def cycle_epochs(self) -> list[tuple[int, int]]:
        """Return the epochs of distillation and of quantization in every cycle."""
        distill, quantize = (
            epochs if isinstance(epochs, list) else [epochs] * self.cycles
            for epochs in (self.distill_epochs, self.quant_epochs)
        )
        return list(zip(distill, quantize, strict=True))


@dataclass(frozen=True)
class AugmentSection:
    """[augment]"""

    noise_probability: float = _setting(0.5, "Share of utterances with noise.", low=0, high=1)
    snr_db: list[float] = _setting([6.0, 24.0], "Lowest and highest signal-to-noise ratio, dB.")
    reverb_probability: float = _setting(0.2, "Share with a room response.", low=0, high=1)
    narrowband_probability: float = _setting(
        0.0, "Share whose speech ends at 3.4-4 kHz, as a telephone's does.", low=0, high=1
    )
    gain_db: float = _setting(10.0, "Gain is drawn from +- this, dB.", low=0, high=40)
    shift_s: float = _setting(0.2, "Largest shift within the window, s.", low=0, high=10)
    speed: float = _setting(0.1, "Speed factor is drawn from 1 +- this.", low=0, high=0.5)
    time_masks: int = _setting(2, "SpecAugment time masks.", low=0, high=10)
    frequency_masks: int = _setting(2, "SpecAugment frequency masks.", low=0, high=10)


@dataclass(frozen=True)
class QuantizationSection:
    """[quantization]"""

    bits: int = _setting(
        4,
        "Bits per weight index; 32 and 16: float students to compare with.",
        choices=(32, 16, 8, 4, 3, 2),
    )
    budget_bytes: int = _setting(
        0, "Choose bits per matrix so that the weights fit, bytes; 0: the same bits for all.", low=0
    )
    channel_scales: bool = _setting(
        False, "A scale per output channel besides the codebook of each matrix."
    )
    train_scales: bool = _setting(
        False, "Train the scales of channel_scales with the codebooks; for 2 bits."
    )
    reconstruction_passes: int = _setting(
        0,
        "Before the final phase: passes in which each block learns what its float version does.",
        low=0,
        high=1000,
    )


@dataclass(frozen=True)
class RejectionSection:
    """[rejection]"""

    false_accepts_per_hour: float = _setting(
        0.5,
        "Most false accepts per hour of unknown speech in split valid; sets the threshold.",
        low=0.0,
        high=3600.0,
    )


@dataclass(frozen=True)
class ListenSection:
    """[listen]"""

    gate_db: float = _setting(
        12.0, "A band counts as speech this far above its noise floor, dB.", low=1, high=60
    )
    lead_ms: int = _setting(
        500, "Audio before the speech, ms: what the training clips have there.", low=0, high=2000
    )
    tail_ms: int = _setting(
        200, "Pause after which the answer is prepared; kept behind the speech, ms.",
        low=10, high=2000,
    )  # fmt: skip
    hangover_ms: int = _setting(
        500, "Pause that ends an utterance, at least tail_ms, ms.", low=10, high=5000
    )


@dataclass(frozen=True)
class TargetSection:
    """[target]"""

    board: str = _setting("qemu-an386", "Board; see `quads-mcu boards`.")


@dataclass(frozen=True)
class ThresholdSection:
    """[thresholds]"""

    accuracy_percent: float = _setting(
        0.0, "Least accuracy on the board, percent.", low=0, high=100
    )
    float_gap_points: float = _setting(
        100.0, "Largest loss of accuracy against the float student, points.", low=0, high=100
    )
    weight_bytes: int = _setting(0, "Largest size of the weights, bytes; 0: no limit.", low=0)
    ram_bytes: int = _setting(0, "Largest arena + stack, bytes; 0: no limit.", low=0)
    latency_ms: float = _setting(0.0, "Longest inference, ms (estimate); 0: no limit.", low=0)


@dataclass(frozen=True)
class Config:
    """One quads.toml.

    intents: maps each intent to the phrases that mean it. slots: maps each question to the manifest
    column that answers it (docs/data.md); empty for a single one, the intent. values: of each slot
    in [data] templates.
    """

    project: ProjectSection = ProjectSection()
    intents: dict[str, list[str]] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    data: DataSection = DataSection()
    audio: AudioSection = AudioSection()
    student: StudentSection = StudentSection()
    teacher: TeacherSection = TeacherSection()
    train: TrainSection = TrainSection()
    augment: AugmentSection = AugmentSection()
    quantization: QuantizationSection = QuantizationSection()
    rejection: RejectionSection = RejectionSection()
    listen: ListenSection = ListenSection()
    target: TargetSection = TargetSection()
    thresholds: ThresholdSection = ThresholdSection()
    # The folder that relative paths start from: where quads.toml lies.
    root: Path = field(default=Path(), compare=False)

    def with_train_seed(self, seed: int | None) -> Config:
        """Return these settings with another [train] seed, unless it is None."""
        train = self.train if seed is None else dataclasses.replace(self.train, seed=seed)
        return dataclasses.replace(self, train=train)

    def resolve(self, path: str) -> Path:
        """Return `path` as written if absolute, else relative to the project file.

        A leading `${NAME}` is replaced by that environment variable; `${NAME:-default}` gives
        the value used when it is not set.
        """
        return self.root / _expand(path)


def load(path: Path) -> Config:
    """Read a project file.

    Raises:
        ConfigError: missing file, TOML error, unknown key, wrong type or value; the message
            names the file, the key and what is allowed.
    """
    if path.is_dir():
        path = path / FILE_NAME
    tree = _with_base(_read_tree(path), path)
    return from_tree(tree, where=str(path), root=path.parent)


def _with_base(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return `tree` with what it does not say taken from [project] base."""
    project = tree.get("project")
    base = project.get("base") if isinstance(project, dict) else None
    if not base:
        return tree
    if not isinstance(base, str) or Path(base).name != base:
        raise ConfigError(
            f"{path}: [project] base = {base!r} must be the name of a file in the same folder"
        )
    whole = _read_tree(path.parent / base)
    found = from_tree(whole, where=str(path.parent / base))
    if found.project.base:
        raise ConfigError(f"{path}: [project] base = {base!r} has a base itself; name that one")
    for name, section in tree.items():
        # A table of intents, slots or values is one thing: it replaces the other.
        joined = name not in ("intents", "slots", "values") and isinstance(section, dict)
        whole[name] = whole.get(name, {}) | section if joined else section
    return whole


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `quads-mcu init NAME` writes one") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: cannot be read: {problem}") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{path}: not valid TOML: {problem}") from None


def from_tree(tree: dict[str, Any], *, where: str, root: Path = Path()) -> Config:
    """Build a Config from parsed TOML; `where` names the source in error messages.

    Raises:
        ConfigError: as for `load`.
    """
    hints = typing.get_type_hints(Config)
    names = [item.name for item in dataclasses.fields(Config) if item.name != "root"]
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if name not in names:
            raise ConfigError(f"{where}: unknown section [{name}]; {_nearest(name, names)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {name} must be a section [{name}], not {value!r}")
        if name in ("intents", "values"):
            values[name] = _phrase_lists(value, f"{where}: [{name}]")
        elif name == "slots":
            values[name] = _slots(value, where)
        else:
            values[name] = _section(hints[name], value, where)
    config = Config(**values, root=root)
    _check_together(config, where)
    return config


def _check_together(config: Config, where: str) -> None:
    if config.slots and config.intents:
        raise ConfigError(
            f"{where}: [intents] names the labels of one slot, [slots] several; use one of them"
        )
    try:
        dimensions.checked(config.student.preset, n_mels=80, window_s=1.0, n_classes=2)
    except ConfigError as problem:
        raise ConfigError(f"{where}: [student] preset: {problem}") from None
    train, quantization = config.train, config.quantization
    for name in ("distill_epochs", "quant_epochs"):
        epochs = getattr(train, name)
        if isinstance(epochs, list) and len(epochs) != train.cycles:
            raise ConfigError(
                f"{where}: [train] {name} = {epochs} is of {len(epochs)} cycles, and cycles = "
                f"{train.cycles}; give one number for each cycle, or one for all"
            )
    if quantization.train_scales and not quantization.channel_scales:
        raise ConfigError(
            f"{where}: [quantization] train_scales = true trains the scales of channel_scales, "
            "which is false; set channel_scales = true, or train_scales = false"
        )
    if not train.crop:
        return
    if config.student.pooling == "mean":
        raise ConfigError(
            f"{where}: [train] crop trains on shorter windows, over which [student] pooling = "
            '"mean" is another mean; set pooling = "attention", or crop = false'
        )
    if config.teacher.weights and train.token_share < 1.0:
        raise ConfigError(
            f"{where}: [train] crop compares token by token, and token_share = "
            f"{train.token_share:g} also means over whole windows; set token_share = 1.0, or "
            "crop = false"
        )


def to_tree(config: Config) -> dict[str, Any]:
    """Return the settings as plain values, without `root`."""
    tree = dataclasses.asdict(config)
    del tree["root"]
    return tree


def render(config: Config) -> str:
    """Return a commented quads.toml for these settings."""
    lines = [
        "# Project file of quads-mcu. Every line shows a setting; delete what you do not need."
    ]
    for section in dataclasses.fields(Config):
        if section.name == "root":
            continue
        lines += ["", f"[{section.name}]"]
        value = getattr(config, section.name)
        if section.name == "intents":
            lines.append("# intent = [phrases that mean it]; used by `quads-mcu synth`.")
            lines += [f"{_key(name)} = {_toml(list(p))}" for name, p in value.items()]
            continue
        if section.name == "slots":
            lines.append("# slot = manifest column; only for commands that fill several slots.")
            lines += [f"{_key(name)} = {_toml(column)}" for name, column in value.items()]
            continue
        if section.name == "values":
            lines.append("# slot = [what [data] templates may say in its place].")
            lines += [f"{_key(name)} = {_toml(list(p))}" for name, p in value.items()]
            continue
        for item in dataclasses.fields(value):
            lines.append(f"# {item.metadata['doc']}{_limits(item.metadata)}")
            lines.append(f"{item.name} = {_toml(getattr(value, item.name))}")
    return "\n".join(lines) + "\n"


def _section(kind: type, values: dict[str, Any], where: str) -> Any:
    items = {item.name: item for item in dataclasses.fields(kind)}
    section = str(kind.__doc__)
    hints = typing.get_type_hints(kind)
    checked = {}
    for name, value in values.items():
        if name not in items:
            raise ConfigError(f"{where}: unknown key {section} {name}; {_nearest(name, items)}")
        checked[name] = _value(value, hints[name], items[name].metadata, f"{section} {name}", where)
    return kind(**checked)


def _value(value: Any, hint: Any, metadata: Any, key: str, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        # One for all, or a list.
        single, several = typing.get_args(hint)
        hint = several if isinstance(value, list) else single
        origin = typing.get_origin(hint)
    if origin is list:
        (inner,) = typing.get_args(hint)
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {key} must be a list, not {value!r}")
        return [_value(item, inner, metadata, key, where) for item in value]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ConfigError(f"{where}: {key} is too large for a number") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {key} = {value} is not a finite number")
    if type(value) is not hint:
        raise ConfigError(f"{where}: {key} must be of type {hint.__name__}, not {value!r}")
    choices = metadata.get("choices")
    if choices and value not in choices:
        allowed = ", ".join(map(str, choices))
        raise ConfigError(f"{where}: {key} = {value!r} is not one of: {allowed}")
    low, high = metadata.get("low"), metadata.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(f"{where}: {key} = {value} is outside {_range(low, high)}")
    return value


def _phrase_lists(values: dict[str, Any], where: str) -> dict[str, list[str]]:
    for name, phrases in values.items():
        well_formed = isinstance(phrases, list) and all(
            isinstance(phrase, str) and phrase.strip() for phrase in phrases
        )
        if not well_formed or not phrases:
            raise ConfigError(f"{where} {name} must be a list of phrases")
    return values


def _slots(values: dict[str, Any], where: str) -> dict[str, str]:
    for name, column in values.items():
        if not name.strip() or not isinstance(column, str) or not column.strip():
            raise ConfigError(f"{where}: [slots] {name} must name a manifest column")
    return values


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"


def _range(low: float | None, high: float | None) -> str:
    return f"{'-inf' if low is None else low} .. {'inf' if high is None else high}"


def _limits(metadata: Any) -> str:
    if metadata["choices"]:
        return f" One of {', '.join(map(str, metadata['choices']))}."
    if metadata["low"] is not None:
        return f" ({_range(metadata['low'], metadata['high'])})"
    return ""


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | list):
        # JSON's escapes are TOML's, but for surrogate pairs and for DEL, which TOML forbids raw.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _expand(path: str) -> str:
    import os

    if not path.startswith("${") or "}" not in path:
        return path
    name, _, rest = path[2:].partition("}")
    name, _, default = name.partition(":-")
    value = os.environ.get(name, default)
    if not value:
        raise ConfigError(f"environment variable {name} (used in {path!r}) is not set")
    return value + rest

"""All data of a project: its sources joined, and their windows of samples.

Reading never stops at one bad row or file: each becomes a `Problem` with its place, and the
caller shows `utterances.report(problems)`. Errors are raised where nothing useful could follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quads_mcu.audio import files, layouts, manifest, unknown
from quads_mcu.audio.files import Pcm
from quads_mcu.audio.splits import SPLITS
from quads_mcu.audio.utterances import Clips, Dataset, Problem, Utterance, combine, problem_of
from quads_mcu.config import FILE_NAME, SAMPLE_RATE, Config
from quads_mcu.console import Progress
from quads_mcu.errors import AudioError, ConfigError
from quads_mcu.slots import UNKNOWN, some

# Share of full-scale samples from which a clip counts as clipped, and the peak (of 32768) up to
# which it counts as silent.
CLIPPED_SHARE = 0.001
SILENT_PEAK = 32

_NOISE_LIMIT_S = 3600.0


def load_dataset(config: Config, progress: Progress, extra: Sequence[Path] = ()) -> Dataset:
    """Read every source in [data] and check them together.

    Args:
        config: the project; [intents], where given, are the classes allowed, in this order.
        progress: called with sources read.
        extra: further manifests, such as the one from `synth.synthesize`; label column "label".
    Raises:
        ConfigError: no source is named, or one is missing or of the wrong shape.
        AudioError: not a single utterance is usable.
    """
    data = config.data
    readers = list(_readers(config, extra))
    if not readers:
        raise ConfigError(
            "no training data: name manifests, speech_commands, fsc or slurp under [data] in "
            "quads.toml"
        )
    parts: list[Dataset] = []
    for read in readers:
        parts.append(read(parts))
        progress("reading data sets", len(parts), len(readers))
    dataset = combine(parts, tuple(config.intents))
    if config.slots:
        dataset = _with_trained_values(dataset, config)
    if data.unknown:
        n_samples = round(config.audio.window_s * SAMPLE_RATE)
        entries = [(entry, config.resolve(entry.partition("#")[0])) for entry in data.unknown]
        dataset = unknown.added(dataset, unknown.read(entries, n_samples))
    if not dataset.utterances:
        problems = dataset.problems
        found = f"problems: {len(problems)}, the first: {problems[0]}" if problems else "no rows"
        raise AudioError(f"no usable utterance; {found}")
    if not data.synth or extra:
        trained = {item.label for item in dataset.utterances if item.split == "train"}
        place = config.root / FILE_NAME
        for label in (name for name in dataset.labels if name not in trained):
            text = f"no training utterance for label {label!r}"
            dataset.problems.append(Problem(place, 0, "untrained", text))
    return dataset


def _with_trained_values(dataset: Dataset, config: Config) -> Dataset:
    """Keep the first slot's labels that are trained; report the values of any slot that are not."""
    rows = {split: [x for x in dataset.utterances if x.split == split] for split in SPLITS}
    trained = {item.label for item in rows["train"]}
    dataset = replace(dataset, labels=[label for label in dataset.labels if label in trained])
    for place, slot in enumerate(dataset.slots):
        known = set(slot.labels)
        missing = {
            split: [x.answers[place] for x in rows[split] if x.answers[place] not in known]
            for split in ("valid", "test")
        }
        if values := sorted({value for found in missing.values() for value in found}):
            counts = " and ".join(f"{len(found)} of split {n}" for n, found in missing.items())
            text = (
                f"slot {slot.name}: {len(values)} value(s) that split train never has count as "
                f"wrong (utterances: {counts}): {some(values)}"
            )
            dataset.problems.append(Problem(config.root / FILE_NAME, 0, "untrained", text))
    return dataset


Reader = Callable[[Sequence[Dataset]], Dataset]


def _readers(config: Config, extra: Sequence[Path]) -> Iterator[Reader]:
    """Yield what reads each source, given the data sets read so far."""
    data, slots = config.data, config.slots
    for entry in data.manifests:
        name, _, splits = entry.partition("#")
        yield lambda _, name=name, splits=splits, entry=entry: _only(  # type: ignore[misc]
            layouts.read_manifest(config.resolve(name), data.label_column, slots), splits, entry
        )
    if data.fsc:
        yield lambda _: layouts.read_fsc(config.resolve(data.fsc), slots)
    if data.slurp:
        yield lambda _: layouts.read_slurp(config.resolve(data.slurp), slots)
    if data.speech_commands:
        yield lambda _: _speech_commands(config)
    for path in extra:
        yield lambda known, path=path: _synthesized(path, known, config)  # type: ignore[misc]


def _synthesized(path: Path, known: Sequence[Dataset], config: Config) -> Dataset:
    """Recordings, where there are any to choose by or to test with, stay among themselves."""
    found = layouts.read_manifest(path, slots={name: name for name in config.slots})
    spoken = [replace(item, synthesized=True) for item in found.utterances]
    recorded = {item.split for part in known for item in part.utterances} - {"train"}
    kept = [split for split in SPLITS if split not in recorded]
    return _only(replace(found, utterances=spoken), ",".join(kept), str(path))


def _speech_commands(config: Config) -> Dataset:
    folder, task = config.resolve(config.data.speech_commands), config.data.speech_commands_task
    if config.slots:
        raise ConfigError("[data] speech_commands has one label per file; it cannot fill [slots]")
    if task:
        return layouts.read_speech_commands_task(folder, task)
    return layouts.read_speech_commands(folder, tuple(config.intents))


def _only(dataset: Dataset, splits: str, entry: str) -> Dataset:
    """Keep the splits named after `#` in a [data] manifests entry."""
    if not splits:
        return dataset
    wanted = splits.split(",")
    if unknown := [name for name in wanted if name not in SPLITS]:
        raise ConfigError(
            f"[data] manifests {entry!r}: no split {unknown[0]!r}; allowed: {', '.join(SPLITS)}"
        )
    kept = [item for item in dataset.utterances if item.split in wanted]
    return replace(dataset, utterances=kept)


def load_pcm(
    dataset: Dataset,
    split: str,
    n_samples: int,
    trim: bool,
    progress: Progress,
    keep: Callable[[Utterance], bool] = lambda _: True,
) -> Clips:
    """Load the windows of one split.

    Clipped clips (over 0.1 % of the samples at full scale) and clips longer than the window
    (cropped to the loudest stretch) are used and reported; empty, silent (peak under -60 dB) and
    unreadable ones are left out and reported. A stretch of a longer file is neither trimmed nor
    searched for silence: it is what a device hears between commands.

    Args:
        dataset: from `load_dataset`.
        split: "train", "valid" or "test".
        n_samples: length of the window.
        trim: cut leading and trailing silence first (`files.trim`).
        progress: called with files read.
        keep: which utterances of the split.
    Raises:
        ConfigError: no such split.
        AudioError: more windows than the memory holds.
    """
    if split not in SPLITS:
        raise ConfigError(f"no split {split!r}; allowed: {', '.join(SPLITS)}")
    chosen = [item for item in dataset.utterances if item.split == split and keep(item)]
    try:
        pcm = np.zeros((len(chosen), n_samples), np.int16)
    except MemoryError:
        raise AudioError(
            f"split {split}: {len(chosen):,} windows of {n_samples / SAMPLE_RATE:,.1f} s are more "
            "than the memory holds; shorten [audio] window_s, or take fewer recordings"
        ) from None
    lengths: list[int] = []
    used: list[Utterance] = []
    problems: list[Problem] = []
    decode = _Decoder()
    for count, item in enumerate(chosen, start=1):
        clip = _usable(item, decode, problems)
        if clip is not None:
            clip = files.trim(clip) if trim and not item.length else clip
            pcm[len(used)], cropped = files.fit_window(clip, n_samples)
            if cropped:
                excess_s = (len(clip) - n_samples) / SAMPLE_RATE
                text = f"{excess_s:.3g} s longer than the window; cropped to the loudest stretch"
                problems.append(problem_of(item, "too long", text))
            lengths.append(min(len(clip), n_samples))
            used.append(item)
        progress(f"loading {split}", count, len(chosen))
    answers = dataset.answers(used)
    return Clips(pcm[: len(used)], answers, np.array(lengths, np.int64), used, problems)


def load_noise(config: Config, split: str = "train") -> list[Pcm]:
    """Load the recordings in [data] noise: those of a split in manifests, sound files and folders.

    Files and folders, and manifests without the column, are of split train.

    Returns:
        A list of int16, (n,), in the order named; folders in the order of their file names.
    Raises:
        ConfigError: an entry is missing or holds no recording.
        AudioError: a recording cannot be read or is silent.
    """
    paths: list[Path] = []
    for entry in config.data.noise:
        path = config.resolve(entry)
        found = _noise_files(path, split)
        if not found and split == "train":
            raise ConfigError(f"{path}: no noise recordings for training ([data] noise)")
        paths += found
    noises = []
    for path in paths:
        noise = files.load(path, limit_s=_NOISE_LIMIT_S)
        if not noise.any():
            raise AudioError(f"{path}: noise recording without sound; take it out of [data] noise")
        noises.append(noise)
    return noises


class _Decoder:
    """Decodes files, and remembers the last one: its stretches follow each other."""

    def __init__(self) -> None:
        self._last: tuple[Path, Pcm] | None = None

    def __call__(self, item: Utterance) -> Pcm:
        if self._last is None or self._last[0] != item.path:
            limit_s = _NOISE_LIMIT_S if item.length else files.LIMIT_S
            self._last = item.path, files.decode(item.path, limit_s=limit_s)
        clip = self._last[1]
        return clip[item.start : item.start + item.length] if item.length else clip


def _usable(item: Utterance, decode: _Decoder, problems: list[Problem]) -> Pcm | None:
    try:
        clip = decode(item)
    except AudioError as problem:
        text = str(problem).removeprefix(f"{item.path}: ")
        problems.append(problem_of(item, "unreadable", f"{text}; left out"))
        return None
    if not len(clip):
        problems.append(problem_of(item, "empty", "holds no samples; left out"))
        return None
    if item.length or item.label == UNKNOWN:
        return clip
    peak = int(np.abs(clip.astype(np.int32)).max())
    if peak <= SILENT_PEAK:
        text = f"silent: the peak is {peak} of {files.FULL_SCALE}; left out"
        problems.append(problem_of(item, "silent", text))
        return None
    share = files.clipped_share(clip)
    if share > CLIPPED_SHARE:
        text = f"{100 * share:.2f} % of the samples are at full scale"
        problems.append(problem_of(item, "clipped", text))
    return clip


def _noise_files(path: Path, split: str) -> list[Path]:
    if path.is_dir():
        return layouts.sound_files(path.rglob("*")) if split == "train" else []
    if path.suffix.lower() not in manifest.SUFFIXES:
        if not files.is_regular(path):
            raise ConfigError(f"{path}: no such file or folder ([data] noise)")
        return [path] if split == "train" else []
    columns, rows = manifest.read_rows(path)
    manifest.require(path, columns, ("path",))
    found = []
    for line, row in rows:
        if isinstance(row, str):
            raise ConfigError(f"{path}:{line}: {row} ([data] noise)")
        if row.get("split", "train") == split:
            found.append(path.parent / row["path"])
    return found

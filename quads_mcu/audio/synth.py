"""Synthesized training speech: the phrases of [intents], spoken by espeak-ng in many voices.

Equal arguments and an equal espeak-ng give equal bytes.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from quads_mcu.audio import _espeak, phrases
from quads_mcu.audio.files import Pcm, to_int16, write_wav
from quads_mcu.config import SAMPLE_RATE
from quads_mcu.console import Progress
from quads_mcu.errors import AudioError, ConfigError, InstallationError

# Every English voice but the one that reads the Shavian alphabet.
ENGLISH = (
    "en",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-x-rp",
    "en-us",
    "en-us-nyc",
)
RATE_WPM = (130, 240)
PITCH = (20, 80)

MANIFEST_NAME = "manifest.csv"
RECORD_NAME = "synth.json"
_SOUNDS = "audio"
_COLUMNS = ("path", "speaker", "transcript", "split", "duration_s")
_RECIPE_VERSION = 3
_HELD_OUT_PART = 8
_PHRASE_LIMIT = 1000
# Variants that whisper, croak or imitate machines.
_NOT_SPEECH = re.compile(r"whisper|caleb$|croak|demonic|robo|klatt2?$|tweaky|fast$", re.IGNORECASE)
_VOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_-]*(\+[A-Za-z0-9][A-Za-z0-9 _-]*)?")


@dataclass(frozen=True)
class _Job:
    """One utterance to be spoken; answers: manifest columns and what they say."""

    path: str
    voice: str
    text: str
    answers: dict[str, str]
    split: str
    rate_wpm: int
    pitch: int


def synthesize(
    phrases_by_intent: Mapping[str, Sequence[str]],
    out_dir: Path,
    per_phrase: int,
    seed: int,
    progress: Progress,
    voices: Sequence[str] = ENGLISH,
) -> Path:
    """Speak every phrase in many voices and return the path of the manifest.

    `synthesize_templates` does the same for commands with slots. A speaker is a voice with a
    variant ("en-us+linda"). One variant in eight only validates and another only tests, so the
    splits share no speaker and no timbre. Each utterance draws a speaker, a rate of 130-240 words
    per minute and a pitch of 20-80 (espeak-ng's scale, 50 is normal).

    `out_dir` gets manifest.csv (path, speaker, transcript, split, duration_s, label), audio/ with
    16 kHz mono WAV files, and synth.json, which records the arguments: a complete output of equal
    arguments is used again, any other of this function is replaced.

    Args:
        phrases_by_intent: label -> phrases, any Unicode.
        out_dir: made if missing.
        per_phrase: training utterances per phrase; an eighth as many, at least one, validate
            and as many test.
        seed: of the choice of speakers, rates and pitches.
        progress: called with utterances made.
        voices: espeak-ng voices, combined with every variant, or "voice+variant".
    Raises:
        InstallationError: espeakng-loader is not installed.
        ConfigError: no phrases, one that cannot be spoken or belongs to two intents, an unknown
            voice, or files in `out_dir` that this function did not make.
        AudioError: espeak-ng failed or gave no sound, or a file cannot be written.
    """
    _check_phrases(phrases_by_intent)
    library, data = _espeak_paths()
    jobs = _plan(phrases_by_intent, per_phrase, seed, _speakers(voices, data))
    return _synthesize(jobs, out_dir, library, data, progress)


def synthesize_templates(
    templates: Sequence[str],
    values: Mapping[str, Sequence[str]],
    slots: Sequence[str],
    out_dir: Path,
    per_template: int,
    seed: int,
    progress: Progress,
    voices: Sequence[str] = ENGLISH,
) -> Path:
    """Speak phrases drawn from templates (`phrases`); the manifest has a column for each slot.

    Args:
        templates: of whole commands.
        values: of each slot; a slot that a phrase leaves out stays empty.
        slots: columns of the manifest, in order.
        per_template: training utterances per template, and shares of it as for `synthesize`.
    Raises:
        InstallationError, ConfigError, AudioError: as for `synthesize`.
    """
    if not templates:
        raise ConfigError("nothing to synthesize: [data] templates in quads.toml is empty")
    if unknown := [name for name in values if name not in slots]:
        raise ConfigError(f"[values] {unknown[0]}: no such slot; [slots] has {', '.join(slots)}")
    parsed = [phrases.Template.parse(text, values) for text in templates]
    library, data = _espeak_paths()
    speakers = _speakers(voices, data)
    draw = random.Random(seed)
    jobs = []
    for position, template in enumerate(parsed):
        drawn = _drawn_speakers(draw, speakers, per_template)
        for number, (split, speaker) in enumerate(drawn):
            text, answers = template.draw(draw, values)
            path = f"{_SOUNDS}/{position:03d}/{number:05d}_{_plain(speaker)}.wav"
            filled = {slot: answers.get(slot, "") for slot in slots}
            jobs.append(_job(draw, path, speaker, text, filled, split))
    return _synthesize(jobs, out_dir, library, data, progress)


def synthesize_texts(
    texts: Sequence[str],
    out_dir: Path,
    seed: int,
    progress: Progress,
    voices: Sequence[str] = ENGLISH,
) -> Path:
    """Speak every text once, each by another speaker; one in _HELD_OUT_PART validates, one tests.

    Texts longer than a phrase may be, or without a letter or digit, are left out.

    Raises:
        InstallationError, ConfigError, AudioError: as for `synthesize`.
    """
    library, data = _espeak_paths()
    speakers = _speakers(voices, data)
    usable = [t for t in texts if len(t) <= _PHRASE_LIMIT and re.search(r"\w", t) and _is_text(t)]
    if not usable:
        raise ConfigError(f"none of {len(texts)} texts can be spoken")
    draw = random.Random(seed)
    held_out = len(usable) // _HELD_OUT_PART
    counts = {"valid": held_out, "test": held_out, "train": len(usable) - 2 * held_out}
    drawn = [
        (split, speaker)
        for split, count in counts.items()
        for speaker in _draw_speakers(draw, speakers[split], count)
    ]
    jobs = []
    for number, (text, (split, speaker)) in enumerate(zip(usable, drawn, strict=False)):
        path = f"{_SOUNDS}/{number:05d}_{_plain(speaker)}.wav"
        jobs.append(_job(draw, path, speaker, text, {}, split))
    return _synthesize(jobs, out_dir, library, data, progress)


def _is_text(text: str) -> bool:
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


def _synthesize(
    jobs: Sequence[_Job], out_dir: Path, library: str, data: str, progress: Progress
) -> Path:
    key = _key(jobs)
    manifest = out_dir / MANIFEST_NAME
    if _is_complete(out_dir, key):
        progress("synthesizing", len(jobs), len(jobs))
        return manifest
    try:
        _prepare(out_dir, jobs, key)
        durations_s = []
        with contextlib.closing(_speak(jobs, library, data)) as spoken:
            for count, (job, pcm) in enumerate(spoken, start=1):
                write_wav(out_dir / job.path, pcm)
                durations_s.append(len(pcm) / SAMPLE_RATE)
                progress("synthesizing", count, len(jobs))
        table = _table(jobs, durations_s)
        _write(manifest, table)
        _record(out_dir, key, complete=_sha256(table))
    except OSError as problem:
        raise AudioError(f"{out_dir}: cannot be written: {problem.strerror}") from None
    return manifest


def _check_phrases(phrases_by_intent: Mapping[str, Sequence[str]]) -> None:
    if not any(phrases_by_intent.values()):
        raise ConfigError("nothing to synthesize: [intents] in quads.toml holds no phrases")
    intent_of: dict[str, str] = {}
    for intent, spoken in phrases_by_intent.items():
        for phrase in spoken:
            if not phrase.strip() or "\0" in phrase or len(phrase) > _PHRASE_LIMIT:
                raise ConfigError(
                    f"[intents] {intent}: {phrase[:40]!r} cannot be spoken: "
                    f"1 .. {_PHRASE_LIMIT} characters, none of them NUL"
                )
            other = intent_of.setdefault(phrase.strip().casefold(), intent)
            if other != intent:
                raise ConfigError(f"[intents] {phrase!r} stands under {other} and {intent}")


def _espeak_paths() -> tuple[str, str]:
    """Return the library and its data folder."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise InstallationError(
            "speech synthesis needs espeakng-loader; pip install 'quads-mcu[synth]'"
        )
    import espeakng_loader

    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


def _speakers(voices: Sequence[str], data: str) -> dict[str, list[str]]:
    """Return the speakers of each split; splits share no timbre."""
    for voice in voices:
        if not _VOICE.fullmatch(voice):
            raise ConfigError(f"{voice!r} is not a voice of espeak-ng; example: en-us")
    listed = sorted(path.name for path in Path(data, "voices", "!v").iterdir())
    variants = [name for name in listed if not _NOT_SPEECH.search(name)]
    speakers = []
    for voice in voices:
        speakers += [voice] if "+" in voice else [f"{voice}+{variant}" for variant in variants]
    timbres = sorted({_timbre(speaker) for speaker in speakers}, key=_sha256)
    share = -(-len(timbres) // _HELD_OUT_PART)
    split_of = dict.fromkeys(timbres, "train")
    if len(timbres) > 1:
        split_of |= dict.fromkeys(timbres[:share], "valid")
    if len(timbres) > 2:
        split_of |= dict.fromkeys(timbres[share : 2 * share], "test")
    return {
        split: [speaker for speaker in speakers if split_of[_timbre(speaker)] == split]
        for split in ("train", "valid", "test")
    }


def _timbre(speaker: str) -> str:
    return speaker.partition("+")[2]


def _plan(
    phrases_by_intent: Mapping[str, Sequence[str]],
    per_phrase: int,
    seed: int,
    speakers: Mapping[str, Sequence[str]],
) -> list[_Job]:
    draw = random.Random(seed)
    jobs = []
    for position, (intent, spoken) in enumerate(phrases_by_intent.items()):
        folder = f"{_SOUNDS}/{position:03d}_{_plain(intent)}"
        number = 0
        for phrase in spoken:
            for split, speaker in _drawn_speakers(draw, speakers, per_phrase):
                path = f"{folder}/{number:05d}_{_plain(speaker)}.wav"
                jobs.append(_job(draw, path, speaker, phrase, {"label": intent}, split))
                number += 1
    return jobs


def _job(
    draw: random.Random, path: str, speaker: str, text: str, answers: dict[str, str], split: str
) -> _Job:
    rate_wpm, pitch = draw.randint(*RATE_WPM), draw.randint(*PITCH)
    return _Job(path, speaker, text, answers, split, rate_wpm, pitch)


def _drawn_speakers(
    draw: random.Random, speakers: Mapping[str, Sequence[str]], count: int
) -> list[tuple[str, str]]:
    """Return (split, speaker) of `count` training utterances and of those held out."""
    held_out = max(1, count // _HELD_OUT_PART)
    counts = {"train": count, "valid": held_out, "test": held_out}
    return [
        (split, speaker)
        for split, pool in speakers.items()
        for speaker in _draw_speakers(draw, pool, counts[split])
    ]


def _draw_speakers(draw: random.Random, pool: Sequence[str], count: int) -> list[str]:
    """Return `count` speakers; none a second time before all had their turn."""
    chosen: list[str] = []
    while pool and len(chosen) < count:
        chosen += draw.sample(pool, min(len(pool), count - len(chosen)))
    return chosen


def _plain(text: str) -> str:
    """Return a name that every file system takes: at most 40 of a-z, 0-9, - and _."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9-]+", "_", ascii_text).strip("_-")[:40] or "x"


def _speak(jobs: Sequence[_Job], library: str, data: str) -> Generator[tuple[_Job, Pcm]]:
    from scipy.signal import resample_poly

    keys = ("voice", "text", "rate_wpm", "pitch")
    spoken = [{key: getattr(job, key) for key in keys} for job in jobs]
    request = json.dumps({"library": library, "data": data, "jobs": spoken}).encode()
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(request)
        stdin.seek(0)
        command = [sys.executable, "-P", str(Path(_espeak.__file__))]
        with subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr
        ) as process:
            assert process.stdout is not None
            try:
                for job in jobs:
                    samples = _receive(process.stdout, job, stderr)
                    wide = samples.astype(np.float64)
                    yield job, to_int16(resample_poly(wide, 320, 441))
            finally:
                process.kill()


def _receive(stream: IO[bytes], job: _Job, stderr: IO[bytes]) -> Pcm:
    header = stream.read(4)
    count = struct.unpack("<i", header)[0] if len(header) == 4 else _espeak.FAILED
    if count == _espeak.UNKNOWN_VOICE:
        raise ConfigError(f"espeak-ng has no voice {job.voice!r}; `espeak-ng --voices` lists them")
    content = stream.read(2 * count) if count > 0 else b""
    if count < 0 or len(content) != 2 * count:
        stderr.seek(0)
        last = stderr.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        raise AudioError(f"espeak-ng failed at {job.text!r} ({job.voice}): {''.join(last)}")
    samples = np.frombuffer(content, "<i2").astype(np.int16)
    if not samples.any():
        raise AudioError(f"espeak-ng gives no sound for {job.text!r}; change the phrase")
    return samples


def _key(jobs: Sequence[_Job]) -> str:
    version = importlib.metadata.version("espeakng-loader")
    plan = [_RECIPE_VERSION, version, [asdict(job) for job in jobs]]
    return _sha256(json.dumps(plan))


def _is_complete(out_dir: Path, key: str) -> bool:
    """Return whether `out_dir` holds every file of a finished run of these arguments."""
    try:
        record: Any = json.loads((out_dir / RECORD_NAME).read_text(encoding="utf-8"))
        table = (out_dir / MANIFEST_NAME).read_bytes().decode()
        if record != {"key": key, "manifest_sha256": _sha256(table)}:
            return False
        rows = list(csv.DictReader(io.StringIO(table, newline="")))
        sizes = [(out_dir / row["path"]).stat().st_size for row in rows]
    except (OSError, ValueError, RecursionError):
        return False
    # 44 bytes of header and two a sample.
    return all(
        size == 44 + 2 * round(float(row["duration_s"]) * SAMPLE_RATE)
        for row, size in zip(rows, sizes, strict=True)
    )


def _prepare(out_dir: Path, jobs: Sequence[_Job], key: str) -> None:
    sounds, manifest = out_dir / _SOUNDS, out_dir / MANIFEST_NAME
    if not (out_dir / RECORD_NAME).is_file() and (sounds.exists() or manifest.exists()):
        raise ConfigError(
            f"{out_dir}: holds {_SOUNDS} or {MANIFEST_NAME} but no {RECORD_NAME}, so it was not "
            "made by synthesis; choose another folder"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    _record(out_dir, key, complete=None)
    manifest.unlink(missing_ok=True)
    if sounds.exists():
        shutil.rmtree(sounds)
    for folder in {(out_dir / job.path).parent for job in jobs}:
        folder.mkdir(parents=True)


def _record(out_dir: Path, key: str, complete: str | None) -> None:
    _write(out_dir / RECORD_NAME, json.dumps({"key": key, "manifest_sha256": complete}) + "\n")


def _table(jobs: Sequence[_Job], durations_s: Sequence[float]) -> str:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((*_COLUMNS, *jobs[0].answers))
    for job, duration_s in zip(jobs, durations_s, strict=True):
        row = (job.path, job.voice, job.text, job.split, f"{duration_s:.6f}")
        writer.writerow((*row, *job.answers.values()))
    return table.getvalue()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(text.encode())
    part.replace(path)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

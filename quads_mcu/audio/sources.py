"""All data of a project: its recordings, and the synthesized speech of its phrases."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

from quads_mcu.audio import datasets, synth, utterances
from quads_mcu.audio import manifest as manifests
from quads_mcu.config import Config
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.paths import cache_dir


def load(config: Config, progress: Progress) -> utterances.Dataset:
    """Read every source in [data]; with [data] synth, speak its phrases too.

    Raises:
        ConfigError, AudioError, InstallationError: as `datasets.load_dataset` and
            `synth.synthesize`.
    """
    extra = [synthesize(config, progress)] if config.data.synth else []
    unknown = [_spoken(entry, config, progress) for entry in config.data.unknown]
    config = replace(config, data=replace(config.data, unknown=unknown))
    return datasets.load_dataset(config, progress, extra)


def _spoken(entry: str, config: Config, progress: Progress) -> str:
    """Return an entry of [data] unknown; of a file of texts, the manifest of its speech."""
    path = config.resolve(entry.partition("#")[0])
    texts = _texts(path)
    if texts is None:
        return entry
    count, seed = config.data.unknown_texts, config.project.seed
    if not texts:
        raise ConfigError(f"{path}: not a single text ([data] unknown)")
    drawn = random.Random(seed).sample(texts, min(count, len(texts)))
    key = hashlib.sha256(json.dumps([drawn, seed]).encode()).hexdigest()
    manifest = synth.synthesize_texts(drawn, cache_dir() / "synth" / key[:32], seed, progress)
    return str(manifest) + "".join(entry.partition("#")[1:])


def _texts(path: Path) -> list[str] | None:
    """Return the different texts of a .txt file or a CSV file of texts; None for anything else."""
    if path.suffix.lower() == ".txt" and path.is_file():
        found = manifests.read_text(path).splitlines()
    elif path.suffix.lower() == ".csv":
        columns, rows = manifests.read_rows(path)
        if "text" not in columns or "path" in columns:
            return None
        found = [row["text"] for _, row in rows if isinstance(row, dict)]
    else:
        return None
    return list(dict.fromkeys(text for text in map(str.strip, found) if text))


def synthesize(config: Config, progress: Progress, out: Path | None = None) -> Path:
    """Speak [intents] or [data] templates and return the manifest; what is there already is kept.

    `out` is by default a folder of the user's cache, one for each set of phrases and settings.
    """
    count, seed = config.data.synth_per_phrase, config.project.seed
    spoken = [list(config.intents.items()), config.data.templates, list(config.values.items())]
    key = json.dumps([spoken, list(config.slots), count, seed]).encode()
    folder = out or cache_dir() / "synth" / hashlib.sha256(key).hexdigest()[:32]
    if not config.slots:
        return synth.synthesize(config.intents, folder, count, seed, progress)
    return synth.synthesize_templates(
        config.data.templates, config.values, list(config.slots), folder, count, seed, progress
    )

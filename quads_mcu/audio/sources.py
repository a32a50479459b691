"""All data of a project: its recordings, and the synthesized speech of its phrases."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from quads_mcu.audio import datasets, synth, utterances
from quads_mcu.config import Config
from quads_mcu.console import Progress
from quads_mcu.paths import cache_dir


def load(config: Config, progress: Progress) -> utterances.Dataset:
    """Read every source in [data]; with [data] synth, speak its phrases too.

    Raises:
        ConfigError, AudioError, InstallationError: as `datasets.load_dataset` and
            `synth.synthesize`.
    """
    extra = [synthesize(config, progress)] if config.data.synth else []
    return datasets.load_dataset(config, progress, extra)


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

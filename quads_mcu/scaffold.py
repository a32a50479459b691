"""`quads-mcu init`: a new project to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quads_mcu import config
from quads_mcu.errors import ConfigError
from quads_mcu.run_dir import write_text

EXAMPLE_INTENTS = {
    "lights_on": ["turn on the lights", "lights on", "switch the light on"],
    "lights_off": ["turn off the lights", "lights off", "switch the light off"],
    "play_music": ["play some music", "start the music"],
    "stop": ["stop", "stop it", "be quiet"],
}


def init(folder: Path) -> Path:
    """Write `folder`/quads.toml with every setting, its meaning and its default.

    Raises:
        ConfigError: the file exists already, or the folder cannot be made.
    """
    path = folder / config.FILE_NAME
    if path.exists():
        raise ConfigError(f"{path} exists already; edit it, or choose another name")
    settings = config.Config(
        project=config.ProjectSection(name=folder.resolve().name),
        intents=EXAMPLE_INTENTS,
    )
    settings = replace(settings, data=replace(settings.data, synth=True))
    try:
        write_text(path, config.render(settings))
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be written: {problem.strerror}") from None
    return path

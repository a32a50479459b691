"""A run's folder keeps the settings it was made with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from quads_mcu.config import Config
from quads_mcu.errors import ConfigError
from quads_mcu.run_dir import RunDir


def test_settings_that_decide_the_weights_are_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    config = Config(root=tmp_path)
    run.write_config(config)
    assert run.config() == config
    other = replace(config, train=replace(config.train, alpha=0.9))
    with pytest.raises(ConfigError, match=r"other settings \(\[train\] alpha\); choose another"):
        run.write_config(other)
    with pytest.raises(ConfigError, match="project folder"):
        run.write_config(replace(config, root=tmp_path / "elsewhere"))


def test_settings_that_an_older_version_did_not_know_are_the_defaults(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    config = Config(root=tmp_path)
    run.write_config(config)
    stored = json.loads(run.config_path.read_text())
    del stored["settings"]["train"]["crop"]
    run.config_path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"other settings \(\[train\] crop\)"):
        run.write_config(replace(config, train=replace(config.train, crop=True)))
    run.write_config(config)


def test_settings_about_the_board_may_change(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    config = Config(root=tmp_path)
    run.write_config(config)
    changed = replace(
        config,
        train=replace(config.train, threads=3),
        target=replace(config.target, board="host"),
        thresholds=replace(config.thresholds, accuracy_percent=99.0),
    )
    run.write_config(changed)
    assert run.config().thresholds.accuracy_percent == 99.0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"root": "."}', '{"settings": {}}'])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.config_path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        run.config()


def test_settings_of_another_version_are_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.config_path.write_text('{"root": ".", "settings": {"train": {"nonsense": 1}}}')
    with pytest.raises(ConfigError, match=r"config\.json: unknown key \[train\] nonsense"):
        run.config()

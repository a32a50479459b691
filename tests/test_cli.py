"""The command line at its edges: exit codes, one-line errors, machine-readable output."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def quads_mcu(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quads_mcu.cli", *arguments]
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


# fmt: off
VERBS = [
    "init",
    "synth",
    "train",
    "ablate",
    "evaluate",
    "convert",
    "validate",
    "export",
    "build",
    "flash",
    "test",
    "run",
    "listen",
    "boards",
    "doctor",
    "analyze",
    "profile",
]  # in the order of the pipeline


def test_help_lists_the_verbs_in_pipeline_order(tmp_path: Path) -> None:
    text = quads_mcu("--help", cwd=tmp_path).stdout
    commands = text.split("Commands:")[1]
    found = [line.split()[0] for line in commands.splitlines() if line.startswith("  ")]
    assert [word for word in found if word in VERBS] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(tmp_path: Path, verb: str) -> None:
    done = quads_mcu(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train"], 2, "quads.toml: no such file; `quads-mcu init NAME` writes one"),
        (["export", "--run", "none"], 2, "none is not a run"),
        (["export", "--run", "none", "--target", "x"], 3, "board 'x' is unknown; known: arduino"),
        (["evaluate", "--run", "none"], 2, "`quads-mcu train --run none` makes one"),
        (["test", "--run", "none"], 2, "none is not a run"),
        (["build", "--run", "none", "--target", "qemu-an368"], 3, "qemu-an386"),
        (["profile"], 2, "profile takes a MODEL to measure, or --arch NAME to count"),
        (["profile", "d96x2", "--target", "host"], 3, "host does not count instructions"),
        (["analyze", "none"], 2, "none: no such run, model file or preset; presets: d64x2"),
        (["analyze", "d96x2", "--target", "x"], 3, "board 'x' is unknown"),
        (["profile", "--arch", "d96"], 2, "no architecture 'd96'; there are d64x2"),
        (["profile", "--arch", "d96x2", "--mels", "81"], 2, "multiples of 8"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_wrong_use_is_one_line_and_a_code(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = quads_mcu(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if arguments != ["nonsense"]:
        assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_init_writes_a_project_that_loads_and_refuses_to_overwrite(tmp_path: Path) -> None:
    from quads_mcu import config

    done = quads_mcu("init", "kitchen", cwd=tmp_path)
    assert done.returncode == 0
    path = tmp_path / "kitchen" / "quads.toml"
    assert done.stdout.strip() == str(path.relative_to(tmp_path))
    tree = tomllib.loads(path.read_text())
    assert tree["project"]["name"] == "kitchen"
    assert config.load(path).intents["lights_on"][0] == "turn on the lights"
    again = quads_mcu("init", "kitchen", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_profile_counts_what_the_paper_counts(tmp_path: Path) -> None:
    """Table 1 (FSC): parameters in millions, GMACs, for 30 s and 31 classes."""
    published = {
        "whisper-tiny": (7.64, 18.48),
        "whisper-base": (19.84, 43.70),
        "whisper-small": (87.03, 172.13),
        "whisper-large": (634.90, 1136.58),
    }
    for arch, (parameters, macs) in published.items():
        done = quads_mcu("profile", "--arch", arch, "--json", cwd=tmp_path)
        found = json.loads(done.stdout)
        assert found["parameters"] / 1e6 == pytest.approx(parameters, rel=0.005)
        assert found["macs"] / 1e9 == pytest.approx(macs, rel=0.005)
        assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"])


def test_analysis_as_json(tmp_path: Path) -> None:
    done = quads_mcu("analyze", "d96x2", "--bits", "3", "--seconds", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["bits"] == [3] and found["dims"]["n_frames"] == 200
    assert {region["region"] for region in found["memory"]["regions"]} >= {"flash", "ram"}


def test_boards_as_json(tmp_path: Path) -> None:
    found = json.loads(quads_mcu("boards", "--json", cwd=tmp_path).stdout)
    assert {"host", "qemu-an386"} <= {board["name"] for board in found}


def test_version(tmp_path: Path) -> None:
    from quads_mcu import __version__

    assert quads_mcu("--version", cwd=tmp_path).stdout.strip() == f"quads-mcu {__version__}"

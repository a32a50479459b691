"""The whole test split of `make demo` on the host build under sanitizers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quads_mcu.device import boards, build
from quads_mcu.export import project
from quads_mcu.report import board_test
from quads_mcu.run_dir import RunDir

DEMO = Path(__file__).parent.parent / "runs" / "demo"


@pytest.mark.slow
def test_host_under_sanitizers_equals_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undefined behaviour or a stray access ends the firmware, and with it this test."""
    if not (DEMO / "model.safetensors").exists():
        pytest.skip("no trained model in runs/demo; `make demo` makes it")
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    for name in ("config.json", "model.safetensors", "student_quantized.safetensors"):
        shutil.copy(DEMO / name, run.path / name)
    host = boards.load("host")
    project.export(run, host, bits=None, out=None)
    build.build(host, run.source_dir("host"), run.build_dir("host"), sanitize=True)
    values = board_test.run(run, host)
    assert values["tests_exit_code"] == 0
    equality = values["equality"]
    assert equality["utterances"] > 0
    assert equality["feature_bytes_differing"] == equality["logits_differing"] == 0

"""Exported projects are built by their own tools: which commands, and what failures become."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_tools import FakeTools

from quads_mcu.device import boards, project_build
from quads_mcu.errors import BuildError
from quads_mcu.export.projects import FORMATS

CASES = [
    ("esp32s3", "esp-idf", [["idf.py", "build"]]),
    ("esp32s3", "platformio", [["pio", "run", "-e", "server", "-e", "listen"]]),
    ("rp2040", "pico-sdk", [["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]]),
    ("stm32f411", "cmsis", [["make"]]),
    ("nrf52840", "zephyr",
     [["west", "build", "-b", "nrf52840dk/nrf52840", "-d", "build", "samples/quads"]]),
    ("arduino-nano33ble", "arduino",
     [["arduino-cli", "compile", "-b", "arduino:mbed_nano:nano33ble", "--library", ".",
       "--output-dir", "build/Listen", "examples/Listen"]]),
]  # fmt: skip


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    monkeypatch.setenv("PICO_SDK_PATH", str(tmp_path))
    monkeypatch.setenv("ZEPHYR_BASE", str(tmp_path))
    return FakeTools(tmp_path / "bin", monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("samples/quads/prj.conf", "examples/Listen/Listen.ino"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return folder


def run(name: str, fmt: str, folder: Path) -> list[tuple[str, float, float]]:
    seen: list[tuple[str, float, float]] = []
    project_build.build(boards.load(name), fmt, folder, lambda *values: seen.append(values))
    return seen


@pytest.mark.parametrize(("name", "fmt", "commands"), CASES, ids=[case[1] for case in CASES])
def test_each_format_is_built_by_its_tool(
    name: str, fmt: str, commands: list[list[str]], tools: FakeTools, project: Path
) -> None:
    for program in {command[0] for command in commands} | {"arm-none-eabi-gcc"}:
        tools.add(program, ([], 0, "[1/7] Building C object\n[7/7] Linking"))
    seen = run(name, fmt, project)
    assert tools.calls() == commands
    assert ("building", 7, 7) in seen and seen[-1] == ("building", 1, 1)
    assert "$ " + " ".join(commands[-1]) in (project / "quads_build.log").read_text()


def test_every_format_has_a_builder() -> None:
    assert set(project_build.BUILDERS) == set(FORMATS)


@pytest.mark.parametrize(("name", "fmt", "commands"), CASES, ids=[case[1] for case in CASES])
def test_missing_tool_says_how_to_get_it_and_how_to_do_without(
    name: str, fmt: str, commands: list[list[str]], tools: FakeTools, project: Path
) -> None:
    with pytest.raises(BuildError, match="missing; it builds") as problem:
        run(name, fmt, project)
    text = str(problem.value)
    assert commands[0][0] in text and f"cd {project} && {' '.join(commands[0])}" in text
    assert "To get it: " in text and not tools.calls()


def test_missing_variable(tools: FakeTools, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("cmake")
    tools.add("arm-none-eabi-gcc")
    monkeypatch.delenv("PICO_SDK_PATH")
    with pytest.raises(BuildError, match=r"\$PICO_SDK_PATH: missing.*git clone"):
        run("rp2040", "pico-sdk", project)


def test_failure_names_the_first_errors_and_the_log(tools: FakeTools, project: Path) -> None:
    text = "[1/9] ok\nmain.c:3:5: error: expected ';'\nninja: build stopped"
    tools.add("idf.py", ([], 2, text))
    with pytest.raises(BuildError, match=r"ended with 2: main\.c:3:5: error: expected ';'; all of"):
        run("esp32s3", "esp-idf", project)
    assert "build stopped" in (project / "quads_build.log").read_text()


def test_second_step_is_not_run_after_a_failure(tools: FakeTools, project: Path) -> None:
    tools.add("cmake", (["-S"], 1, "CMake Error at CMakeLists.txt:1"))
    tools.add("arm-none-eabi-gcc")
    with pytest.raises(BuildError, match="CMake Error"):
        run("rp2040", "pico-sdk", project)
    assert len(tools.calls()) == 1

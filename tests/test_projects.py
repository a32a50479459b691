"""Exported projects: their files, how a folder is replaced, what is refused beforehand."""

import json
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from random_model import random_model
from tiny_run import tiny_run
from typer.testing import CliRunner

from quads_mcu import cli
from quads_mcu.config import Config
from quads_mcu.device import boards
from quads_mcu.errors import ConfigError, ExportError, StorageError
from quads_mcu.export import image, project, projects
from quads_mcu.export.projects import folder
from quads_mcu.export.projects.project import Files, Project
from quads_mcu.model.dimensions import Dimensions, dimensions
from quads_mcu.run_dir import RunDir

DIMS = Dimensions(n_mels=40, n_frames=50, d_model=32, n_heads=2, n_layers=2, n_classes=6)
MODEL = random_model(DIMS)


def prepared(name: str, weights: str) -> Project:
    board = boards.load(name)
    return Project(MODEL, board, project.predict(MODEL, board), Config(), weights)


# --- what formats are made from -------------------------------------------------------------


@pytest.mark.parametrize("name", ["esp32s3", "rp2040", "stm32f411", "esp32c3"])
def test_runtime_and_application_are_whole(name: str) -> None:
    """Every header that is included is there, but for the model's, the format's and C's own."""
    made = prepared(name, "header")
    texts = made.runtime() | made.application()
    assert all(path.startswith("quads/") for path in texts)
    generated = set(made.model_sources())
    headers = {Path(path).name for path in texts} | generated
    for path, text in texts.items():
        for line in text.splitlines():
            if line.startswith('#include "'):
                assert Path(line.split('"')[1]).name in headers, f"{path}: {line}"
    kernels = [path for path in texts if "/kernels/" in path and not path.endswith(".h")]
    names = [Path(path).stem for path in kernels]
    assert len(set(names)) == len(names)


def test_weights_are_compiled_in_or_an_image() -> None:
    compiled, apart = prepared("esp32s3", "header"), prepared("esp32s3", "bin")
    headers = {name for name in compiled.model_sources() if name.endswith(".h")}
    assert set(compiled.model_sources()) == headers | {"model_data.c"}
    assert set(apart.model_sources()) == headers | {"model.bin"}
    data = apart.model_sources()["model.bin"]
    assert isinstance(data, bytes)
    assert image.read_header(data).model_hash == MODEL.model_hash


# --- formats --------------------------------------------------------------------------------


@pytest.fixture
def sketch(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A format of two files, in the place of "esp-idf"."""
    module = types.ModuleType("a_format")

    def files(made: Project) -> Files:
        return {"main/main.c": f"/* {made.board.name} */\n", "model.bin": made.weights.encode()}

    module.files = files  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_format", module)
    monkeypatch.setitem(projects.FORMATS, "esp-idf", "a_format")
    monkeypatch.setitem(projects.FORMATS, "arduino", "a_format")
    yield module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return tiny_run(tmp_path_factory.mktemp("tiny"))


def test_a_project_lies_in_the_run(run: RunDir, sketch: types.ModuleType) -> None:
    done = projects.export(run, boards.load("esp32s3"))
    assert done.folder == run.path / "esp32s3" / "esp-idf"
    assert (done.folder / "main" / "main.c").read_text() == "/* esp32s3 */\n"
    assert done.weights == "bin"
    manifest = json.loads((done.folder / "quads_export.json").read_text())
    assert (manifest["board"], manifest["format"]) == ("esp32s3", "esp-idf")
    assert set(manifest["files"]) == {"main/main.c", "model.bin"}
    assert done.files["model.bin"] == 3 and "quads_export.json" in done.files
    assert run.model_path.is_file()


@pytest.mark.parametrize(
    ("fmt", "weight_bytes", "expected"),
    [("arduino", 1 << 20, "header"), ("arduino", (1 << 20) + 1, "bin"), ("esp-idf", 1, "bin")],
)
def test_large_weights_become_an_image(
    sketch: types.ModuleType, fmt: str, weight_bytes: int, expected: str
) -> None:
    cost = project.predict(MODEL, boards.load("esp32s3"))
    object.__setattr__(cost, "weight_bytes", weight_bytes)
    assert projects.choose_weights(fmt, cost) == expected
    sketch.WEIGHTS = ("header",)  # type: ignore[attr-defined]
    assert projects.choose_weights(fmt, cost) == "header"


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("esp32s3", {"fmt": "cmsis"}, ConfigError, "has esp-idf, platformio, arduino"),
        ("host", {"fmt": "esp-idf"}, ConfigError, "host is no chip"),
        ("esp32s3", {"weights": "rom"}, ConfigError, "--weights rom: format esp-idf has header"),
        ("esp32s3", {"bits": 3}, ExportError, "was trained at 4 bits, asked for 3"),
        ("esp32s3", {"bits": 16}, ExportError, "esp32s3 takes 8, 4, 3, 2|takes 2, 3, 4, 8"),
    ],
)
def test_what_a_target_cannot_take(
    run: RunDir, sketch: types.ModuleType, tmp_path: Path, target: str, options: dict[str, object],
    error: type[Exception], message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        projects.export(run, boards.load(target), out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# --- the command ----------------------------------------------------------------------------


def test_export_prints_fit_estimates_files_and_what_comes_next(
    run: RunDir, sketch: types.ModuleType
) -> None:
    arguments = ["export", "--run", str(run.path), "--target", "esp32c3", "--bits", "4"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    place = run.path / "esp32c3" / "esp-idf"
    for part in ("Memory of esp32c3", "ram", "latency", "Project esp-idf, weights as bin", "main/",
                 "not measured", f"quads-mcu build --project-dir {place}"):  # fmt: skip
        assert part in done.output, part


def test_export_as_json(run: RunDir, sketch: types.ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["export", "--run", str(run.path), "--target", "esp32", "--format", "arduino",
                 "--weights", "bin", "--out", str(out), "--json"]  # fmt: skip
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["board"], found["format"], found["weights"]) == ("esp32", "arduino", "bin")
    assert found["memory"]["regions"][0]["region"] == "flash"
    assert found["estimate"]["latency_ms"] > 0 and found["estimate"]["method"]
    assert set(found["files"]) == {"main/main.c", "model.bin", "quads_export.json"}
    assert found["next"] == f"quads-mcu build --project-dir {out}"


def test_unknown_targets_name_the_nearest(run: RunDir) -> None:
    arguments = ["export", "--run", str(run.path), "--target", "esp32-s3"]
    done = CliRunner().invoke(cli.app, arguments)
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 2
    assert "did you mean esp32s3" in str(done.exception)


def test_the_whole_way_ends_before_a_chip(tmp_path: Path) -> None:
    (tmp_path / "quads.toml").write_text("")
    arguments = [
        "run",
        "--project",
        str(tmp_path),
        "--target",
        "esp32",
        "--run",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(cli.app, arguments)
    assert isinstance(done.exception, ConfigError)
    assert "`export --target esp32`" in str(done.exception)
    assert not (tmp_path / "r").exists()


# --- folders --------------------------------------------------------------------------------

FILES = {"a.c": "one", "src/b.c": b"two"}


def contents(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != folder.MANIFEST
    }


def test_a_folder_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "new" / "project"
    sizes = folder.write(place, FILES, {"board": "x"})
    assert sizes == {"a.c": 3, "quads_export.json": sizes["quads_export.json"], "src/b.c": 3}
    assert contents(place) == {"a.c": b"one", "src/b.c": b"two"}
    assert folder.read_manifest(place)["board"] == "x"
    folder.write(place, {"a.c": "other"}, {})
    assert contents(place) == {"a.c": b"other"}
    assert [path.name for path in place.parent.iterdir()] == ["project"]


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    place = tmp_path / "project"
    folder.write(place, FILES, {})
    (place / "build").mkdir()
    (place / "build" / "firmware.elf").write_bytes(b"\x7fELF")
    (place / "sdkconfig").write_text("CONFIG_X=y\n")
    (place / "build" / "link").symlink_to("firmware.elf")
    folder.write(place, {"a.c": "other"}, {})
    assert contents(place) == {"a.c": b"other", "build/firmware.elf": b"\x7fELF",
                               "build/link": b"\x7fELF", "sdkconfig": b"CONFIG_X=y\n"}  # fmt: skip
    assert (place / "build" / "link").is_symlink()


def test_edited_files_are_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "project"
    folder.write(place, FILES, {})
    (place / "src" / "b.c").write_text("mine")
    with pytest.raises(ExportError, match=r"b\.c was changed after the export"):
        folder.write(place, FILES, {})
    assert contents(place) == {"a.c": b"one", "src/b.c": b"mine"}


def test_deleted_files_come_back(tmp_path: Path) -> None:
    place = tmp_path / "project"
    folder.write(place, FILES, {})
    (place / "a.c").unlink()
    folder.write(place, FILES, {})
    assert contents(place) == {"a.c": b"one", "src/b.c": b"two"}


def test_other_folders_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not an exported project"):
        folder.write(tmp_path, FILES, {})
    assert contents(tmp_path) == {"notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    folder.write(tmp_path / "empty", FILES, {})


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": 3}', "\udcff"])
def test_damaged_manifests(tmp_path: Path, manifest: str) -> None:
    place = tmp_path / "project"
    folder.write(place, FILES, {})
    (place / folder.MANIFEST).write_bytes(manifest.encode(errors="surrogateescape"))
    with pytest.raises(ExportError, match="export into another folder"):
        folder.write(place, FILES, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        folder.write(tmp_path / "project", FILES, {})


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        folder.write(tmp_path / "file" / "project", FILES, {})
    with pytest.raises(ExportError, match="exists and is not an exported project"):
        folder.write(tmp_path / "file", FILES, {})


# --- every target and format ----------------------------------------------------------------

PAIRS = [(board.name, fmt) for board in boards.all_boards() for fmt in board.formats]


@pytest.mark.parametrize(("name", "fmt"), PAIRS)
def test_every_target_has_its_projects(tmp_path: Path, name: str, fmt: str) -> None:
    board = boards.load(name)
    model = replace(MODEL, frontend=board.frontend)
    cost = project.predict(model, board)
    for weights in projects.supported_weights(fmt):
        place = tmp_path / weights
        sizes = projects.write(fmt, model, board, cost, Config(), place, weights)
        assert sum(sizes.values()) == sum(
            path.stat().st_size for path in place.rglob("*") if path.is_file()
        )
        assert (place / "README.md").is_file()
        assert folder.format_of(place, board) == fmt
        binary = {path for path in sizes if path.endswith(".bin")}
        assert bool([path for path in binary if path.endswith("model.bin")]) == (weights == "bin")
        for path in sizes.keys() - binary:
            text = (place / path).read_text(encoding="utf-8")
            assert "{%" not in text and str(tmp_path) not in text, path


# --- size -----------------------------------------------------------------------------------


def test_the_paper_size_project_is_hardly_larger_than_its_model(tmp_path: Path) -> None:
    """7.6 million parameters of 4 bits: at most 1.2 times the model's bytes in binary form."""
    board = boards.load("esp32s3")
    model = random_model(dimensions("d384x4", n_mels=80, window_s=3.0, n_classes=31))
    cost = project.predict(model, board)
    place = tmp_path / "project"
    sizes = projects.write("esp-idf", model, board, cost, Config(), place, "bin")
    assert 3_900_000 < cost.weight_bytes < 4_000_000
    assert sum(sizes.values()) <= 1.2 * cost.weight_bytes
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) == sum(
        sizes.values()
    )

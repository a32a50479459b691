"""Imports point one way, and the command line starts fast because heavy ones come late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "quads_mcu"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
HEAVY = {"torch", "tensorflow", "onnx", "onnxruntime", "ai_edge_litert", "tflite_micro",
         "transformers", "matplotlib", "scipy", "soundfile", "serial"}  # fmt: skip
# What each room may import from; `cli` may import everything.
ROOMS = {
    "errors": set(),
    "paths": {"errors"},
    "console": {"errors"},
    "protocol": {"errors"},
    "slots": {"errors"},
    "atomic": {"errors"},
    "model": {"errors", "console", "paths"},
    "config": {"errors", "model"},
    "run_dir": {"errors", "config", "atomic"},
    "scaffold": {"errors", "config", "run_dir"},
    "model_format": {"slots", "atomic", "errors", "model"},
    "image_format": {"errors", "protocol", "model_format"},
    "audio": {"slots", "errors", "console", "paths", "config"},
    "training": {"slots", "atomic", "errors", "console", "paths", "config", "run_dir", "model",
                 "audio", "model_format"},
    "export": {"slots", "errors", "console", "paths", "config", "run_dir", "model", "model_format",
               "protocol", "image_format", "audio", "device"},
    "device": {"errors", "console", "paths", "config", "model_format", "protocol", "image_format"},
    "report": {"slots", "errors", "console", "paths", "config", "run_dir", "model",
               "model_format", "audio", "training", "export", "device", "__init__"},
    "tflite": {"slots", "errors", "console", "paths", "config", "run_dir", "model", "model_format",
               "audio", "training", "export", "device", "report", "__init__"},
}  # fmt: skip


def _imports(path: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse((PACKAGE / path).read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "quads_mcu":
                found |= {f"quads_mcu.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_one_way(module: Path) -> None:
    room = module.parts[0].removesuffix(".py")
    if room in {"cli", "__init__"}:
        return
    for name in _imports(module, top_level_only=False):
        parts = name.split(".")
        if parts[0] != "quads_mcu" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert parts[1] in ROOMS[room] | {room}, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_right_of_the_packed_model_imports_torch(module: Path) -> None:
    if module.parts[0] in {"training", "model"}:
        return
    assert "torch" not in {name.split(".")[0] for name in _imports(module, top_level_only=False)}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_left_of_the_packed_model_imports_serial(module: Path) -> None:
    if module.parts[0] == "device":
        return
    assert "serial" not in {name.split(".")[0] for name in _imports(module, top_level_only=False)}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['quads-mcu', '--help']\n"
        "from quads_mcu.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({HEAVY | {'numpy', 'jinja2', 'pydantic'}} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

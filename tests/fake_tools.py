"""Programs on PATH that write down how they were called, print what they are told, and end so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

SCRIPT = """#!{python}
import json, os, sys
folder = {folder!r}
with open(folder + "/calls", "a") as file:
    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
code, text = 0, ""
for words, answer_code, answer in json.loads({answers!r}):
    if all(any(word in argument for argument in sys.argv[1:]) for word in words):
        code, text = answer_code, answer
        break
print(text)
sys.exit(code)
"""


class FakeTools:
    """A folder that is all of PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", str(folder))

    def add(self, name: str, *answers: tuple[list[str], int, str]) -> None:
        """Put a program there; it answers the first whose words are all in its arguments."""
        path = self.folder / name
        path.write_text(
            SCRIPT.format(
                python=sys.executable, folder=str(self.folder), name=name,
                answers=json.dumps(answers),
            )
        )  # fmt: skip
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Every call so far: name and arguments."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

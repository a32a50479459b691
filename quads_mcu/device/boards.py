"""Boards as data: one TOML file each in boards/, read by everything that depends on a target.

docs/boards.md describes every key. An emulated board is a board like any other.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from quads_mcu.errors import ConfigError, TargetError
from quads_mcu.model_format import FRONTENDS
from quads_mcu.paths import boards_dir

KINDS = ("host", "qemu", "chip")
KERNELS = ("plain", "dsp", "helium", "esp")
SOURCES = ("clock", "memory", "power", "toolchain", "flasher")
CONTENTS = ("code", "constants", "weights", "data", "arena")

T = TypeVar("T")


@dataclass(frozen=True)
class Region:
    """One memory region. `holds`: what may lie there, of CONTENTS.

    code; constants (tables, initial values); weights (what the model file defines); data (stack
    and static data); arena.
    """

    name: str
    start: int
    size_bytes: int
    holds: tuple[str, ...]


@dataclass(frozen=True)
class Toolchain:
    """Compilers to try in order, flags for the core, and how to install the first one."""

    compilers: tuple[str, ...]
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    install: str


@dataclass(frozen=True)
class Emulator:
    """The emulator's command up to the options every emulated board shares."""

    command: tuple[str, ...]
    install: str


@dataclass(frozen=True)
class Energy:
    """Figures for estimates: active power of a reference chip at a clock, and where they are from.

    cycles_per_instruction turns counted instructions into cycles of that chip. active_power_mw:
    0 where no source says it; then there is no estimate of energy.
    """

    reference: str
    clock_hz: int
    cycles_per_instruction: float
    cycles_source: str
    active_power_mw: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Flasher:
    """The program that writes a chip's flash, its name for the chip, and how to install it."""

    tool: str
    target: str
    install: str


Texts = MappingProxyType[str, str]


def _no_texts() -> Texts:
    return MappingProxyType({})


@dataclass(frozen=True)
class Board:
    """One target.

    kernels: the folder of firmware/src/kernels whose files the build takes where they exist.
    frontend: arithmetic of the log-mel features (FRONTENDS): fixed where the core has no FPU.
    stack_bytes: size of the stack.
    chip: what a flasher must find; formats: of projects that `export` can write, the first is the
    default; flash_bytes, psram_bytes: of the module. nearest: the emulated board whose measured
    code sizes and counted instructions stand for this one in estimates. project: names that the
    formats need. sources: where the facts in this file are from.
    """

    name: str
    description: str
    kind: str
    clock_hz: int
    stack_bytes: int
    toolchain: Toolchain
    port: str = ""
    kernels: str = "plain"
    frontend: str = "float"
    defines: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({}))
    memory: tuple[Region, ...] = ()
    emulator: Emulator | None = None
    energy: Energy | None = None
    chip: str = ""
    formats: tuple[str, ...] = ()
    flash_bytes: int = 0
    psram_bytes: int = 0
    nearest: str = ""
    project: Texts = field(default_factory=_no_texts)
    flasher: Flasher | None = None
    sources: Texts = field(default_factory=_no_texts)

    @property
    def emulated(self) -> bool:
        """Whether an emulator stands in for the chip."""
        return self.emulator is not None

    @property
    def stores_clips(self) -> bool:
        """Whether a clip file can be given to the board when it starts."""
        return self.kind != "chip"

    def region(self, content: str) -> Region:
        """Return the first region that may hold `content`, one of CONTENTS.

        Raises:
            ConfigError: none does.
        """
        return self.regions(content)[0]

    def regions(self, content: str) -> list[Region]:
        """Return every region that may hold `content`, in the order of the file.

        Raises:
            ConfigError: none does.
        """
        found = [region for region in self.memory if content in region.holds]
        if not found:
            raise ConfigError(f"board {self.name} has no memory region that holds {content}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain dicts and lists."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in PARTS:
            values[name] = asdict(values[name]) if values[name] else None
        for name in ("defines", "project", "sources"):
            values[name] = dict(values[name])
        values["memory"] = [asdict(region) for region in self.memory]
        return values


PARTS: dict[str, type[Any]] = {
    "toolchain": Toolchain,
    "emulator": Emulator,
    "energy": Energy,
    "flasher": Flasher,
}


def names() -> list[str]:
    """Return the names of all boards, sorted."""
    return sorted(path.stem for path in boards_dir().glob("*.toml"))


def load(name: str) -> Board:
    """Return the board called `name`.

    Raises:
        TargetError: no such board. ConfigError: its file is malformed.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}" if near else f"known: {', '.join(known)}"
        raise TargetError(f"board {name!r} is unknown; {hint}? (`quads-mcu boards` lists all)")
    return read(boards_dir() / f"{name}.toml")


def all_boards() -> list[Board]:
    """Return every board, sorted by name."""
    return [load(name) for name in names()]


def read(path: Path) -> Board:
    """Read and check one board file.

    Raises:
        ConfigError: unreadable, unknown or missing keys, wrong types or impossible values.
    """
    try:
        with path.open("rb") as file:
            tree = tomllib.load(file)
        board = _board(tree)
        _check(board, path.stem)
    except OSError as problem:
        raise ConfigError(f"{path}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ConfigError) as problem:
        raise ConfigError(f"{path}: {problem}") from None
    return board


# --- reading -------------------------------------------------------------------------------


def _board(tree: dict[str, Any]) -> Board:
    tree = dict(tree)
    parts: dict[str, Any] = {}
    for name, kind in PARTS.items():
        if name in tree:
            parts[name] = _record(kind, tree.pop(name), f"[{name}]")
    for name in ("project", "sources"):
        texts = tree.pop(name, {})
        if not isinstance(texts, dict) or not all(type(text) is str for text in texts.values()):
            raise ConfigError(f"[{name}] takes names and strings")
        parts[name] = MappingProxyType(texts)
    regions = tree.pop("memory", [])
    if not isinstance(regions, list):
        raise ConfigError("memory must be written as [[memory]] tables")
    parts["memory"] = tuple(_record(Region, region, "[[memory]]") for region in regions)
    defines = tree.pop("defines", {})
    if not isinstance(defines, dict) or not all(type(v) is int for v in defines.values()):
        raise ConfigError("[defines] takes names and integers")
    parts["defines"] = MappingProxyType(defines)
    return _record(Board, tree | parts, "the top level")


def _record(kind: type[T], tree: Any, where: str) -> T:
    """Make the dataclass `kind` of a TOML table, refusing unknown and missing keys."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} must be a table")
    hints = get_type_hints(kind)
    if unknown := sorted(set(tree) - set(hints)):
        raise ConfigError(f"unknown key {unknown[0]!r} in {where}; known: {', '.join(hints)}")
    optional = {one.name for one in fields(kind) if not _required(one)}  # type: ignore[arg-type]
    if missing := sorted(set(hints) - set(tree) - optional):
        raise ConfigError(f"{where} lacks {missing[0]!r}")
    return kind(**{name: _value(value, hints[name], name) for name, value in tree.items()})


def _required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _value(value: Any, hint: Any, name: str) -> Any:
    if hint == tuple[str, ...] and isinstance(value, list):
        value = tuple(value)
        if not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{name} takes strings")
    if hint is float and type(value) is int:
        value = float(value)
    if hint in (int, float, str) and type(value) is not hint:
        raise ConfigError(f"{name} = {value!r} is not of type {hint.__name__}")
    if hint == tuple[str, ...] and not isinstance(value, tuple):
        raise ConfigError(f"{name} = {value!r} is not a list")
    return value


def _check(board: Board, stem: str) -> None:
    if board.name != stem:
        raise ConfigError(f"name = {board.name!r} in a file called {stem}.toml")
    if board.kind not in KINDS:
        raise ConfigError(f"kind = {board.kind!r}; allowed: {', '.join(KINDS)}")
    if board.kernels not in KERNELS:
        raise ConfigError(f"kernels = {board.kernels!r}; allowed: {', '.join(KERNELS)}")
    if board.frontend not in FRONTENDS:
        raise ConfigError(f"frontend = {board.frontend!r}; allowed: {', '.join(FRONTENDS)}")
    if len(board.name.encode()) > 32 or not board.name.isascii():
        raise ConfigError(f"name = {board.name!r} is longer than 32 ASCII characters")
    if (board.kind == "qemu") != board.emulated:
        raise ConfigError("[emulator] belongs to boards of kind qemu, and to no others")
    if board.kind == "chip":
        _check_chip(board)
    if board.energy and bool(board.energy.active_power_mw) != bool(board.energy.source):
        raise ConfigError("[energy] active_power_mw and its source go together")
    if not board.toolchain.compilers:
        raise ConfigError("[toolchain] compilers is empty")
    for region in board.memory:
        if region.start < 0 or region.size_bytes <= 0:
            raise ConfigError(f"region {region.name} has start or size below the possible")
        if unknown := sorted(set(region.holds) - set(CONTENTS)):
            raise ConfigError(
                f"region {region.name} holds {unknown[0]!r}; allowed: {', '.join(CONTENTS)}"
            )
    if board.memory:
        for content in CONTENTS:
            board.region(content)
        if not 0 < board.stack_bytes <= board.region("data").size_bytes:
            raise ConfigError(f"stack_bytes = {board.stack_bytes} is outside the data region")


def _check_chip(board: Board) -> None:
    if not (board.chip and board.formats and board.flasher and board.memory and board.energy):
        raise ConfigError("kind chip needs chip, formats, [flasher], [[memory]] and [energy]")
    if missing := [name for name in SOURCES if not board.sources.get(name)]:
        raise ConfigError(f"[sources] lacks {missing[0]!r}: every fact names where it is from")
    for name, limit in (("flash", board.flash_bytes), ("psram", board.psram_bytes)):
        used = sum(region.size_bytes for region in board.memory if region.name == name)
        if used > limit:
            raise ConfigError(f"region {name} has {used:,} bytes, {name}_bytes is {limit:,}")

"""Sizes in an ELF file, read from its section headers and symbols."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from quads_mcu.errors import BuildError

PT_LOAD = 1
SHT_SYMTAB, SHT_NOBITS = 2, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STT_OBJECT, STT_FILE = 1, 4
MAX_SECTIONS = 4096


@dataclass(frozen=True)
class Sizes:
    """Bytes by kind of section: code, constants, initialized data, zeroed or unset memory."""

    text: int
    rodata: int
    data: int
    bss: int


@dataclass(frozen=True)
class Symbol:
    """A data object, the source file it came from ("" for global ones) and its size in bytes."""

    name: str
    source: str
    size_bytes: int


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    entry_size: int


class Elf:
    """A little-endian ELF file of either class.

    Raises:
        BuildError: not such a file, or truncated.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._data = path.read_bytes()
            self._wide = self._data[4:5] == b"\x02"
            if self._data[:4] != b"\x7fELF" or self._data[5] != 1:
                raise BuildError(f"{path}: not a little-endian ELF file")
            self._sections = self._read_sections()
        except OSError as problem:
            raise BuildError(f"{path}: {problem.strerror}") from None
        except (struct.error, IndexError, ValueError):
            raise BuildError(f"{path}: truncated ELF file; build it again") from None

    def _read_sections(self) -> list[_Section]:
        layout = "<IIQQQQIIQQ" if self._wide else "<IIIIIIIIII"
        at = struct.unpack_from("<Q" if self._wide else "<I", self._data, 40 if self._wide else 32)
        entry, count, names_index = struct.unpack_from("<HHH", self._data, 58 if self._wide else 46)
        headers = [
            struct.unpack_from(layout, self._data, at[0] + index * entry)
            for index in range(min(count, MAX_SECTIONS))
        ]
        names = headers[names_index][4] if headers else 0
        sections = []
        for name, kind, flags, _, offset, size, link, _, _, entry_size in headers:
            text = self._string(names + name)
            sections.append(_Section(text, kind, flags, offset, size, link, entry_size))
        return sections

    def section_bytes(self, name: str) -> int:
        """Return the size of a section; 0 when there is none."""
        return sum(section.size for section in self._sections if section.name == name)

    def sizes(self) -> Sizes:
        """Return the bytes of all sections that take memory."""
        found = {"text": 0, "rodata": 0, "data": 0, "bss": 0}
        for section in self._sections:
            if not section.flags & SHF_ALLOC:
                continue
            if section.type == SHT_NOBITS:
                kind = "bss"
            elif section.flags & SHF_WRITE:
                kind = "data"
            else:
                kind = "text" if section.flags & SHF_EXECINSTR else "rodata"
            found[kind] += section.size
        return Sizes(**found)

    def end_of(self, start: int, size_bytes: int) -> int:
        """Return the address behind the last byte in use of a memory region; start: none is.

        Counts what the program occupies and what is loaded there (initial values of data).
        """
        end = start
        for load, loaded_bytes, run, run_bytes in self._read_segments():
            for address, used_bytes in ((load, loaded_bytes), (run, run_bytes)):
                if start <= address < start + size_bytes and used_bytes:
                    end = max(end, address + used_bytes)
        return end

    def loaded(self) -> list[tuple[int, bytes]]:
        """Return (load address, content) of everything that has to be in memory before the start.

        Raises:
            BuildError: truncated.
        """
        found = []
        for header in self._program_headers():
            kind, at, _, load, loaded_bytes, _ = header
            if kind == PT_LOAD and loaded_bytes:
                data = self._data[at : at + loaded_bytes]
                if len(data) != loaded_bytes:
                    raise BuildError("truncated ELF file; build it again")
                found.append((load, data))
        return sorted(found)

    def _read_segments(self) -> list[tuple[int, int, int, int]]:
        """Return (load address, bytes in the file, address, bytes in memory) of what is loaded."""
        return [
            (load, loaded_bytes, run, run_bytes)
            for kind, _, run, load, loaded_bytes, run_bytes in self._program_headers()
            if kind == PT_LOAD
        ]

    def _program_headers(self) -> list[tuple[int, int, int, int, int, int]]:
        """Return (kind, place in the file, address, load address, bytes in file, in memory)."""
        layout = "<I4xQQQQQ" if self._wide else "<IIIIII"
        at, number = (32, "<Q") if self._wide else (28, "<I")
        (table,) = struct.unpack_from(number, self._data, at)
        entry, count = struct.unpack_from("<HH", self._data, 54 if self._wide else 42)
        return [
            struct.unpack_from(layout, self._data, table + index * entry) for index in range(count)
        ]

    def objects(self) -> list[Symbol]:
        """Return all data objects of the symbol table."""
        found = []
        for table in self._sections:
            if table.type != SHT_SYMTAB or not table.entry_size:
                continue
            source = ""
            for at in range(table.offset, table.offset + table.size, table.entry_size):
                name, info, size = self._symbol(at)
                kind, is_global = info & 15, info >> 4
                if kind == STT_FILE:
                    source = self._text(table.link, name)
                elif kind == STT_OBJECT:
                    text = self._text(table.link, name)
                    found.append(Symbol(text, "" if is_global else source, size))
        return found

    def _symbol(self, at: int) -> tuple[int, int, int]:
        """Return (name, info, size) of the symbol at this offset of the file."""
        if self._wide:
            name, info, _, _, _, size = struct.unpack_from("<IBBHQQ", self._data, at)
        else:
            name, _, size, info, _, _ = struct.unpack_from("<IIIBBH", self._data, at)
        return name, info, size

    def _text(self, section: int, offset: int) -> str:
        return self._string(self._sections[section].offset + offset)

    def _string(self, start: int) -> str:
        return self._data[start : self._data.index(b"\0", start)].decode(errors="replace")

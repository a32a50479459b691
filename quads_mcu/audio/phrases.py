"""Phrase templates of commands with slots.

    (make me|can I get) a [{size}] {drink} [with {milk}]

`(a|b)` is one of the alternatives, `[x]` is there half of the time, `{slot}` is one of the slot's
values, spoken as written; what was drawn is the slot's label. They nest.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quads_mcu.errors import ConfigError

_TOKEN = re.compile(r"[()\[\]{}|]|[^()\[\]{}|]+")
_DEPTH_LIMIT = 20


@dataclass(frozen=True)
class _Slot:
    name: str


@dataclass(frozen=True)
class _Choice:
    """One of several sequences; half of the time none where `optional`."""

    sequences: tuple[tuple[_Part, ...], ...]
    optional: bool = False


_Part = str | _Slot | _Choice


@dataclass(frozen=True)
class Template:
    """A parsed template."""

    parts: tuple[_Part, ...]

    @classmethod
    def parse(cls, text: str, values: Mapping[str, Sequence[str]]) -> Template:
        """Read a template.

        Args:
            values: of each slot that may stand in braces.
        Raises:
            ConfigError: brackets that do not match, an unknown slot, or nothing to say.
        """
        tokens = _TOKEN.findall(text)
        parts, rest = _sequence(tokens, values, text, 0)
        if rest:
            raise ConfigError(f"[data] templates: unexpected {rest[0]!r} in {text!r}")
        if not any(not isinstance(part, str) or part.strip() for part in parts):
            raise ConfigError(f"[data] templates: nothing to say in {text!r}")
        return cls(parts)

    def draw(
        self, random: random.Random, values: Mapping[str, Sequence[str]]
    ) -> tuple[str, dict[str, str]]:
        """Return one phrase and the label of each slot it fills."""
        answers: dict[str, str] = {}
        words = "".join(_draw(self.parts, random, values, answers))
        return " ".join(words.split()), answers


def _sequence(
    tokens: list[str], values: Mapping[str, Sequence[str]], text: str, depth: int
) -> tuple[tuple[_Part, ...], list[str]]:
    """Parse up to a closing bracket or a bar; return what is left with it."""
    if depth > _DEPTH_LIMIT:
        raise ConfigError(f"[data] templates: brackets nest deeper than {_DEPTH_LIMIT} in {text!r}")
    parts: list[_Part] = []
    while tokens and tokens[0] not in ")]|}":
        token, *tokens = tokens
        if token == "{":
            if len(tokens) < 2 or tokens[1] != "}" or tokens[0].strip() not in values:
                name = tokens[0].strip() if tokens else ""
                raise ConfigError(
                    f"[data] templates: {{{name}}} in {text!r} is no slot with values; "
                    f"[values] has {', '.join(values) or 'none'}"
                )
            parts.append(_Slot(tokens[0].strip()))
            tokens = tokens[2:]
        elif token in "([":
            choice, tokens = _choice(tokens, values, text, depth, "])"[token == "("])
            parts.append(choice)
        else:
            parts.append(token)
    return tuple(parts), tokens


def _choice(
    tokens: list[str], values: Mapping[str, Sequence[str]], text: str, depth: int, closing: str
) -> tuple[_Choice, list[str]]:
    sequences = []
    while True:
        sequence, tokens = _sequence(tokens, values, text, depth + 1)
        sequences.append(sequence)
        if not tokens or tokens[0] not in (closing, "|"):
            raise ConfigError(f"[data] templates: {closing!r} is missing in {text!r}")
        end, *tokens = tokens
        if end == closing:
            return _Choice(tuple(sequences), optional=closing == "]"), tokens


def _draw(
    parts: tuple[_Part, ...],
    random: random.Random,
    values: Mapping[str, Sequence[str]],
    answers: dict[str, str],
) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, _Slot):
            answers[part.name] = random.choice(values[part.name])
            yield f" {answers[part.name]} "
        elif not part.optional or random.random() < 0.5:
            yield from _draw(random.choice(part.sequences), random, values, answers)

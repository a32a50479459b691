"""Phrase templates: what they can say, and what is refused."""

from __future__ import annotations

import collections
import random

import pytest

from quads_mcu.audio.phrases import Template
from quads_mcu.errors import ConfigError

VALUES = {"size": ["small", "large"], "drink": ["tea", "iced tea"]}


def drawn(
    text: str, count: int = 4000
) -> collections.Counter[tuple[str, tuple[tuple[str, str], ...]]]:
    template, draw = Template.parse(text, VALUES), random.Random(0)
    said = (template.draw(draw, VALUES) for _ in range(count))
    return collections.Counter((text, tuple(answers.items())) for text, answers in said)


def test_everything_a_template_can_say_and_nothing_else() -> None:
    found = drawn("(make me|get) a [{size}] {drink} [please]")
    expected = {
        (
            f"{start} a {size}{drink}{end}",
            ((("size", size.strip()),) if size else ()) + (("drink", drink),),
        )
        for start in ("make me", "get")
        for size in ("", "small ", "large ")
        for drink in ("tea", "iced tea")
        for end in ("", " please")
    }
    assert set(found) == expected


def test_alternatives_are_equally_likely_and_options_half_of_the_time() -> None:
    found = drawn("(a|b|(c|d)) [x]")
    share = {text: count / 4000 for (text, _), count in found.items()}
    for text, expected in (("a x", 1 / 6), ("b", 1 / 6), ("c", 1 / 12), ("d x", 1 / 12)):
        assert share[text] == pytest.approx(expected, abs=0.03)


def test_equal_seeds_say_the_same() -> None:
    template = Template.parse("(a|b) [{size}] {drink}", VALUES)
    first, second = (
        [template.draw(draw, VALUES) for _ in range(20)]
        for draw in (random.Random(3), random.Random(3))
    )
    assert first == second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(a|b", r"'\)' is missing in '\(a\|b'"),
        ("[a", r"'\]' is missing"),
        ("(a]", r"'\)' is missing"),
        ("a)", r"unexpected '\)'"),
        ("a | b", r"unexpected '\|'"),
        ("}", r"unexpected '\}'"),
        ("{colour}", r"\{colour\} in .* is no slot with values; \[values\] has size, drink"),
        ("{size", "is no slot with values"),
        ("{", "is no slot with values"),
        ("", "nothing to say"),
        ("  ", "nothing to say"),
        ("(" * 50 + ")" * 50, "nest deeper than 20"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Template.parse(text, VALUES)

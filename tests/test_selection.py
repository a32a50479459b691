"""Which epoch is kept: the last one within a standard error of the best."""

from __future__ import annotations

import math

import pytest

from quads_mcu.training.selection import Selection


@pytest.mark.parametrize(
    ("utterances", "right", "kept"),
    [
        (51, [50, 51, 50], [True, True, True]),
        (51, [51, 49, 50], [True, False, True]),
        (500, [402, 359, 357, 370], [True, False, False, False]),
        (
            500,
            [402, 394, 386],
            [True, True, False],
        ),  # Against the best, not the last that was kept.
        (500, [100, 300, 450], [True, True, True]),
        (9, [0, 0], [True, True]),
    ],
)
def test_the_last_within_a_standard_error_is_kept(
    utterances: int, right: list[int], kept: list[bool]
) -> None:
    selection = Selection(utterances)
    assert [selection.keeps(k / utterances) for k in right] == kept
    assert selection.best == max(right) / utterances
    last = [k for k, keep in zip(right, kept, strict=True) if keep][-1]
    assert selection.kept == last / utterances


def test_the_standard_error_is_that_of_agresti_and_coull() -> None:
    """Two successes and two failures are added, so that it is never zero."""
    n, k = 100, 100
    p = (k + 2) / (n + 4)
    error = math.sqrt(p * (1 - p) / (n + 4))
    for below, keep in ((0.99 * error, True), (1.01 * error, False)):
        selection = Selection(n)
        assert selection.keeps(1.0) and selection.keeps(1.0 - below) is keep

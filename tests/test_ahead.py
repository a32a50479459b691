"""Work done ahead by a thread: order, how far, what fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from quads_mcu.training.ahead import ahead


def test_results_come_in_order_from_another_thread() -> None:
    threads: set[int] = set()

    def square(value: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.002 * (value % 3))
        return value * value

    assert list(ahead(square, range(20), 3)) == [value * value for value in range(20)]
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert list(ahead(square, [], 3)) == []


def test_no_more_than_asked_is_computed_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for value in range(20):
            taken.append(value)
            yield value

    found = ahead(lambda value: value, items(), 3)
    assert taken == []
    for value in range(5):
        assert next(found) == value
        assert len(taken) == value + 4


def test_what_fails_is_raised_in_its_place_and_ends_the_thread() -> None:
    before = threading.active_count()
    found = ahead(lambda value: 6 // value, [3, 2, 0, 1], 2)
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert threading.active_count() <= before


def test_who_stops_listening_ends_the_thread() -> None:
    before, computed = threading.active_count(), []
    found = ahead(computed.append, range(1000), 10)
    next(found)
    found.close()
    assert threading.active_count() <= before and len(computed) <= 11

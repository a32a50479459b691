"""Fixtures of several files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# Minutes each: begun first, so that processes that share the tests end together.
_FIRST = ("test_student_on_boards.py", "test_tflite_bits.py", "test_training.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: bit by bit the same everywhere."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no CPU take bfloat16, where figures are compared closely."""
    from quads_mcu.training import accelerator

    monkeypatch.setattr(accelerator, "_cpu_has_bfloat16", lambda: False)

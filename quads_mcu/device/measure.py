"""Run utterances on a board through its PCM path and collect what it computed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.device import clips as clip_store
from quads_mcu.device.client import Client, Hello, Stats

# Opens a client to a board that stores the clips of this file (None: no clips).
OpenClient = Callable[[Path | None], AbstractContextManager[Client]]


@dataclass(frozen=True)
class Measurement:
    """What a board computed for N utterances, in order.

    features: int8 (N, n_frames, n_mels); logits: int32 (N, n_classes); answers: int64
    (N, n_slots); rejected: bool (N,); instructions: int64 (N, n_stages), zeros where the board
    counts something else.
    """

    hello: Hello
    stats: Stats
    features: NDArray[np.int8]
    logits: NDArray[np.int32]
    answers: NDArray[np.int64]
    rejected: NDArray[np.bool_]
    instructions: NDArray[np.int64]


def measure_stored(
    open_client: OpenClient,
    pcm: Sequence[NDArray[np.int16]],
    workers: int,
    progress: Progress,
) -> Measurement:
    """Run clips from the boards' own storage, on `workers` boards at once.

    Raises:
        LinkError, ProtocolError: as the client raises them.
    """
    done = [0]
    lock = Lock()

    def advance() -> None:
        with lock:
            done[0] += 1
            progress("utterances on the board", done[0], len(pcm))

    def run(part: NDArray[np.int64]) -> Measurement:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "clips.bin"
            clip_store.write(store, [pcm[index] for index in part])
            with open_client(store) as client:
                return _collect(client, len(part), client.run_clip, advance)

    parts = np.array_split(np.arange(len(pcm)), max(1, min(workers, len(pcm))))
    with ThreadPoolExecutor(len(parts)) as pool, contextlib.ExitStack() as stack:
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        return _joined(list(pool.map(run, parts)))


def measure_sent(
    client: Client, pcm: Sequence[NDArray[np.int16]], progress: Progress
) -> Measurement:
    """Send every utterance over the link."""
    done = [0]

    def advance() -> None:
        done[0] += 1
        progress("utterances over the link", done[0], len(pcm))

    return _collect(client, len(pcm), lambda index: client.send_pcm(pcm[index]), advance)


def _collect(
    client: Client, count: int, feed: Callable[[int], object], advance: Callable[[], None]
) -> Measurement:
    features, answers = [], []
    hello = client.hello()
    for index in range(count):
        feed(index)
        features.append(client.features())
        answers.append(client.infer())
        advance()
    return Measurement(
        hello,
        client.stats(),
        np.stack(features),
        np.stack([answer.logits for answer in answers]),
        np.stack([answer.answers for answer in answers]),
        np.array([answer.rejected for answer in answers]),
        np.stack([answer.instructions for answer in answers]),
    )


def _joined(parts: list[Measurement]) -> Measurement:
    stats = parts[0].stats
    for part in parts[1:]:
        stats = stats.worst(part.stats)
    return Measurement(
        parts[0].hello,
        stats,
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.answers for part in parts]),
        np.concatenate([part.rejected for part in parts]),
        np.concatenate([part.instructions for part in parts]),
    )

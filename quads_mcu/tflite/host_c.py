"""The C runtime on this PC, fed with features: logits, and the stream around every LayerNorm."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.device import boards, build
from quads_mcu.errors import BuildError
from quads_mcu.export import csource
from quads_mcu.model_format import PackedModel
from quads_mcu.paths import data_dir

TIME_LIMIT_S = 3600


class HostC:
    """The exported C of one model, compiled for this PC (firmware/trace/trace.c).

    Args:
        model: what to export.
        progress: of the compilation.
    Raises:
        BuildError: no compiler, or code that does not compile.
    """

    def __init__(self, model: PackedModel, progress: Progress) -> None:
        self.model = model
        folder = Path(tempfile.mkdtemp(prefix="quads-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        board = boards.load("host")
        csource.write_sources(model, folder / "source", board.kernels)
        firmware = data_dir("firmware")
        sources = [
            *sorted((folder / "source").glob("*.c")),
            *(p for p in sorted((firmware / "src").glob("*.c"))
              if p.stem not in ("encoder", "protocol")),
            *sorted((firmware / "src" / "frontend").glob("*.c")),
            *build.kernel_sources(board.kernels),
            firmware / "trace" / "trace.c",
        ]  # fmt: skip
        includes = [folder / "source", firmware / "include", firmware / "src"]
        made = build.compile_and_link(board, sources, includes, folder / "build", progress=progress)
        self._program = made.elf

    def logits(self, mel: NDArray[np.int8]) -> NDArray[np.int32]:
        """Return int32 (N, n_classes) for features, int8 (N, n_frames, n_mels)."""
        found = np.frombuffer(self._run(mel), "<i4")
        return found.reshape(len(mel), self.model.dims.n_classes).astype(np.int32)

    def trace(
        self, mel: NDArray[np.int8]
    ) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int8]]:
        """Return what one window (n_frames, n_mels) leads to.

        Returns:
            logits int32 (n_classes,); the residual stream before every LayerNorm, int16 (n_norms,
            n_tokens, d_model); what it gave, int8 of the same shape.
        """
        dims = self.model.dims
        shape = (dims.n_tokens, dims.d_model)
        kinds = [("logits", "<i4", (dims.n_classes,))]
        norms = [("residual", "<i2", shape), ("normalized", "i1", shape)]
        kinds.append(("norms", norms, (2 * dims.n_layers + 1,)))  # type: ignore[arg-type]
        found = np.frombuffer(self._run(mel[None], "trace"), np.dtype(kinds))[0]
        return found["logits"], found["norms"]["residual"], found["norms"]["normalized"]

    def _run(self, mel: NDArray[np.int8], *arguments: str) -> bytes:
        try:
            done = subprocess.run(
                [str(self._program), *arguments], input=np.ascontiguousarray(mel).tobytes(),
                capture_output=True, timeout=TIME_LIMIT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise BuildError(f"the C model cannot run on this PC: {problem}") from None
        if done.returncode:
            raise BuildError(f"the C model on this PC ended with exit code {done.returncode}")
        return done.stdout

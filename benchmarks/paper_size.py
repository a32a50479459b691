"""A paper-size student (d=384, four layers) without hours of training, for benchmarks and tests.

Usage: python -m benchmarks.paper_size [RUN]          (default runs/paper-size)

Whisper tiny.en's own encoder, 4-bit codebooks fitted to it, a random head with the slots of
examples/s2i, windows of 3 s: real weights and real speech, but answers that mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quads_mcu import config as project
from quads_mcu import console, model_format
from quads_mcu.console import Progress
from quads_mcu.export import pack
from quads_mcu.run_dir import RunDir
from quads_mcu.training import train

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "s2i"


def fitted(folder: Path, progress: Progress) -> RunDir:
    """Make the run; one that is there already is kept.

    Raises:
        ConfigError, AudioError, TrainingError: the recordings of s2i or the encoder are not there.
    """
    tree = project.to_tree(project.load(EXAMPLE))
    tree["audio"]["window_s"] = 3.0
    tree["student"]["init"], tree["teacher"]["weights"] = tree["teacher"]["weights"], ""
    tree["data"]["synth"] = False
    tree["train"] |= {"warmup_epochs": 0, "cycles": 0, "final_epochs": 0, "threads": 2}
    tree["train"]["token_share"] = 0.0  # There is no teacher.
    run = RunDir(folder)
    if not run.model_path.is_file():
        train.train(project.from_tree(tree, where=str(EXAMPLE), root=EXAMPLE), run, progress)
        model_format.write(pack.pack(folder), run.model_path)
    return run


def main() -> None:
    with console.progress() as progress:
        run = fitted(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/paper-size"), progress)
    console.result(str(run.path))


if __name__ == "__main__":
    main()

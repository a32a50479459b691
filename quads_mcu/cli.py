"""The command line: parse, call one public function, print."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from quads_mcu import __version__
from quads_mcu.errors import QuadsError

app = typer.Typer(
    name="quads-mcu",
    help="Spoken language understanding on microcontrollers: train with QUADS, export 4-bit "
    "codebooks as C, build, flash, and prove on the board what was promised.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="Project file or its folder.", show_default=True)
]
RunOption = Annotated[Path, typer.Option("--run", "-r", help="Folder of the run.")]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", "-t", help="Board; default: [target] board. See `boards`."),
]
ProjectDirOption = Annotated[
    Path | None, typer.Option("--project-dir", help="Exported project of a chip; default: run's.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, max=2**20, help="In place of [train] seed.")]
DemoOption = Annotated[
    bool, typer.Option("--demo", help="Chips: the program that listens, not the test server.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
HERE = Path("quads.toml")
DEFAULT_RUN = Path("runs/default")


def main() -> None:
    """Run the command line; every expected error becomes one line and an exit code."""
    # Ends like Ctrl-C: processes and folders that were begun are cleaned up.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except QuadsError as problem:
        from quads_mcu import console

        console.error(str(problem))
        sys.exit(problem.exit_code)
    except OSError as problem:
        from quads_mcu import console

        where = f"{problem.filename}: " if problem.filename else ""
        console.error(f"{where}{problem.strerror or problem}; check the path, its owner and space")
        sys.exit(1)
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        from quads_mcu import console

        console.error("this needs torch, which is not installed; pip install 'quads-mcu[train]'")
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"quads-mcu {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Folder to make; also the project's name.")],
) -> None:
    """Write a commented quads.toml to start from."""
    from quads_mcu import console, scaffold

    path = scaffold.init(Path(name))
    console.note(f"wrote {path}: name your intents and phrases there, then `quads-mcu train`")
    console.result(str(path))


@app.command()
def synth(
    project: ProjectOption = HERE,
    out: Annotated[Path | None, typer.Option(help="Folder for the recordings.")] = None,
) -> None:
    """Synthesize the [intents] phrases with many voices (espeak-ng)."""
    from quads_mcu import config, console
    from quads_mcu.audio import sources

    settings = config.load(project)
    with console.progress() as progress:
        manifest = sources.synthesize(settings, progress, out)
    console.result(str(manifest))


@app.command()
def train(
    project: ProjectOption = HERE,
    run: RunOption = DEFAULT_RUN,
    seed: SeedOption = None,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on where the run stopped, or anew.")
    ] = True,
) -> None:
    """Train the student with QUADS (distillation and quantization cycles)."""
    from quads_mcu import config, console
    from quads_mcu.report import training as report
    from quads_mcu.run_dir import RunDir
    from quads_mcu.training import train as training

    settings = config.load(project).with_train_seed(seed)
    with console.progress() as progress:
        outcome = training.train(settings, RunDir(run), progress, resume=resume)
    console.table("Training", ("", "validation accuracy"), outcome.rows())
    console.note(f"report: {report.write(RunDir(run), settings, outcome)}")


@app.command()
def ablate(
    project: ProjectOption = HERE,
    run: Annotated[
        Path, typer.Option("--run", "-r", help="Folder for all trainings and the result.")
    ] = Path("runs/ablation"),
    bits: Annotated[list[int] | None, typer.Option(help="Bits; may be given again.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per combination.")] = 3,
    split: Annotated[str, typer.Option(help="Split that is measured.")] = "test",
    as_json: JsonOption = False,
) -> None:
    """Train and compare initialisations and strategies (Table 2 of the paper) on your data."""
    from quads_mcu import config, console
    from quads_mcu.report import ablation

    settings = config.load(project)
    with console.progress() as progress:
        rows = ablation.ablate(settings, run, bits or [16, 4], seeds, split, progress)
    if as_json:
        console.result_json(ablation.to_json(rows, split))
        return
    title = f"split {split}, mean and standard deviation of {seeds} seed(s)"
    console.table(title, ablation.COLUMNS, [row.text() for row in rows])
    console.result(str(run / ablation.PLOT))


@app.command()
def evaluate(
    run: RunOption = DEFAULT_RUN,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    noise: Annotated[bool, typer.Option("--noise", help="In noise of 6 to 24 dB instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Accuracy of the float student and of the packed integer model, before any board.

    With [data] unknown, also what rejection costs: false accepts per hour against false rejects.
    """
    from quads_mcu import console
    from quads_mcu.report import evaluation, rejection
    from quads_mcu.run_dir import RunDir

    if noise:
        _evaluate_in_noise(run, split, as_json)
        return
    with console.progress() as progress:
        found = evaluation.evaluate(RunDir(run), split, progress)
        rejected = rejection.evaluate(RunDir(run), split, progress)
    if as_json:
        console.result_json(found.to_json() | {"rejection": rejected})
        return
    title = f"{len(found.truth)} utterances of split {split}, accuracy (95 % interval)"
    console.table(title, ("", "float student", "integer reference"), found.rows())
    if rejected:
        console.table(f"Rejection, split {split}", ("", "count", ""), rejection.rows(rejected))
        if split == "test":
            console.note(f"curve: {RunDir(run).path / rejection.PLOT}")
    elif RunDir(run).config().data.unknown:
        console.note(f"split {split} has no unknown speech: what rejection costs is not measured")


def _evaluate_in_noise(run: Path, split: str, as_json: bool) -> None:
    from quads_mcu import console
    from quads_mcu.report import noise
    from quads_mcu.run_dir import RunDir

    with console.progress() as progress:
        found = noise.evaluate(RunDir(run), split, progress)
    if as_json:
        console.result_json(found.to_json())
        return
    title = f"split {split} in recorded noise, accuracy (95 % interval)"
    console.table(title, ("noise", "float student", "integer reference"), found.rows())


@app.command()
def convert(
    run: RunOption = DEFAULT_RUN,
    calibration: Annotated[
        int, typer.Option(help="Utterances of the training split to calibrate int8 on.")
    ] = 128,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            help=".npy instead: int16 PCM (n, samples) or int8 log-mel (n, frames, mels)."
        ),
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(help="Folder for tflite-micro sources, frontend included.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert the student to ONNX and TFLite: float32, float16, int8, lookup tables."""
    from dataclasses import asdict

    from quads_mcu import console
    from quads_mcu.run_dir import RunDir
    from quads_mcu.tflite import convert as converter
    from quads_mcu.tflite import source

    found = RunDir(run)
    with console.progress() as progress:
        done = converter.convert(found, progress, count=calibration, data=calibration_data)
        if sources is not None:
            source.export(found, sources)
    if as_json:
        console.result_json(asdict(done))
        return
    rows = [(name, f"{size:,}", done.weights_text(name)) for name, size in done.files.items()]
    title = f"Converted in {done.seconds:.0f} s, calibrated on {done.calibration_windows} windows"
    console.table(title, ("file", "bytes", "weights"), rows)
    operators = ", ".join(f"{name} {count}" for name, count in done.operators.items())
    console.result(f"int8 operators: {operators}")
    for text in done.notes:
        console.note(text)
    console.result(str(converter.folder(found)))


@app.command()
def validate(
    run: RunOption = DEFAULT_RUN,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    limit: Annotated[int, typer.Option(help="Use only so many utterances; 0: all.")] = 0,
    arena: Annotated[
        int | None, typer.Option(help="Bytes that tflite-micro gets; default: what it needs.")
    ] = None,
    bisect: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two runtimes: show the first layer at which they part."),
    ] = None,
    bisect_limit: Annotated[
        float | None, typer.Option(help="Relative error at which they part.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare torch, ONNX, TFLite, tflite-micro, the integer reference and C on the same data."""
    from quads_mcu import console
    from quads_mcu.run_dir import RunDir
    from quads_mcu.tflite import bisect as bisection
    from quads_mcu.tflite import validate as validation

    found = RunDir(run)
    with console.progress() as progress:
        if bisect is not None:
            parted = bisection.of_run(
                found, bisect, split, progress, count=limit, limit=bisect_limit
            )
        else:
            done = validation.validate(found, split, progress, limit=limit, arena_bytes=arena)
    if bisect is not None:
        if as_json:
            console.result_json(parted.to_json())
            return
        title = f"A: {bisect[0]}, B: {bisect[1]}, split {split}"
        console.table(title, bisection.COLUMNS, [c.cells() for c in parted.comparisons])
        console.result(parted.verdict())
        return
    if as_json:
        console.result_json(done.to_json())
        return
    title = f"{done.utterances} utterances of split {done.split}"
    console.table(title, validation.COLUMNS, [row.cells() for row in done.rows])
    console.result(validation.LEGEND)
    for pair, equal in done.logits_equal.items():
        console.result(f"logits {pair}: {'every bit' if equal else 'DIFFERENT'}")


@app.command()
def export(
    run: RunOption = DEFAULT_RUN,
    target: TargetOption = None,
    bits: Annotated[int | None, typer.Option(help="Must equal the run's [quantization].")] = None,
    fmt: Annotated[
        str | None,
        typer.Option("--format", help="Of a chip's project; default: the first of its formats."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of a chip's project: header (compiled in) or bin (an image in flash)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the source or project.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack the student into codebooks and write C source for a board, a whole project for a chip.

    Refused before anything is written if it does not fit the board's memory.
    """
    from dataclasses import asdict

    from quads_mcu import console
    from quads_mcu.device import boards, memory
    from quads_mcu.export import project as exporter
    from quads_mcu.run_dir import RunDir

    found = RunDir(run)
    board = boards.load(target or found.config().target.board)
    if board.kind == "chip" or fmt or weights:
        _export_project(found, board, fmt, weights, bits, out, as_json)
        return
    with console.progress() as progress:
        cost = exporter.export(found, board, bits=bits, out=out, progress=progress)
    if as_json:
        console.result_json(asdict(cost))
        return
    console.table(f"Cost on {board.name}", ("", "bytes"), _cost_rows(cost))
    _print_regions(board, memory.place(board, cost.needs), "predicted")
    console.result(str(out or found.source_dir(board.name)))


def _export_project(
    run: Any, board: Any, fmt: str | None, weights: str | None, bits: int | None,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    from quads_mcu import console
    from quads_mcu.export import projects
    from quads_mcu.report import export

    with console.progress() as progress:
        done = projects.export(
            run, board, fmt=fmt, weights=weights, bits=bits, out=out, progress=progress
        )
    found = export.described(done, board)
    if as_json:
        console.result_json(found.to_json())
        return
    for title, columns, rows in found.tables():
        console.table(title, columns, rows)
    for line in found.method():
        console.note(line)
    console.note(f"next: {found.next_command}")
    console.result(str(done.folder))


def _cost_rows(cost: Any) -> list[tuple[str, str]]:
    rows = [(f"  {kind}", f"{n:,}") for kind, n in cost.weight_bytes_by_kind.items()]
    return [
        ("weights", f"{cost.weight_bytes:,}"),
        *rows,
        ("arena", f"{cost.arena_bytes:,}"),
        ("stack", f"{cost.stack_bytes:,}"),
    ]


def _print_regions(board: Any, regions: Any, how: str) -> None:
    from quads_mcu import console

    rows = [
        (one.region, ", ".join(one.contents), f"{one.used_bytes:,}", f"{one.size_bytes:,}")
        for one in regions
    ]
    if rows:
        console.table(f"Memory of {board.name}, {how}", ("region", "holds", "bytes", "of"), rows)


@app.command()
def build(
    run: RunOption = DEFAULT_RUN,
    target: TargetOption = None,
    project_dir: ProjectDirOption = None,
    demo: DemoOption = False,
    sanitize: Annotated[
        bool, typer.Option(help="Host only: address and undefined-behaviour sanitizers.")
    ] = False,
) -> None:
    """Compile the exported source into firmware; a chip's project with its vendor's tools."""
    from quads_mcu import console
    from quads_mcu.device import build as builder
    from quads_mcu.run_dir import RunDir

    found = RunDir(run)
    board = _board(found, target, project_dir)
    if board.kind == "chip":
        _build_project(found, board, project_dir, "demo" if demo else "server")
        return
    with console.progress() as progress:
        done = builder.build(
            board,
            found.source_dir(board.name),
            found.build_dir(board.name),
            sanitize=sanitize,
            progress=progress,
        )
    _print_regions(board, done.regions, f"linked, build {done.build_id}")
    console.result(str(done.elf))


def _board(run: Any, target: str | None, project_dir: Path | None) -> Any:
    """The board that was named, or that the project was exported for, or of the settings."""
    from quads_mcu.device import boards
    from quads_mcu.export.projects import folder as folders

    if target is None and project_dir is not None:
        target = str(folders.read_manifest(project_dir).get("board"))
    return boards.load(target or run.config().target.board)


def _build_project(run: Any, board: Any, project_dir: Path | None, program: str) -> None:
    from quads_mcu import console
    from quads_mcu.device import project_build
    from quads_mcu.export.projects import folder as folders

    folder = folders.find(run, board, project_dir)
    with console.progress() as progress:
        project_build.build(board, folders.format_of(folder, board), folder, program, progress)
    console.note(f"next: quads-mcu flash --target {board.name} --project-dir {folder}")
    console.result(str(folder))


@app.command()
def flash(
    run: RunOption = DEFAULT_RUN,
    target: TargetOption = None,
    port: Annotated[
        str | None,
        typer.Option(envvar="QUADS_PORT", help="Port or URL; RP2: the drive; SWD: probe's id."),
    ] = None,
    baud: Annotated[int | None, typer.Option(min=9600, help="Of the port.")] = None,
    project_dir: ProjectDirOption = None,
    model_only: Annotated[
        bool, typer.Option("--model-only", help="Only the model, into the slot not in use.")
    ] = False,
    running: Annotated[
        bool,
        typer.Option("--running", help="With --model-only: over the link of the running firmware."),
    ] = False,
    demo: DemoOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written where; write nothing.")
    ] = False,
) -> None:
    """Write a chip's firmware, checked before and verified after; start an emulated board."""
    from quads_mcu import console
    from quads_mcu.device import flash as starter
    from quads_mcu.run_dir import RunDir

    found = RunDir(run)
    board = _board(found, target, project_dir)
    if model_only and (running or not board.flasher or board.flasher.tool != "esptool"):
        _update_running(found, board, port, baud, dry_run)
        return
    if board.kind == "chip" or project_dir or dry_run:
        program = "demo" if demo else "server"
        _flash_chip(found, board, port, baud, project_dir, program, model_only, dry_run)
        return
    with starter.start(board, found.build_dir(board.name) / "firmware.elf") as session:
        console.result(session.url)
        console.note(f"{board.name} is running; test it with --port {session.url}; Ctrl-C ends it")
        session.wait()


def _flash_chip(
    run: Any, board: Any, port: str | None, baud: int | None, project_dir: Path | None,
    program: str, model_only: bool, dry_run: bool,
) -> None:  # fmt: skip
    import shlex

    from quads_mcu import console, model_format
    from quads_mcu.device import flashers
    from quads_mcu.device.flashers.plan import COLUMNS
    from quads_mcu.export import image
    from quads_mcu.export.projects import folder as folders

    flashers.tool(board)
    if model_only:
        model = image.pack(model_format.read(run.model_path), board.kernels)
        plan = flashers.plan_model(board, port, baud, model)
    else:
        plan = flashers.read(board, folders.find(run, board, project_dir), program)
    console.table(f"Flash of {board.name}, in this order", COLUMNS, plan.rows())
    if dry_run:
        for command in flashers.commands(plan, board, port, baud):
            console.result(shlex.join(command))
        console.note("dry run: nothing was written")
        return
    with console.progress() as progress:
        flashed = flashers.flash(plan, board, port, baud, progress)
    console.note(f"{flashed}: {plan.n_bytes:,} bytes written and verified; the board starts")


def _update_running(
    run: Any, board: Any, port: str | None, baud: int | None, dry_run: bool
) -> None:
    from quads_mcu import console, model_format
    from quads_mcu.device import link, update
    from quads_mcu.device.client import Client
    from quads_mcu.export import image

    model = image.pack(model_format.read(run.model_path), board.kernels)
    with link.Link(port or link.only_port(), baud or link.BAUD) as line:
        client = Client(line)
        if dry_run:
            info = update.model_info(client)
            rows = [
                (
                    str(n),
                    slot.status.name,
                    f"{slot.sequence}",
                    slot.model_hash[:12],
                    "runs" if n == info.running else "",
                )
                for n, slot in enumerate(info.slots)
            ]
            columns = ("slot", "image", "sequence", "model", "")
            console.table(f"Model slots of {board.name}", columns, rows)
            console.note(f"{len(model):,} bytes would go into one that does not run")
            return
        with console.progress() as progress:
            done = update.update_model(client, model, progress)
    console.note(
        f"{done.hello.board} at {line.url} runs model {done.hello.model_hash[:12]} from slot "
        f"{done.slot}: {done.n_bytes:,} bytes in {done.seconds:.1f} s"
    )


@app.command()
def test(
    run: RunOption = DEFAULT_RUN,
    target: TargetOption = None,
    port: Annotated[
        str | None,
        typer.Option(envvar="QUADS_PORT", help="Port or URL of a board that runs already."),
    ] = None,
    split: Annotated[str, typer.Option(help="Data split to run.")] = "test",
    limit: Annotated[int, typer.Option(help="Use only so many utterances; 0: all.")] = 0,
    workers: Annotated[int, typer.Option(help="Emulators at once.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Prove on the board, over its serial port, that it computes what was evaluated."""
    from quads_mcu import console
    from quads_mcu.device import boards
    from quads_mcu.report import board_test
    from quads_mcu.run_dir import RunDir

    found = RunDir(run)
    board = boards.load(target or found.config().target.board)
    values = board_test.run(found, board, port=port, split=split, limit=limit, workers=workers)
    if as_json:
        console.result_json(values)
    else:
        _print_report(values)
    console.note(f"report: {found.report_dir(board.name) / 'report.html'}")
    board_test.raise_for(values)


@app.command()
def run(
    project: ProjectOption = HERE,
    run: RunOption = DEFAULT_RUN,
    target: TargetOption = None,
    seed: SeedOption = None,
) -> None:
    """The whole way: train, export, build, start the board, test; ends with the table."""
    from quads_mcu import config, console
    from quads_mcu.device import boards
    from quads_mcu.device import build as builder
    from quads_mcu.errors import ConfigError
    from quads_mcu.export import project as exporter
    from quads_mcu.report import board_test, evaluation
    from quads_mcu.report import training as report
    from quads_mcu.run_dir import RunDir
    from quads_mcu.training import train as training

    settings = config.load(project).with_train_seed(seed)
    board = boards.load(target or settings.target.board)
    if board.kind == "chip":
        raise ConfigError(
            f"`run` ends on an emulated board or this PC; for {board.name}: `quads-mcu train`, "
            f"then `export --target {board.name}`, `build`, `flash` and `test`"
        )
    found = RunDir(run)
    with console.progress() as progress:
        report.write(found, settings, training.train(settings, found, progress))
        exporter.export(found, board, bits=None, out=None, progress=progress)
        evaluation.evaluate(found, "test", progress)
        source, objects = found.source_dir(board.name), found.build_dir(board.name)
        builder.build(board, source, objects, progress=progress)
    values = board_test.run(found, board)
    _print_report(values)
    console.note(f"report: {found.report_dir(board.name) / 'report.html'}")
    board_test.raise_for(values)


def _print_report(values: dict[str, Any]) -> None:
    from quads_mcu import console
    from quads_mcu.report import board_test

    for title, columns, rows in board_test.tables(values):
        console.table(title, columns, rows)


@app.command()
def listen(
    wav: Annotated[Path, typer.Argument(help="Recording to listen to (WAV, FLAC, OGG).")],
    run: RunOption = DEFAULT_RUN,
    target: TargetOption = None,
    mips: Annotated[
        float | None,
        typer.Option(help="Board's speed, million instructions per second; default: its chip's."),
    ] = None,
    rate_hz: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Samples per second that really come.")
    ] = 16000,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of random chunk sizes; 0: as they come.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Listen to a recording on the board, continuously, as to a microphone."""
    import numpy as np

    from quads_mcu import console, model_format
    from quads_mcu.audio import files
    from quads_mcu.device import boards
    from quads_mcu.report import listening
    from quads_mcu.run_dir import RunDir

    found = RunDir(run)
    board = boards.load(target or found.config().target.board)
    silence = np.zeros(16 * (2 * found.config().listen.hangover_ms + 100), np.int16)
    pcm = np.concatenate([files.load(wav, limit_s=36_000), silence])
    model = model_format.read(found.model_path)
    with console.progress() as progress:
        heard = listening.run(
            found, board, pcm, progress, mips=mips, rate_hz=rate_hz, chunk_seed=seed
        )
    if as_json:
        console.result_json(listening.to_json(heard, model.slots))
    else:
        columns = ("from, s", "to, s", "heard", "latency, ms")
        console.table(f"{wav.name} on {board.name}", columns, listening.rows(heard, model.slots))
        console.table("Listening", ("", ""), listening.summary(heard))
    for line in listening.warnings(heard):
        console.warn(line)
    if not heard.counters.samples_lost and not heard.counters.utterances_lost:
        listening.raise_for(listening.differences(heard, model, pcm))
        console.note("every frame, window and logit equals the reference")


@app.command()
def boards(as_json: JsonOption = False) -> None:
    """List the boards this version knows."""
    from quads_mcu import console
    from quads_mcu.device import boards as registry

    found = registry.all_boards()
    if as_json:
        console.result_json([board.to_json() for board in found])
        return
    columns = ("name", "what", "flash", "RAM", "PSRAM", "clock", "formats")
    console.table("Boards", columns, [_board_row(board) for board in found])


def _board_row(board: Any) -> tuple[str, ...]:
    flash = sum(r.size_bytes for r in board.memory if "code" in r.holds)
    ram = sum(r.size_bytes for r in board.memory if "weights" not in r.holds and r.name != "psram")
    sizes = [board.flash_bytes or flash, ram, board.psram_bytes]
    return (
        board.name,
        board.description.partition(",")[0] if board.kind == "chip" else board.description,
        *(f"{size / 1024:,.0f} KB" if size else "-" for size in sizes),
        f"{board.clock_hz / 1e6:g} MHz" if board.clock_hz else "-",
        ", ".join(board.formats) or "-",
    )


@app.command()
def doctor(
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Only what this board needs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Toolchains, packages, ports and permissions: what each target lacks, and what fixes it.

    With --target the exit code is 1 if something is missing.
    """
    from quads_mcu import console
    from quads_mcu.device import boards, doctor

    found = doctor.diagnose([boards.load(target)] if target else boards.all_boards())
    if as_json:
        console.result_json(found.to_json())
    else:
        console.result("\n".join(doctor.lines(found)))
    if target and not found.targets[0].ready:
        raise typer.Exit(1)


ModelArgument = Annotated[
    str, typer.Argument(help="A run's folder, a model file, or a preset such as d96x2.")
]
PresetBits = Annotated[int, typer.Option(help="Of a preset: bits per weight.")]
PresetSeconds = Annotated[float, typer.Option(help="Of a preset: window, s.")]
PresetMels = Annotated[int, typer.Option(help="Of a preset: mel bands.")]
PresetClasses = Annotated[int, typer.Option(help="Of a preset: intents.")]
DEFAULT_BOARD = "qemu-an386"


@app.command()
def analyze(
    model: ModelArgument,
    target: Annotated[str, typer.Option("--target", "-t", help="Board.")] = DEFAULT_BOARD,
    bits: PresetBits = 4,
    seconds: PresetSeconds = 3.0,
    mels: PresetMels = 80,
    classes: PresetClasses = 31,
    as_json: JsonOption = False,
) -> None:
    """Memory, instructions, time and energy on a board, predicted before there is any."""
    from quads_mcu import console
    from quads_mcu.device import boards
    from quads_mcu.errors import TargetError
    from quads_mcu.report import analysis, analysis_tables

    board = boards.load(target)
    name, packed = analysis.load(model, bits=bits, window_s=seconds, n_mels=mels, n_classes=classes)
    found = analysis.analyze(name, packed, board)
    if as_json:
        console.result_json(found.to_json())
    else:
        for title, columns, rows in analysis_tables.predicted(found):
            console.table(title, columns, rows)
        for line in analysis_tables.notes(found):
            console.note(line)
    if found.memory.problem:
        raise TargetError(found.memory.problem)


@app.command()
def profile(
    model: Annotated[
        str, typer.Argument(help="Measure this run's folder, model file or preset on --target.")
    ] = "",
    target: Annotated[str, typer.Option("--target", "-t", help="Board.")] = DEFAULT_BOARD,
    arch: Annotated[
        str, typer.Option(help="Only count: a student preset or whisper-tiny .. whisper-large.")
    ] = "",
    bits: PresetBits = 4,
    classes: PresetClasses = 31,
    seconds: Annotated[
        float | None, typer.Option(help="Window, s. [default: 3; with --arch 30]")
    ] = None,
    mels: PresetMels = 80,
    as_json: JsonOption = False,
) -> None:
    """Measure `analyze`'s table on an emulated board; with --arch, count parameters and MACs."""
    from quads_mcu.errors import ConfigError

    if bool(model) == bool(arch):
        raise ConfigError("profile takes a MODEL to measure, or --arch NAME to count; not both")
    if arch:
        _count(arch, classes, 30.0 if seconds is None else seconds, mels, as_json)
        return
    from quads_mcu import console
    from quads_mcu.device import boards
    from quads_mcu.report import analysis, analysis_tables
    from quads_mcu.report import profile as profiler

    name, packed = analysis.load(
        model, bits=bits, window_s=3.0 if seconds is None else seconds, n_mels=mels,
        n_classes=classes,
    )  # fmt: skip
    with console.progress() as progress:
        found = profiler.profile(name, packed, boards.load(target), progress)
    if as_json:
        console.result_json(found.to_json())
        return
    for title, columns, rows in analysis_tables.measured(found):
        console.table(title, columns, rows)


def _count(arch: str, classes: int, seconds: float, mels: int, as_json: bool) -> None:
    from dataclasses import asdict

    from quads_mcu import console
    from quads_mcu.model import dimensions

    dims = dimensions.checked(arch, n_mels=mels, window_s=seconds, n_classes=classes)
    costs = dimensions.profile(dims)
    parameters, macs = sum(c.parameters for c in costs), sum(c.macs for c in costs)
    if as_json:
        layers = [asdict(cost) for cost in costs]
        console.result_json({"parameters": parameters, "macs": macs, "layers": layers})
        return
    rows = [(c.name, f"{c.parameters:,}", f"{c.macs / 1e6:,.2f}") for c in costs]
    rows.append(("total", f"{parameters:,}", f"{macs / 1e6:,.2f}"))
    title = f"{arch}, {seconds:g} s, {classes} classes"
    console.table(title, ("layer", "parameters", "MMAC"), rows)


if __name__ == "__main__":
    main()

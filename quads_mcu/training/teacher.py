"""The teacher: a Whisper encoder with an intent head, and its outputs, computed once.

The encoder runs on windows of the utterance's length instead of 30 s. It stays frozen, or is
trained on the task first. Its outputs for the unaugmented clips are cached on disk under a hash of
everything they depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from quads_mcu.config import Config
from quads_mcu.console import Progress
from quads_mcu.errors import TrainingError
from quads_mcu.model import dimensions, whisper, whisper_files
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student
from quads_mcu.paths import cache_dir
from quads_mcu.slots import sizes
from quads_mcu.training import accelerator, checkpoint, losses
from quads_mcu.training.data import AugmentedBatches, Corpus, clean_features, digest
from quads_mcu.training.problem import Mel, TeacherOutputs, real_mel

# Part of the cache's key: raised when what is kept changes.
_VERSION = 2
_HEAD_RATE = 3e-3
_HEAD_BATCH = 64
_WEIGHT_DECAY = 0.01
_BATCH = 16


def outputs(
    config: Config, corpus: Corpus, n_frames: int, fingerprint: str, progress: Progress
) -> TeacherOutputs:
    """Return what the teacher says about the training clips, from the cache where possible.

    Args:
        fingerprint: of the corpus.
    Raises:
        TrainingError: the weights cannot be used.
    """
    where = config.teacher.weights
    found = whisper.read_encoder(whisper_files.locate(where, config.resolve(where)))
    dims = found.dimensions(n_frames, sum(sizes(corpus.slots)))
    weights = digest(*(part for item in sorted(found.tensors.items()) for part in item))
    settings = asdict(config.teacher) | {"weights": weights}
    if config.teacher.fine_tune_epochs:
        settings |= asdict(config.augment) | {"batch_size": config.train.batch_size}
    if config.teacher.projection == "pooling":
        settings |= {"width": dimensions.PRESETS[config.student.preset].d_model}
    key = digest(_VERSION, fingerprint, dims, sorted(settings.items()), config.project.seed)
    cached = cache_dir() / "teacher" / f"{key[:32]}.safetensors"
    if cached.exists():
        return _read(cached)
    teacher = _whisper_student(found, dims, config.project.seed)
    teacher.to(accelerator.choose(config.train.device))
    computed = _compute(teacher, config, corpus, progress)
    _write(cached, computed)
    return computed


def encoder(config: Config, taught: TeacherOutputs) -> whisper.WhisperEncoder:
    """Return the teacher's encoder as it is after fine-tuning, or as its file has it."""
    where = config.teacher.weights
    found = whisper.read_encoder(whisper_files.locate(where, config.resolve(where)))
    return found if taught.tuned is None else replace(found, tensors=taught.tuned)


def tokens(
    encoder: whisper.WhisperEncoder, n_frames: int, device: str
) -> Callable[[Tensor], Tensor]:
    """Return the frozen encoder as a function of features, (N, n_frames, n_mels).

    Args:
        device: [train] device.
    """
    found = _whisper_student(encoder, encoder.dimensions(n_frames, n_classes=2), seed=0).encoder
    found.requires_grad_(False).eval().to(accelerator.choose(device))

    def run(mel: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.mixed_precision(mel.device):
            states: Tensor = found(mel)
            return states.float()

    return run


def _whisper_student(encoder: whisper.WhisperEncoder, dims: Dimensions, seed: int) -> Student:
    torch.manual_seed(seed)
    teacher = Student(dims)
    state = {name: torch.from_numpy(value) for name, value in encoder.state(dims.n_tokens).items()}
    teacher.encoder.load_state_dict(state)
    return teacher


def _device(teacher: Student) -> torch.device:
    return teacher.encoder.positions.device


def _compute(
    teacher: Student, config: Config, corpus: Corpus, progress: Progress
) -> TeacherOutputs:
    dims, train, valid = teacher.dims, corpus.train, corpus.valid
    mel = clean_features(train.pcm, dims.n_mels, dims.n_frames, progress)
    valid_mel = clean_features(valid.pcm, dims.n_mels, dims.n_frames, progress)
    features = _pooled(teacher, mel, progress)
    settings = config.teacher
    slots = sizes(corpus.slots)
    train_head(teacher, features, train.answers, slots, settings.head_epochs, config.project.seed)
    if settings.fine_tune_epochs:
        batches = AugmentedBatches(
            train, config, corpus.noises, dims.n_mels, dims.n_frames, config.project.seed
        )
        _fine_tune(teacher, batches, train.answers, slots, config, progress)
        features = _pooled(teacher, mel, progress)
    with torch.inference_mode():
        teacher.head.cpu()
        valid_logits = teacher.head(_pooled(teacher, valid_mel, progress))
        logits = teacher.head(features).numpy()
    accuracy = losses.exact_match(valid_logits, torch.from_numpy(valid.answers), slots)
    if settings.projection == "pooling":
        width = dimensions.PRESETS[config.student.preset].d_model
        features = _pooled(teacher, mel, progress, lambda x: dilated_pooling(x, width))
    state = {name: tensor.cpu().numpy() for name, tensor in teacher.state_dict().items()}
    tuned = _without("encoder.", state) if settings.fine_tune_epochs else None
    head = {name: value for name, value in state.items() if name.startswith("head.")}
    return TeacherOutputs(features.numpy(), logits, accuracy, head, tuned)


def _without(prefix: str, state: whisper.Weights) -> whisper.Weights:
    size = len(prefix)
    return {name[size:]: value for name, value in state.items() if name.startswith(prefix)}


def dilated_pooling(tokens: Tensor, width: int) -> Tensor:
    """Narrow features as the paper's authors do: a dilated max-pool over the feature axis.

    Kernel 3, stride 2, and the dilation that gives `width` (1280 to 512: their 128).

    Args:
        tokens: float32 (..., d_model).
    Returns:
        float32 (..., width).
    Raises:
        TrainingError: `width` is half the features or more, and not all.
    """
    d_model = tokens.shape[-1]
    if d_model == width:
        return tokens
    dilation = (d_model + 1 - 2 * width) // 2
    if dilation < 1:
        raise TrainingError(
            f'[teacher] projection = "pooling" more than halves: {d_model} features do not become '
            f'{width}; use "linear"'
        )
    pooled = F.max_pool1d(tokens.flatten(0, -2), kernel_size=3, stride=2, dilation=dilation)
    return pooled.view(*tokens.shape[:-1], width)


def _pooled(
    teacher: Student,
    mel: Mel,
    progress: Progress,
    narrowed: Callable[[Tensor], Tensor] = lambda tokens: tokens,
) -> Tensor:
    """Return features, narrowed and averaged over time, float32 (N, width)."""
    parts = []
    with torch.inference_mode():
        for at in range(0, len(mel), _BATCH):
            with accelerator.mixed_precision(_device(teacher)):
                tokens = teacher.encoder(real_mel(mel[at : at + _BATCH]).to(_device(teacher)))
            tokens = tokens.float().cpu()
            parts.append(narrowed(tokens).mean(dim=1))
            progress("teacher features", min(at + _BATCH, len(mel)), len(mel))
    return torch.cat(parts).clone()


def train_head(
    teacher: Student,
    features: Tensor,
    answers: NDArray[np.int64],
    slots: list[int],
    epochs: int,
    seed: int,
) -> None:
    """Train the head on fixed features, float32 (N, d_model), with answers int64 (N, n_slots).

    The features are normalized for training; the head that stays takes them as they are.
    """
    targets = torch.from_numpy(answers)
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-4)
    normal = (features - mean) / deviation
    head = torch.nn.Linear(features.shape[1], teacher.dims.n_classes)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=_HEAD_RATE, weight_decay=_WEIGHT_DECAY)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(answers)), -(-len(answers) // _HEAD_BATCH)):
            loss = losses.cross_entropy(head(normal[rows]), targets[rows], slots)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        weight = head.weight / deviation
        teacher.head.weight.copy_(weight)
        teacher.head.bias.copy_(head.bias - weight @ mean)


def _fine_tune(
    teacher: Student,
    batches: AugmentedBatches,
    answers: NDArray[np.int64],
    slots: list[int],
    config: Config,
    progress: Progress,
) -> None:
    rate, epochs = config.teacher.fine_tune_lr, config.teacher.fine_tune_epochs
    optimizer = torch.optim.AdamW(teacher.parameters(), weight_decay=_WEIGHT_DECAY)
    total = epochs * len(batches)
    step = 0
    for epoch in range(epochs):
        # Negative numbers would not seed a generator: count on from far above the student's.
        for rows, mel in batches((1 << 20) + epoch):
            for group in optimizer.param_groups:
                group["lr"] = rate * _triangle(step / total)
            with accelerator.mixed_precision(_device(teacher)):
                logits = teacher(real_mel(mel).to(_device(teacher)))[1]
            truth = torch.from_numpy(answers[rows])
            loss = losses.cross_entropy(logits.float().cpu(), truth, slots)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the teacher's loss is {float(loss)} in epoch {epoch + 1}; lower [teacher] "
                    f"fine_tune_lr = {rate}"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            step += 1
            progress("fine-tuning the teacher", step, total)


def _triangle(done: float) -> float:
    """Rise over the first tenth, then fall to zero."""
    return min(done * 10 + 0.01, (1 - done) / 0.9)


def _write(path: Path, computed: TeacherOutputs) -> None:
    tensors = {
        "features": torch.from_numpy(computed.features),
        "logits": torch.from_numpy(computed.logits),
    }
    kept = computed.head | {f"encoder.{name}": v for name, v in (computed.tuned or {}).items()}
    tensors |= {f"student.{name}": torch.from_numpy(value) for name, value in kept.items()}
    checkpoint.write(path, tensors, {"valid_accuracy": computed.valid_accuracy})


def _read(path: Path) -> TeacherOutputs:
    tensors, scalars = checkpoint.read(path)
    try:
        features, logits = tensors["features"].numpy(), tensors["logits"].numpy()
        state = {name: t.numpy() for name, t in checkpoint.part(tensors, "student.").items()}
        head = {name: state.pop(name) for name in ("head.weight", "head.bias")}
        tuned = _without("encoder.", state) or None
        return TeacherOutputs(features, logits, float(scalars["valid_accuracy"]), head, tuned)
    except (KeyError, TypeError, ValueError):
        raise TrainingError(f"{path}: damaged; delete it and train again") from None

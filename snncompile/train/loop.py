"""The training loop: seeds, epochs, checkpoints, and how to go on after an interruption.

Nothing random is carried from step to step: the order of an epoch is a function of (seed, epoch), and the learning
rate one of the step. So a resumed training gives the very bits of an uninterrupted one, on the same machine with the
same number of threads.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe, TrainingSettings
from snncompile.train import checkpoint
from snncompile.train.data import Split, load_for
from snncompile.train.networks import Network
from snncompile.train.progress import Progress
from snncompile.train.losses import tet_loss

THREADS_VARIABLE = "SNNCOMPILE_THREADS"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What ``train`` did: where the checkpoint is, whether all epochs are done, and the last measurements."""

    path: Path
    finished: bool
    metrics: dict[str, Any]


class Trainee(Protocol):
    """A network as the loop sees it: ``Network``, or the one in a machine's integers."""

    training: bool

    def __call__(self, x: Tensor) -> Tensor: ...
    def predict(self, x: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, weights: Mapping[str, Any]) -> Any: ...


class Course:
    """A training in reals between two epochs; ``history`` has a record of each that is done."""

    network: Trainee

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.history: list[dict[str, Any]] = []
        torch.manual_seed(recipe.training.seed)
        self.network = self.build()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.training.learning_rate)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    @property
    def training(self) -> TrainingSettings:
        """The settings in force."""
        return self.recipe.training

    @property
    def samples(self) -> int:
        """How many samples make an epoch; 0: all there are."""
        return 0

    def build(self) -> Trainee:
        """The network before the first step."""
        return Network(self.recipe)

    def after_step(self) -> None:
        """Called after every step of the optimiser."""

    def check_weights(self, where: str, weights: Mapping[str, object]) -> None:
        """Refuse weights of another network. Raises ReadError."""
        checkpoint.check_weights(where, self.recipe, weights)

    def extra(self) -> dict[str, object]:
        """What a resume file holds beside recipe, weights, optimiser and history."""
        return {}

    def save(self, out: Path, split: Split) -> None:
        """Write the checkpoint."""
        assert isinstance(self.network, Network)
        checkpoint.save_checkpoint(out, self.network, self.history[-1], split)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def train(
    recipe: Recipe,
    data_root: Path | None,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    log: Log = _to_stderr,
) -> Outcome:
    """Trains a recipe and leaves a checkpoint at ``out``, after every epoch.

    Beside it: ``out.metrics.jsonl``, one record an epoch, and until the end ``out.resume``, from which ``resume`` goes
    on. Ctrl-C ends it cleanly after saying how to go on; the outcome is then not ``finished``.

    Raises:
        ReadError: data that cannot be read; ``out`` exists and neither ``resume`` nor ``force`` is given; a resume file
            of another recipe; a loss that is no longer a number.
    """
    set_threads()
    if resume and (done := already(recipe, out, log)):
        return done
    return follow(Course(recipe), data_root, out, resume=resume, force=force, log=log)


def already(recipe: Recipe, out: Path, log: Log) -> Outcome | None:
    """The outcome of a training that has nothing left to resume; None where there is something to do."""
    if resume_path(out).is_file() or not out.is_file():
        return None
    found = checkpoint.load_checkpoint(out)
    if not found.metrics.get("finished") or found.recipe != recipe:
        return None
    log(f"{out} is finished: nothing to resume")
    return Outcome(out, True, found.metrics)


def follow(course: Course, data_root: Path | None, out: Path, *, resume: bool, force: bool, log: Log) -> Outcome:
    """Train to the end of a course, from its resume file where ``resume`` says so."""
    refuse_overwriting(out, resume, force)
    _make_room(out)
    recipe, epochs = course.recipe, course.training.epochs
    split, test = load_for(recipe, "train", data_root), load_for(recipe, "test", data_root)
    _check_classes(recipe, split, test)
    if resume:
        _restore(course, out)
    else:
        resume_path(out).unlink(missing_ok=True)  # of the training that ``force`` gives up
    saved = course.epoch
    samples = min(course.samples or len(split), len(split))
    log(f"{recipe.name}: {samples} training samples, {_parameters(course.network)} parameters, {_threads()}")
    try:
        if course.epoch == epochs:  # a crash came between the last resume file and its checkpoint
            _save(course, out, split)
        while course.epoch < epochs:
            _epoch(course, split, test)
            _save(course, out, split)
            saved = course.epoch
            log(_line(course.history[-1], epochs))
    except KeyboardInterrupt:
        log(_interrupted(saved, out))
        return Outcome(out, False, course.history[saved - 1] if saved else {})
    resume_path(out).unlink(missing_ok=True)
    return Outcome(out, True, course.history[-1])


@torch.no_grad()
def accuracy(network: Trainee, split: Split, batch: int = 256) -> float:
    """The share of samples whose label is the largest mean output, in eval mode."""
    assert split.y is not None, "accuracy needs labels"
    training, right = network.training, 0
    network.eval()
    for start in range(0, len(split), batch):
        answer = network.predict(_floats(split.x[start : start + batch])).argmax(dim=1).numpy()
        right += int((answer == split.y[start : start + batch]).sum())
    network.train(training)
    return right / len(split)


def set_threads() -> None:
    """Torch's own choice of threads, unless the environment variable SNNCOMPILE_THREADS says how many."""
    wanted = os.environ.get(THREADS_VARIABLE, "")
    if wanted and (not wanted.isdecimal() or not 1 <= int(wanted) <= 1024):
        raise ReadError(f"{wanted!r} is no number of threads", where=THREADS_VARIABLE)
    if wanted:
        torch.set_num_threads(int(wanted))


# One epoch


def _epoch(course: Course, split: Split, test: Split) -> None:
    recipe, network, settings = course.recipe, course.network, course.training
    batches = _batches(settings, len(split), course.epoch, course.samples)
    total = settings.epochs * len(batches)
    later = total - (course.epoch + 1) * len(batches)
    start, losses, right = time.monotonic(), 0.0, 0
    network.train()
    with Progress(len(batches), later) as progress:
        for index, chosen in enumerate(batches):
            for group in course.optimiser.param_groups:
                group["lr"] = learning_rate(settings, course.epoch * len(batches) + index, total)
            loss, hits = _step(course, split, chosen)
            if not math.isfinite(loss):
                remedy = "lower the learning rate"
                raise ReadError(f"the loss is {loss} in epoch {course.epoch + 1}", where=recipe.name, remedy=remedy)
            losses += loss * len(chosen)
            right += hits
            progress.update(index + 1, f"epoch {course.epoch + 1}/{settings.epochs}, loss {loss:.4f}")
    seconds, epoch, samples = time.monotonic() - start, course.epoch + 1, sum(map(len, batches))
    measured: dict[str, Any] = {
        "epoch": epoch,
        "epochs": settings.epochs,
        "finished": epoch == settings.epochs,
        "loss": losses / samples,
        "train_accuracy": right / samples,
        "seconds": round(seconds, 3),
        "samples_per_second": round(samples / seconds, 1),
    }
    if measured["finished"] or epoch % settings.evaluate_every == 0:
        measured |= {"test_accuracy": accuracy(network, test), "test_samples": len(test)}
    course.history.append(measured)


def _step(course: Course, split: Split, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[float, int]:
    """One step of the optimiser; the loss of the batch and how many of it were right."""
    tet = course.recipe.settings
    assert split.y is not None, "training data have labels"
    labels = torch.from_numpy(split.y[chosen])
    outputs = course.network(_floats(split.x[chosen]))
    loss = tet_loss(outputs, labels, tet.mix, tet.phi)
    course.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    course.optimiser.step()
    course.after_step()
    return float(loss.detach()), int((outputs.detach().mean(dim=1).argmax(dim=1) == labels).sum())


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """Constant, or ``rate (1 + cos(pi step / total)) / 2``: a cosine that ends at 0."""
    rate = settings.learning_rate
    return rate if settings.schedule == "constant" else rate * 0.5 * (1.0 + math.cos(math.pi * step / total))


def _batches(
    settings: TrainingSettings, samples: int, epoch: int, part: int
) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The samples of an epoch (``part`` of them, 0: all), shuffled by (seed, epoch), in even batches: no small last one
    for batch norm.
    """
    order = np.random.default_rng([settings.seed, epoch]).permutation(samples)
    order = order[: part or samples]
    return np.array_split(order, math.ceil(len(order) / settings.batch))


def _floats(x: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.float32)


# Starting, saving, going on


def _restore(course: Course, out: Path) -> None:
    """Bring a course to where its resume file says it is."""
    path = resume_path(out)
    where = str(path)
    content = checkpoint.read(path, checkpoint.RESUME_FORMAT)
    for name, kind in (("recipe", dict), ("weights", dict), ("optimiser", dict), ("history", list)):
        if not isinstance(content.get(name), kind):
            raise ReadError(f"lacks {name!r}", where=where, remedy="train again with --force")
    if Recipe.from_dict(content["recipe"], where) != course.recipe:
        remedy = "resume with the recipe it was started with, or start again with --force"
        raise ReadError("belongs to another recipe", where=where, remedy=remedy)
    course.check_weights(where, content["weights"])
    course.network.load_state_dict(content["weights"])
    try:
        course.optimiser.load_state_dict(content["optimiser"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError("its optimiser state is damaged", where=where, why=str(error)) from error
    course.history = content["history"]
    records = all(isinstance(record, dict) for record in course.history)
    if not records or not 1 <= course.epoch <= course.training.epochs:
        raise ReadError("its history is damaged", where=where, remedy="train again with --force")


def _save(course: Course, out: Path, split: Split) -> None:
    """The resume file first: it holds all that is needed, so a crash between the files loses nothing."""
    checkpoint.write(
        resume_path(out),
        {
            "format": checkpoint.RESUME_FORMAT,
            "version": checkpoint.VERSION,
            "recipe": course.recipe.to_dict(),
            "weights": course.network.state_dict(),
            "optimiser": course.optimiser.state_dict(),
            "history": course.history,
            **course.extra(),
        },
    )
    course.save(out, split)
    metrics = out.with_name(f"{out.name}.metrics.jsonl")
    beside = metrics.with_name(f".{metrics.name}.{os.getpid()}")
    beside.write_text("".join(json.dumps(record) + "\n" for record in course.history), encoding="utf-8")
    os.replace(beside, metrics)


def resume_path(out: Path) -> Path:
    """Where an unfinished training of ``out`` is kept."""
    return out.with_name(f"{out.name}.resume")


def refuse_overwriting(out: Path, resume: bool, force: bool) -> None:
    """Raise ReadError where ``out`` is something that the options do not give up."""
    if out.is_dir():
        raise ReadError("is a folder", where=str(out), remedy="name a file, as in -o ckpt.pt")
    if resume:
        return
    if resume_path(out).is_file() and not force:
        raise ReadError(
            "holds an unfinished training", where=str(out), remedy="go on with --resume, or --force a new one"
        )
    if out.exists() and not force:
        raise ReadError("exists", where=str(out), remedy="name another file, or --force a new training")


def _make_room(out: Path) -> None:
    """The folder of ``out``, checked before the training and not after its first epoch."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadError("no folder can be made", where=str(out.parent), why=str(error)) from error
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise ReadError("cannot be written to", where=str(out.parent), remedy="name another folder with -o")


def _check_classes(recipe: Recipe, *splits: Split) -> None:
    for split in splits:
        if split.y is not None and int(split.y.max(initial=0)) >= recipe.classes:
            raise SheetError(
                f"the network has {recipe.classes} outputs, the data have {len(split.classes)} classes",
                where=f"{recipe.name}, network.architecture",
                remedy=f"end it with {len(split.classes)}FC",
            )


# What is said


def _line(record: dict[str, Any], epochs: int) -> str:
    test = f", test accuracy {record['test_accuracy']:.2%}" if "test_accuracy" in record else ""
    pace = f"{record['seconds']:.1f} s, {record['samples_per_second']:.0f} samples/s"
    loss = f"loss {record['loss']:.4f}, training accuracy {record['train_accuracy']:.2%}"
    return f"epoch {record['epoch']}/{epochs}: {loss}{test} ({pace})"


def _interrupted(saved: int, out: Path) -> str:
    if not saved:
        return "interrupted before the end of the first epoch: nothing was saved"
    epochs = "1 epoch is" if saved == 1 else f"{saved} epochs are"
    return f"interrupted: {epochs} saved in {out}; go on with --resume -o {out}"


def _parameters(network: Trainee) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread" if count == 1 else f"{count} threads"

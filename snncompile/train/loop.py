"""The training loop: seeds, epochs, checkpoints, and how to go on after an interruption.

Nothing random is carried from step to step: the order of an epoch is a function of (seed, epoch), what is drawn for a
sample one of (seed, epoch, sample), and the learning rate one of the step. So a resumed training gives the very bits of
an uninterrupted one, on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe
from snncompile.run.trace import Array
from snncompile.train.averages import Average
from snncompile.train.batches import Ahead
from snncompile.train.course import Course, Trainee
from snncompile.train.curves import Curves
from snncompile.train.data import Split
from snncompile.train.methods import course_of, has_teacher, teacher_of, teacher_path
from snncompile.train.places import fetch
from snncompile.train.processes import Processes
from snncompile.train.progress import Progress
from snncompile.train.resuming import (
    Log,
    Outcome,
    alone,
    already,
    begun,
    make_room,
    nothing_to_resume,
    refuse_overwriting,
    restore,
    resume_path,
    save,
)
from snncompile.train.splits import Splits, batches_of

__all__ = [
    "Log",
    "Options",
    "Outcome",
    "accuracy",
    "already",
    "follow",
    "resume_path",
    "set_threads",
    "train",
    "train_with",
]

THREADS_VARIABLE = "SNNCOMPILE_THREADS"


@dataclass(frozen=True)
class Options:
    """How a training is run, which changes nothing of what it is."""

    resume: bool = False
    force: bool = False
    device: str = "cpu"
    """``cpu``, ``cuda``, or ``auto``: an accelerator where there is one."""
    curves: Path | None = None
    """A folder for TensorBoard."""
    download: bool = False
    """Whether a data set that is not there is fetched."""
    compile: bool = False
    """Whether the neurons run as kernels that torch.compile makes."""
    quiet: bool = False
    """Whether even a terminal is shown no progress."""


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
    return train_with(recipe, data_root, out, Options(resume, force), log)


def train_with(recipe: Recipe, data_root: Path | None, out: Path, options: Options, log: Log) -> Outcome:
    """``train`` with everything that can be said of how it is run."""
    set_threads()
    if options.resume and (done := already(recipe, out, log)):
        return done
    if options.resume and has_teacher(recipe) and not resume_path(out).is_file():
        if not begun(teacher_path(out)):
            raise nothing_to_resume(out)
        options = replace(options, resume=False)  # it was ended while its teacher was taught, or soon after
    refuse_overwriting(out, options.resume, options.force)

    def teach(teacher: Recipe, path: Path) -> bool:
        again = not options.force and begun(path)
        log(f"{recipe.name}: its teacher {teacher.name} first, in {path}")
        own = replace(options, resume=again, curves=None, compile=False)  # rectifiers have nothing to compile
        return train_with(teacher, data_root, path, own, log).finished

    weights = teacher_of(recipe, out, teach)
    if weights is None and has_teacher(recipe):
        return Outcome(out, False, {})
    return follow(course_of(recipe, weights), data_root, out, options, log)


def follow(course: Course, data_root: Path | None, out: Path, options: Options, log: Log) -> Outcome:
    """Train to the end of a course, from its resume file where ``resume`` says so."""
    refuse_overwriting(out, options.resume, options.force)
    make_room(out)
    course.settle(Processes.joined(options.device), compiled=options.compile)
    with alone(out) if course.processes.first else nullcontext():
        refuse_overwriting(out, options.resume, options.force)  # somebody may just have come to an end
        return _followed(course, data_root, out, options, log)


def _followed(course: Course, data_root: Path | None, out: Path, options: Options, log: Log) -> Outcome:
    if course.training.batch < 2 * course.processes.count:
        why = f"{course.processes.count} processes share a batch, and batch norm needs two samples in each"
        raise SheetError(f"{course.training.batch} samples", where=f"{course.recipe.name}, training.batch", why=why)
    log = log if course.processes.first else _nowhere
    if options.download and course.processes.first:
        fetch(course.recipe.data.name, data_root)
    course.processes.wait()
    average = Average(course.training.average, course.network)
    data = Splits(course, data_root, watched=course.processes.first and not options.quiet)
    if options.resume:
        restore(course, average, out)
    elif course.processes.first:
        resume_path(out).unlink(missing_ok=True)  # of the training that ``force`` gives up
    course.processes.wait()
    saved = course.epoch
    samples = min(course.samples or len(data.train), len(data.train))
    log(f"{course.recipe.name}: {samples} training samples, {_parameters(course.network)} parameters, {_where(course)}")
    try:
        with Curves.at(options.curves if course.processes.first else None) as curves, _interruptible():
            if course.epoch == course.total_epochs:  # a crash came between the last resume file and its checkpoint
                _save(course, average, out, data)
            while course.epoch < course.total_epochs:
                course.begin_epoch(course.epoch)
                data.settle()
                _epoch(course, average, data)
                _save(course, average, out, data)
                saved = course.epoch
                curves.add(course.history[-1])
                log(_line(course.history[-1], course.total_epochs))
    except KeyboardInterrupt:
        log(_interrupted(saved, out))
        return Outcome(out, False, course.history[saved - 1] if saved else {})
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch has no kind of its own for it
            raise
        why = (str(error).strip().splitlines() or ["out of memory"])[0][:160]
        what, remedy = "a step needs more memory than there is", "lower training.batch"
        raise ReadError(what, where=course.recipe.name, why=why, remedy=remedy) from error
    if course.processes.first:
        resume_path(out).unlink(missing_ok=True)
    return Outcome(out, True, course.history[-1])


@torch.no_grad()
def accuracy(network: Trainee, split: Split, batch: int = 256, course: Course | None = None) -> float:
    """The share of samples whose label is the largest mean output, in eval mode.

    Each of several processes measures its part of the samples.
    """
    assert split.y is not None, "accuracy needs labels"
    training, right = network.training, 0
    processes = course.processes if course else Processes()
    network.eval()
    for start in range(0, len(split), batch):
        chosen = processes.part(np.arange(start, min(start + batch, len(split))))
        if not len(chosen):
            continue
        x = split.batch(chosen)
        x = course.shown(x, chosen, None) if course else x
        answer = network.predict(_floats(x).to(processes.device)).argmax(dim=1).cpu().numpy()
        right += int((answer == split.y[chosen]).sum())
    network.train(training)
    return processes.sums([right])[0] / len(split)


def set_threads() -> None:
    """Torch's own choice of threads, unless the environment variable SNNCOMPILE_THREADS says how many."""
    wanted = os.environ.get(THREADS_VARIABLE, "")
    if wanted and (not wanted.isdecimal() or not 1 <= int(wanted) <= 1024):
        raise ReadError(f"{wanted!r} is no number of threads", where=THREADS_VARIABLE)
    if wanted:
        torch.set_num_threads(int(wanted))


# One epoch


def _epoch(course: Course, average: Average, data: Splits) -> None:
    settings, epoch, processes = course.training, course.epoch, course.processes
    batches = batches_of(settings, len(data.train), epoch, course.samples, processes.count)
    assert data.train.y is not None, "training data have labels"
    start, losses, right = time.monotonic(), 0.0, 0.0
    course.network.train()
    own = [processes.part(chosen) for chosen in batches]
    later = (course.total_epochs - epoch - 1) * len(batches)
    with Progress(len(batches), later, shown=data.watched) as progress, Ahead(data.train, own, epoch) as shown:
        for index, x in enumerate(shown):
            chosen = processes.part(batches[index])
            for group in course.optimiser.param_groups:
                group["lr"] = course.learning_rate(index, len(batches))
            labels = torch.from_numpy(data.train.y[chosen]).to(processes.device)
            x = course.shown(x, chosen, epoch)
            torch.manual_seed(drawn_in(settings.seed, epoch, index, processes.rank))
            loss, hits = course.step(_floats(x).to(processes.device), labels)
            course.after_step()
            average.update(course.network)
            if not math.isfinite(loss):
                remedy = "lower the learning rate"
                raise ReadError(f"the loss is {loss} in epoch {epoch + 1}", where=course.recipe.name, remedy=remedy)
            losses += loss * len(chosen)
            right += hits
            progress.update(index + 1, f"epoch {epoch + 1}/{course.total_epochs}, loss {loss:.4f}")
    processes.average(course.network.buffers())
    processes.average(average.averaged.values())
    _check_finite(course)
    seconds, samples = time.monotonic() - start, sum(map(len, batches))
    losses, right = processes.sums([losses, right])
    measured: dict[str, Any] = {
        "epoch": epoch + 1,
        "epochs": course.total_epochs,
        "finished": epoch + 1 == course.total_epochs,
        "loss": losses / samples,
        "train_accuracy": right / samples,
        "learning_rate": course.learning_rate(len(batches) - 1, len(batches)),
        "seconds": round(seconds, 3),
        "samples_per_second": round(samples / seconds, 1),
        **course.metrics(),
    }
    if measured["finished"] or (epoch + 1) % settings.evaluate_every == 0:
        with average.in_force(course.network):
            measured |= {"test_accuracy": accuracy(course.network, data.test, course=course)}
        measured |= {"test_samples": len(data.test)}
    course.history.append(measured)


def _check_finite(course: Course) -> None:
    """Raise ReadError where the last steps left weights that are no numbers: nobody could read their checkpoint."""
    for name, value in course.network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            what = f"the weights {name!r} hold NaN or infinity after epoch {course.epoch + 1}"
            raise ReadError(what, where=course.recipe.name, remedy="lower the learning rate")


def drawn_in(seed: int, epoch: int, step: int, rank: int) -> int:
    """The seed of what a process draws in a step (dropout), so that nothing random is carried on."""
    return int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0])


def _floats(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.float32)


def _save(course: Course, average: Average, out: Path, data: Splits) -> None:
    if course.processes.first:
        save(course, average, out, data.train)
    course.processes.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Takes a polite request to stop (SIGTERM, which launchers and queues send) for Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What is said


def _nowhere(line: str) -> None:
    """The first process speaks for all."""


def _line(record: dict[str, Any], epochs: int) -> str:
    test = f", test accuracy {record['test_accuracy']:.2%}" if "test_accuracy" in record else ""
    pace = f"{record['seconds']:.1f} s, {record['samples_per_second']:.0f} samples/s"
    loss = f"loss {record['loss']:.4f}, training accuracy {record['train_accuracy']:.2%}"
    return f"epoch {record['epoch']}/{epochs}: {loss}{test} ({pace})"


def _interrupted(saved: int, out: Path) -> str:
    if not saved:
        return "interrupted before the end of the first epoch: nothing was saved"
    epochs = "1 epoch is" if saved == 1 else f"{saved} epochs are"
    return f"interrupted: {epochs} saved in {out}; the same command with --resume goes on"


def _parameters(network: Trainee) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _where(course: Course) -> str:
    count, processes = torch.get_num_threads(), course.processes
    place = ("1 thread" if count == 1 else f"{count} threads") if processes.device.type == "cpu" else "one accelerator"
    return place if processes.count == 1 else f"{processes.count} processes, {place} each"

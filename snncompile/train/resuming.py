"""What an unfinished training leaves on the disk, and how it is taken up again."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.sheet import shown
from snncompile.train import checkpoint
from snncompile.train.averages import Average
from snncompile.train.course import Course
from snncompile.train.data import Split

AGAIN = "train again with --force"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What ``train`` did: where the checkpoint is, whether all epochs are done, and the last measurements."""

    path: Path
    finished: bool
    metrics: dict[str, Any]


def resume_path(out: Path) -> Path:
    """Where an unfinished training of ``out`` is kept."""
    return out.with_name(f"{out.name}.resume")


def begun(out: Path) -> bool:
    """Whether there is a training of ``out``, finished or not."""
    return out.is_file() or resume_path(out).is_file()


def nothing_to_resume(out: Path) -> ReadError:
    """For ``--resume`` where nothing was begun, or nothing was saved."""
    return ReadError("there is nothing to resume", where=str(out), remedy="start without --resume")


def already(recipe: Recipe, out: Path, log: Log) -> Outcome | None:
    """The outcome of a training that has nothing left to resume; None where there is something to do."""
    if resume_path(out).is_file() or not out.is_file():
        return None
    found = checkpoint.load_checkpoint(out)
    if not found.metrics.get("finished") or found.recipe != recipe:
        return None
    log(f"{out} is finished: nothing to resume")
    return Outcome(out, True, found.metrics)


def restore(course: Course, average: Average, out: Path) -> None:
    """Bring a course to where its resume file says it is. Raises ReadError."""
    path = resume_path(out)
    where = str(path)
    if not path.is_file():
        raise nothing_to_resume(out)
    content = checkpoint.read(path, checkpoint.RESUME_FORMAT)
    for name, kind in (("recipe", dict), ("weights", dict), ("optimiser", dict), ("history", list)):
        if not isinstance(content.get(name), kind):
            raise ReadError(f"lacks {name!r}", where=where, remedy=AGAIN)
    if Recipe.from_dict(content["recipe"], where) != course.recipe:
        remedy = "resume with the recipe it was started with, or start again with --force"
        raise ReadError("belongs to another recipe", where=where, remedy=remedy)
    history = content["history"]
    if not _are_records(history) or not 1 <= len(history) <= course.total_epochs:
        raise ReadError("its history is damaged", where=where, remedy=AGAIN)
    count = content.get("processes", 1)
    if type(count) is not int or count != course.processes.count:
        why = "batch norm sees another part of a batch"
        remedy = f"go on with as many: {shown(count)}"
        what = f"was trained by another number of processes than {course.processes.count}"
        raise ReadError(what, where=where, why=why, remedy=remedy)
    course.check_weights(where, content["weights"])
    course.history = history
    course.begin_epoch(len(history) - 1)  # a method of several stages makes the optimiser of this one
    try:
        course.network.load_state_dict(content["weights"])
        # what is said of all parameters is what the recipe says
        groups = course.optimiser.state_dict()["param_groups"]
        course.optimiser.load_state_dict({"state": _checked(course, content["optimiser"]), "param_groups": groups})
        course.precision.restore(content.get("precision", {}))
        average.restore(content.get("average", {}))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ReadError("its optimiser state is damaged", where=where, why=str(error), remedy=AGAIN) from error
    course.restore(content, where)


def _are_records(history: list[Any]) -> bool:
    """Whether a history is what was written: plain values by name."""
    try:
        json.dumps(history, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return all(isinstance(record, dict) for record in history)


def _checked(course: Course, optimiser: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The state of an optimiser, one entry a parameter. Raises ValueError where it is not of this course's."""
    parameters = [one for group in course.optimiser.param_groups for one in group["params"]]
    names = {"step", "exp_avg", "exp_avg_sq"} if course.training.optimiser == "adam" else {"momentum_buffer"}
    state = optimiser.get("state")
    if not isinstance(state, dict) or not set(state) <= set(range(len(parameters))):
        raise ValueError("it has no state, or one of other parameters")
    for number, entries in state.items():
        if not isinstance(entries, dict) or set(entries) != names:
            raise ValueError(f"the state of parameter {number} lacks or has too much")
        for name, value in entries.items():
            if value is None and name == "momentum_buffer" and not course.training.momentum:
                continue
            shape = torch.Size() if name == "step" else parameters[number].shape
            if not checkpoint.is_plain(value) or value.shape != shape or value.dtype != parameters[number].dtype:
                raise ValueError(f"{name} of parameter {number} is no tensor of its shape")
            if not torch.isfinite(value).all() or (name in ("step", "exp_avg_sq") and value.min() < 0):
                raise ValueError(f"{name} of parameter {number} holds what it cannot")
    return state


def save(course: Course, average: Average, out: Path, split: Split) -> None:
    """The resume file first: it holds all that is needed, so a crash between the files loses nothing."""
    content: dict[str, object] = {
        "format": checkpoint.RESUME_FORMAT,
        "version": checkpoint.VERSION,
        "recipe": course.recipe.to_dict(),
        "weights": course.network.state_dict(),
        "optimiser": course.optimiser.state_dict(),
        "precision": course.precision.state(),
        "average": average.state(),
        "processes": course.processes.count,
        "history": course.history,
        **course.extra(),
    }
    checkpoint.write(resume_path(out), content)
    with average.in_force(course.network):
        course.save(out, split)
    metrics = out.with_name(f"{out.name}.metrics.jsonl")
    beside = metrics.with_name(f".{metrics.name}.{os.getpid()}")
    try:
        beside.write_text("".join(json.dumps(record) + "\n" for record in course.history), encoding="utf-8")
        os.replace(beside, metrics)
    except OSError as error:
        raise ReadError("cannot be written", where=str(metrics), why=str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


def refuse_overwriting(out: Path, resume: bool, force: bool) -> None:
    """Raise ReadError where ``out`` is something that the options do not give up."""
    if out.is_dir():
        raise ReadError("is a folder", where=str(out), remedy="name a file, as in -o ckpt.pt")
    if out.exists() and not out.is_file():  # a device or a pipe, which renaming a checkpoint to it would replace
        raise ReadError("is no plain file", where=str(out), remedy="name a file, as in -o ckpt.pt")
    if resume:
        return
    if resume_path(out).is_file() and not force:
        raise ReadError(
            "holds an unfinished training", where=str(out), remedy="go on with --resume, or --force a new one"
        )
    if out.exists() and not force:
        raise ReadError("exists", where=str(out), remedy="name another file, or --force a new training")


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """While nobody else trains into ``out``: two would each undo what the other one saved. Raises ReadError where
    somebody does. A lock of the system, which goes with its process, however that ends.
    """
    path = out.with_name(f".{out.name}.lock")
    while True:
        try:
            opened = path.open("a")
        except OSError as error:  # no access that the system knows of in advance: a folder that takes no files
            raise _no_room(out, error.strerror or str(error)) from error
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                remedy = "wait for its end, or name another file"
                raise ReadError("another process trains into it", where=str(out), remedy=remedy) from error
            except OSError:
                pass  # a file system without locks
            try:
                if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue
            except FileNotFoundError:
                continue  # whoever held it has just taken it away
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def make_room(out: Path) -> None:
    """The folder of ``out``, checked before the training and not after its first epoch."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadError("no folder can be made", where=str(out.parent), why=str(error)) from error
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise _no_room(out, "no permission")
    longest, most = len(os.fsencode(f".{out.name}.metrics.jsonl.{2**22}")), os.pathconf(out.parent, "PC_NAME_MAX")
    if longest > most:
        why = f"with what stands beside it {longest} bytes, a name has {most} at most"
        raise ReadError("is too long a name", where=str(out), why=why, remedy="name a shorter one with -o")


def _no_room(out: Path, why: str) -> ReadError:
    return ReadError("cannot be written to", where=str(out.parent), why=why, remedy="name another folder with -o")

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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe
from snncompile.train import checkpoint
from snncompile.train.data import Split, load_for
from snncompile.train.networks import Network
from snncompile.train.progress import Progress
from snncompile.train.tet import tet_loss

THREADS_VARIABLE = "SNNCOMPILE_THREADS"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What ``train`` did: where the checkpoint is, whether all epochs are done, and the last measurements."""

    path: Path
    finished: bool
    metrics: dict[str, Any]


@dataclass
class _State:
    """A training between two epochs; ``history`` has a record of each that is done."""

    network: Network
    optimiser: torch.optim.Optimizer
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)


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
    if resume and not _resume_path(out).is_file() and out.is_file():
        found = checkpoint.load_checkpoint(out)
        if found.metrics.get("finished") and found.recipe == recipe:
            log(f"{out} is finished: nothing to resume")
            return Outcome(out, True, found.metrics)
    _refuse_overwriting(out, resume, force)
    _make_room(out)
    split, test = load_for(recipe, "train", data_root), load_for(recipe, "test", data_root)
    _check_classes(recipe, split, test)
    state = _resumed(recipe, out) if resume else _fresh(recipe)
    saved = state.epoch
    if not resume:
        _resume_path(out).unlink(missing_ok=True)  # of the training that ``force`` gives up
    log(f"{recipe.name}: {len(split)} training samples, {_parameters(state.network)} parameters, {_threads()}")
    try:
        if state.epoch == recipe.training.epochs:  # a crash came between the last resume file and its checkpoint
            _save(state, out, split)
        while state.epoch < recipe.training.epochs:
            _epoch(state, split, test)
            _save(state, out, split)
            saved = state.epoch
            log(_line(state.history[-1], recipe.training.epochs))
    except KeyboardInterrupt:
        log(_interrupted(saved, out))
        return Outcome(out, False, state.history[saved - 1] if saved else {})
    _resume_path(out).unlink(missing_ok=True)
    return Outcome(out, True, state.history[-1])


@torch.no_grad()
def accuracy(network: Network, split: Split, batch: int = 256) -> float:
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


def _epoch(state: _State, split: Split, test: Split) -> None:
    recipe, network = state.network.recipe, state.network
    batches = _batches(recipe, len(split), state.epoch)
    total = recipe.training.epochs * len(batches)
    later = total - (state.epoch + 1) * len(batches)
    start, losses, right = time.monotonic(), 0.0, 0
    network.train()
    with Progress(len(batches), later) as progress:
        for index, chosen in enumerate(batches):
            for group in state.optimiser.param_groups:
                group["lr"] = learning_rate(recipe, state.epoch * len(batches) + index, total)
            loss, hits = _step(state, split, chosen)
            if not math.isfinite(loss):
                remedy = "lower training.learning_rate"
                raise ReadError(f"the loss is {loss} in epoch {state.epoch + 1}", where=recipe.name, remedy=remedy)
            losses += loss * len(chosen)
            right += hits
            progress.update(index + 1, f"epoch {state.epoch + 1}/{recipe.training.epochs}, loss {loss:.4f}")
    seconds, epoch = time.monotonic() - start, state.epoch + 1
    measured: dict[str, Any] = {
        "epoch": epoch,
        "epochs": recipe.training.epochs,
        "finished": epoch == recipe.training.epochs,
        "loss": losses / len(split),
        "train_accuracy": right / len(split),
        "seconds": round(seconds, 3),
        "samples_per_second": round(len(split) / seconds, 1),
    }
    if measured["finished"] or epoch % recipe.training.evaluate_every == 0:
        measured |= {"test_accuracy": accuracy(network, test), "test_samples": len(test)}
    state.history.append(measured)


def _step(state: _State, split: Split, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[float, int]:
    """One step of the optimiser; the loss of the batch and how many of it were right."""
    tet = state.network.recipe.tet
    assert split.y is not None, "training data have labels"
    labels = torch.from_numpy(split.y[chosen])
    outputs = state.network(_floats(split.x[chosen]))
    loss = tet_loss(outputs, labels, tet.mix, tet.phi)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimiser.step()
    return float(loss.detach()), int((outputs.detach().mean(dim=1).argmax(dim=1) == labels).sum())


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Constant, or ``rate (1 + cos(pi step / total)) / 2``: a cosine that ends at 0."""
    rate = recipe.training.learning_rate
    return rate if recipe.training.schedule == "constant" else rate * 0.5 * (1.0 + math.cos(math.pi * step / total))


def _batches(recipe: Recipe, samples: int, epoch: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The samples of an epoch, shuffled by (seed, epoch), in even batches: no small last one for batch norm."""
    order = np.random.default_rng([recipe.training.seed, epoch]).permutation(samples)
    return np.array_split(order, math.ceil(samples / recipe.training.batch))


def _floats(x: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.float32)


# Starting, saving, going on


def _fresh(recipe: Recipe) -> _State:
    torch.manual_seed(recipe.training.seed)
    network = Network(recipe)
    return _State(network, torch.optim.Adam(network.parameters(), lr=recipe.training.learning_rate))


def _resumed(recipe: Recipe, out: Path) -> _State:
    path = _resume_path(out)
    content = checkpoint.read(path, checkpoint.RESUME_FORMAT)
    where = str(path)
    for name, kind in (("recipe", dict), ("weights", dict), ("optimiser", dict), ("history", list)):
        if not isinstance(content.get(name), kind):
            raise ReadError(f"lacks {name!r}", where=where, remedy="train again with --force")
    if Recipe.from_dict(content["recipe"], where) != recipe:
        remedy = "resume with the recipe it was started with, or start again with --force"
        raise ReadError("belongs to another recipe", where=where, remedy=remedy)
    checkpoint.check_weights(where, recipe, content["weights"])
    state = _fresh(recipe)
    state.network.load_state_dict(content["weights"])
    try:
        state.optimiser.load_state_dict(content["optimiser"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError("its optimiser state is damaged", where=where, why=str(error)) from error
    state.history = content["history"]
    records = all(isinstance(record, dict) for record in state.history)
    if not records or not 1 <= state.epoch <= recipe.training.epochs:
        raise ReadError("its history is damaged", where=where, remedy="train again with --force")
    return state


def _save(state: _State, out: Path, split: Split) -> None:
    """The resume file first: it holds all that is needed, so a crash between the files loses nothing."""
    checkpoint.write(
        _resume_path(out),
        {
            "format": checkpoint.RESUME_FORMAT,
            "version": checkpoint.VERSION,
            "recipe": state.network.recipe.to_dict(),
            "weights": state.network.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "history": state.history,
        },
    )
    checkpoint.save_checkpoint(out, state.network, state.history[-1], split)
    metrics = out.with_name(f"{out.name}.metrics.jsonl")
    beside = metrics.with_name(f".{metrics.name}.{os.getpid()}")
    beside.write_text("".join(json.dumps(record) + "\n" for record in state.history), encoding="utf-8")
    os.replace(beside, metrics)


def _resume_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.resume")


def _refuse_overwriting(out: Path, resume: bool, force: bool) -> None:
    if out.is_dir():
        raise ReadError("is a folder", where=str(out), remedy="name a file, as in -o ckpt.pt")
    if resume:
        return
    if _resume_path(out).is_file() and not force:
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


def _parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread" if count == 1 else f"{count} threads"

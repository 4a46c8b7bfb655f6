"""The two splits of a training: checked before its first step, and cut into batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe, TrainingSettings
from snncompile.run.trace import Array
from snncompile.train.course import Course
from snncompile.train.data import Split, load_for


class Splits:
    """Both splits, cut into the steps of the epoch that has begun; ``watched``: whether somebody sees the progress.

    Raises:
        ReadError: they cannot be read, are empty, or differ in their classes.
        SheetError: the network has more or fewer outputs than they have classes; too few samples for batch norm.
    """

    def __init__(self, course: Course, root: Path | None, *, watched: bool) -> None:
        self.course, self.root, self.watched = course, root, watched
        self._load()
        least, samples = 2 * course.processes.count, min(course.samples or len(self.train), len(self.train))
        if samples < least:
            why = f"batch norm needs two samples in each process, which are {least}"
            raise SheetError(f"{samples} samples", where=f"{course.recipe.name}, training.samples", why=why)

    def _load(self) -> None:
        self.steps = self.course.steps
        self.train, self.test = (
            load_for(self.course.recipe, name, self.root, self.steps) for name in ("train", "test")
        )
        check_classes(self.course.recipe, self.train, self.test)

    def settle(self) -> None:
        """Cut recordings anew where a method has gone on to another number of steps."""
        if self.course.steps != self.steps:
            self._load()


def batches_of(settings: TrainingSettings, samples: int, epoch: int, part: int, processes: int = 1) -> list[Array]:
    """The samples of an epoch (``part`` of them, 0: all), shuffled by (seed, epoch), in even batches: no small last one
    for batch norm, which needs two samples in each process.
    """
    order = np.random.default_rng([settings.seed, epoch]).permutation(samples)
    order = order[: part or samples]
    wanted, most = -(-len(order) // settings.batch), len(order) // (2 * processes)
    return np.array_split(order, max(1, min(wanted, most)))


def check_classes(recipe: Recipe, train: Split, test: Split) -> None:
    """Raise where the splits are empty, or of other classes than each other (ReadError) or the network (SheetError)."""
    if train.classes != test.classes:
        other = sorted(set(train.classes) ^ set(test.classes))
        why = f"{other[0]!r} is in one of them alone" if other else "in another order"
        raise ReadError("its splits have other classes", where=train.name, why=why)
    if len(train.classes) != recipe.classes:
        raise SheetError(
            f"the network has {recipe.classes} outputs, the data have {len(train.classes)} classes",
            where=f"{recipe.name}, network.architecture",
            remedy=f"end it with {len(train.classes)}FC",
        )
    for split in (train, test):
        if not len(split):
            raise ReadError("holds no samples", where=f"{split.name}:{split.split}")
        if split.y is None or int(split.y.min()) < 0 or int(split.y.max()) >= recipe.classes:
            why = f"labels are 0 to {recipe.classes - 1}"
            raise ReadError("holds a label of no class", where=f"{split.name}:{split.split}", why=why)

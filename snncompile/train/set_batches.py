"""Data sets and NIR data made batch after batch, for what goes through them once: nothing of it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.frontends.nir_data import Seen, seen_input
from snncompile.recipe import DATA_SETS, Recipe
from snncompile.train.data import SPLITS, Split, load, load_for
from snncompile.train.encoders import encoded
from snncompile.train.formats import Labels
from snncompile.train.samples import Decoded

Array = NDArray[Any]


@dataclass(frozen=True)
class SetBatches:
    """``NAME[:split[:count]]`` as the network of a recipe sees it, or one of such a shape and steps without a recipe.

    A record of plain values: each process that it is sent to opens the set by itself.
    """

    spec: str
    root: Path | None
    recipe: Recipe | None
    input: tuple[int, ...]
    steps: int

    @cached_property
    def split(self) -> Split:
        """The set, opened; its samples are made when they are asked for."""
        if self.recipe is not None:
            return load_for(self.recipe, self.spec, self.root, held=False)
        return load(self.spec, self.root, shape=self.input, steps=self.steps, held=False)

    @property
    def y(self) -> Labels | None:
        return self.split.y

    def __len__(self) -> int:
        return len(self.split)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "split"}

    def batches(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, encoded as the recipe says. ``ReadError``: they are not finite."""
        x = self.split.x
        for at in range(first, last, size):
            chosen = np.arange(at, min(at + size, last))
            part = x.once(chosen) if isinstance(x, Decoded) else x[chosen]
            if not np.isfinite(part).all():
                why = "the network was trained in float32"
                raise ReadError("holds numbers that float32 does not", where=self.spec, why=why)
            yield part if self.recipe is None else encoded(self.recipe, part, at)


def set_batches(
    spec: str, root: str | None, recipe: Recipe | None, shape: Sequence[int], steps: int
) -> SetBatches | None:
    """The samples of a data set; None where ``spec`` names none. Raises ``ReadError`` as ``load`` does."""
    name = spec.partition(":")[0]
    if re.search(r"\.(np[yz]|nir)(:\d+)?$", spec) or name not in (*DATA_SETS, *(SPLITS if recipe is not None else ())):
        return None
    found = SetBatches(spec, Path(root) if root else None, recipe, tuple(shape), steps)
    if not len(found):
        raise ReadError("holds no samples", where=spec)
    return found


@dataclass(frozen=True)
class NirBatches:
    """The samples of NIR data, ``node`` of ``path``: events are put on the grid of steps batch by batch.

    A record of plain values: each process that it is sent to reads the file by itself.
    """

    path: Path
    node: str
    input: tuple[int, ...]
    steps: int
    count: int | None
    y: None = None

    @cached_property
    def seen(self) -> Seen:
        """What the file holds, as it holds it."""
        return seen_input(self.path, self.node, None, self.steps)

    def __len__(self) -> int:
        return len(self.seen) if self.count is None else min(self.count, len(self.seen))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "seen"}

    def batches(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, as float32."""
        for at in range(first, last, size):
            part = self.seen.samples(at, min(at + size, last))
            yield np.ascontiguousarray(part, np.float32).reshape(len(part), self.steps, *self.input)


def nir_batches(spec: str, node: str, shape: Sequence[int], steps: int) -> NirBatches | None:
    """The samples that ``FILE.nir[:count]`` holds for a network; None for anything else, and for a file that is not as
    it should be: reading it whole says what is wrong.
    """
    file = re.fullmatch(r"(.+\.nir)(?::([1-9]\d{0,10}))?", spec)
    if file is None:
        return None
    found = NirBatches(Path(file[1]), node, tuple(shape), steps, int(file[2]) if file[2] else None)
    try:
        one = found.seen.samples(0, 1) if len(found) else np.zeros((0, 0, 0))
    except ReadError:
        return None
    return found if one.shape == (1, steps, prod(shape)) else None

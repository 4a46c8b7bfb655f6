"""Data sets and NIR data made batch after batch, for what goes through them once: nothing of it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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
    cut: int | None  # the steps that recordings are cut into

    @cached_property
    def split(self) -> Split:
        """The set, opened; its samples are made when they are asked for."""
        if self.recipe is not None:
            return load_for(self.recipe, self.spec, self.root, held=False)
        return load(self.spec, self.root, shape=self.input, steps=self.cut, held=False)

    @property
    def y(self) -> Labels | None:
        return self.split.y

    @property
    def steps(self) -> int | None:
        """The steps of frames; None: images."""
        return None if self.split.static else self.split.x.shape[1]

    def __len__(self) -> int:
        return len(self.split)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "split"}

    def batches(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, encoded as the recipe says. ``ReadError``: they are not finite."""
        x, at = self.split.x, first
        parts = x.parts if isinstance(x, Decoded) else partial(_cut, x)
        for part in parts(first, last, size):
            if not np.isfinite(part).all():
                why = "the network was trained in float32"
                raise ReadError("holds numbers that float32 does not", where=self.spec, why=why)
            yield part if self.recipe is None else encoded(self.recipe, part, at)
            at += len(part)


def _cut(x: Array, first: int, last: int, size: int) -> Iterator[Array]:
    for at in range(first, last, size):
        yield x[at : min(at + size, last)]


def set_batches(
    spec: str, root: str | None, recipe: Recipe | None, shape: Sequence[int], steps: int | None
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
    """The samples of NIR data: read, and events put on the grid of steps, batch by batch.

    A record of plain values: each process that it is sent to reads the file by itself.
    """

    seen: Seen
    input: tuple[int, ...]
    steps: int
    samples: int
    y: None = None

    def __len__(self) -> int:
        return self.samples

    def batches(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, as float32."""
        for at in range(first, last, size):
            part = self.seen.samples(at, min(at + size, last))
            yield np.ascontiguousarray(part, np.float32).reshape(len(part), self.steps, *self.input)


def nir_batches(
    spec: str, node: str, shape: Sequence[int], steps: int | None, dt: float | None = None
) -> NirBatches | None:
    """The samples that ``FILE.nir[:count]`` holds for a network, its only ``node`` or the one of that name; None for
    anything else, and for a file that is not as it should be: reading it whole says what is wrong. ``steps``: of a
    sample, None: any number; ``dt``: the length of a step, where the network says one.
    """
    file = re.fullmatch(r"(.+\.nir)(?::([1-9]\d{0,10}))?", spec)
    if file is None:
        return None
    try:
        seen = seen_input(Path(file[1]), node, dt, steps)
        one = seen.samples(0, 1)
    except ReadError:
        return None
    if one.shape[0] != 1 or one.shape[1] != (steps or one.shape[1]) or one.shape[2] != prod(shape):
        return None
    samples = min(len(seen), int(file[2])) if file[2] else len(seen)
    return NirBatches(seen, tuple(shape), one.shape[1], samples)

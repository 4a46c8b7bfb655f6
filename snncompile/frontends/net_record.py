"""One layer of a ``.net`` as it stands in the file, and the words in which it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.fixed import Integers
from snncompile.ir.ops import Shape

Array = NDArray[Any]
MOST_NEURONS = 1 << 26
LARGEST = 1 << 24  # of any one integer: what a machine of 24 bits can hold


@dataclass(frozen=True)
class Layer:
    """The datasets of ``layer/<index>`` by name; ``where`` names it in messages."""

    where: str
    index: int
    datasets: Mapping[str, Array]

    def fail(self, what: str, why: str = "", remedy: str = "") -> ReadError:
        return ReadError(what, where=self.where, why=why, remedy=remedy)

    def lacks(self, what: str, why: str = "") -> UnsupportedNode:
        return UnsupportedNode(what, where=self.where, why=why)

    def has(self, key: str) -> bool:
        return key in self.datasets

    def need(self, key: str) -> Array:
        if key not in self.datasets:
            raise self.fail(f"has no dataset {key!r}")
        return self.datasets[key]

    def word(self, key: str) -> str:
        value = self.need(key)
        if value.dtype.kind != "U":
            raise self.fail(f"{key} is no word")
        return str(value)

    def integers(self, key: str) -> Integers:
        """A dataset of integers, whatever type holds them. Fractions are refused: netx would drop them."""
        values = self.need(key)
        if values.dtype.kind not in "biuf":
            raise self.fail(f"{key} holds no numbers")
        whole = np.asarray(np.rint(values.astype(np.float64)))
        wrong = whole != values
        if wrong.any():
            raise self.fail(f"{key} holds {values[wrong].flat[0]:g}, which is no integer", "netx would cut it off")
        if np.any(np.abs(whole) > LARGEST):
            raise self.fail(f"{key} holds {np.abs(whole).max():g}", f"the machine's integers end at {LARGEST}")
        return whole.astype(np.int64)

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        if default is not None and not self.has(key):
            return default
        values = self.integers(key)
        if values.size != 1:
            raise self.fail(f"{key} holds {values.size} numbers, not one", "Loihi's neurons share it")
        value = int(values.item())
        if not least <= value <= most:
            raise self.fail(f"{key} is {value}", f"{least} to {most} are possible")
        return value

    def shape(self) -> Shape:
        """[C, H, W], or [n] where all else is 1."""
        sizes = tuple(int(size) for size in self.integers("shape").ravel())
        if not sizes or len(sizes) > 3 or min(sizes) < 1:
            raise self.fail(f"its shape is {list(sizes)}")
        if prod(sizes) > MOST_NEURONS:
            raise self.fail(f"its shape {list(sizes)} is {prod(sizes):,} neurons", f"{MOST_NEURONS:,} are read")
        return sizes

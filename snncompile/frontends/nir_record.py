"""A NIR file as it stands: nodes with their fields, edges, metadata; no meaning yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.fixed import Reals

Array = NDArray[Any]
Value = Array | str
LARGEST_SIZE = 1 << 26  # of any one length, stride or padding
MOST_NEURONS = 1 << 26


@dataclass(frozen=True, eq=False)
class Node:
    """A primitive: ``kind`` (``LIF``) and ``fields`` as in the file; ``where`` names it in messages."""

    kind: str
    fields: Mapping[str, Value]
    where: str = ""
    metadata: Mapping[str, Value] = field(default_factory=dict)

    def fail(self, what: str, why: str = "", remedy: str = "") -> ReadError:
        return ReadError(what, where=self.where, why=why, remedy=remedy)

    def has(self, key: str) -> bool:
        return key in self.fields

    def need(self, key: str) -> Value:
        if key not in self.fields:
            raise self.fail(f"has no {key}", f"every {self.kind} of NIR has one")
        return self.fields[key]

    def reals(self, key: str, default: float | None = None) -> Reals:
        """A field of real numbers as float64."""
        if default is not None and not self.has(key):
            return np.asarray(default, dtype=np.float64)
        value = self.need(key)
        if isinstance(value, str):
            raise self.fail(f"{key} is the text {value[:40]!r}, not numbers")
        return value.astype(np.float64)

    def integers(self, key: str, default: int | None = None) -> tuple[int, ...]:
        """A field of integers, flat; one that may be missing has a default."""
        if default is not None and not self.has(key):
            return (default,)
        values = self.reals(key).ravel()
        if not values.size or np.any(values != np.rint(values)) or np.any(np.abs(values) > LARGEST_SIZE):
            shown = ", ".join(f"{value:g}" for value in values[:4]) or "nothing"
            raise self.fail(f"{key} is {shown}", "a size is an integer")
        return tuple(int(value) for value in values)

    def shape(self, key: str = "shape") -> tuple[int, ...]:
        """A shape, without batch and time."""
        sizes = self.integers(key)
        if min(sizes) < 1 or len(sizes) > 8:
            raise self.fail(f"its {key} is {list(sizes)[:9]}")
        if prod(sizes) > MOST_NEURONS:
            raise self.fail(f"its {key} {list(sizes)} is {prod(sizes):,} values", f"{MOST_NEURONS:,} are read")
        return sizes


@dataclass(frozen=True, eq=False)
class Net:
    """A graph of primitives and of graphs; edges by name, in the order of the file."""

    nodes: Mapping[str, Node | Net]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Value] = field(default_factory=dict)

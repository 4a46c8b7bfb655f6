"""What a random network is drawn with, whatever its level."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from snncompile.errors import GraphError
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Op, Shape
from snncompile.ir.shapes import shape_of
from snncompile.ir.text import to_text

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """A graph with a stimulus for it."""

    graph: Graph
    stimulus: dict[str, Array]

    def __repr__(self) -> str:
        shown = {name: array.tolist() for name, array in self.stimulus.items() if array.size <= 64}
        return f"Case of\n{to_text(self.graph)}with {shown}"

    @property
    def steps(self) -> int:
        return next(iter(self.stimulus.values())).shape[1]


@dataclass
class Drawing:
    """A graph under construction."""

    source: Random
    nodes: dict[str, Op] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    rich: bool = False

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.source.randint(0, 2**32 - 1))

    def maybe(self, one_in: int) -> bool:
        """True once in so many; shrinks to False."""
        return self.source.randint(1, one_in) == one_in

    def pick(self, *choices: Any) -> Any:
        """One of the choices; shrinks to the first."""
        return choices[self.source.randint(0, len(choices) - 1)]

    def add(self, name: str, op: Op, *sources: str | tuple[str, int]) -> str:
        """A node, read from ``source`` or from ``(source, delay)``."""
        ends = [(source, 0) if isinstance(source, str) else source for source in sources]
        self.nodes[name] = op
        self.edges += [Edge(source, name, delay) for source, delay in ends]
        self.shapes[name] = shape_of(name, op, self.shapes[ends[0][0]] if ends else None)
        return name

    def case(self, stimulus: dict[str, Array]) -> Case:
        return Case(Graph(self.nodes, self.edges), stimulus)


def fits(op: Op, shape: Shape) -> bool:
    """Whether an op takes a shape."""
    try:
        shape_of("conv", op, shape)
    except GraphError:
        return False
    return True

"""Populations that NIR has no primitive for, drawn with the primitives that it has.

``Sketch`` adds nodes to a graph one by one; the ops are those that become one NIR node each: ``Scale``, ``Neuron``
without memory or reset (Threshold), ``Readout`` (I, LI). Numbers are taken apart by comparing::

    b[k] = 1 where r[k+1] > 2^k - 1/2, else 0;   r[k] = r[k+1] - 2^k b[k];   r[n] = x

For every integer x with ``x < 2^n`` the b are the binary digits of ``max(0, x)``, the highest first, and ``x - r[0]``
is ``max(0, x)``; ``x - r[m]`` is the same without its lowest m digits. No integer lies within 1/2 of a threshold, so
``>`` and ``>=`` agree. Halves, powers of two and integers below 2^53 are exact in float64.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Neuron, Op, Readout, Scale, Shape, number, real

Term = tuple[str, float, int]
"""A signal, the factor that it counts with, and how many steps late."""
MOST_BITS = 50
"""Of the integers that are taken apart: float64 holds 53, a half and what gates them are added."""


class Sketch:
    """The population ``name`` of ``graph``, which goes, and the nodes that come in its place."""

    def __init__(self, graph: Graph, name: str, shape: Shape) -> None:
        self.graph, self.name, self.shape = graph, name, shape
        self.nodes: dict[str, Op | None] = {name: None}
        self.edges = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
        self._scaled: dict[tuple[str, float], str] = {}

    def terms(self) -> list[Term]:
        """All that arrives at the population."""
        return [(edge.source, 1.0, edge.delay) for edge in self.graph.into(self.name)]

    def add(self, word: str, op: Op, terms: Iterable[Term]) -> str:
        """A node called ``NAME_word`` (``NAME`` where the word is empty) that receives a sum of signals."""
        node = f"{self.name}_{word}" if word else self.name
        if word:
            while node in self.graph.nodes or node in self.nodes:
                node += "_"
        self.nodes[node] = op
        self.connect(node, terms)
        return node

    def connect(self, node: str, terms: Iterable[Term]) -> None:
        """Signals that a node receives besides."""
        for source, factor, delay in terms:
            self.edges.append(Edge(self._times(source, factor), node, delay))

    def _times(self, source: str, factor: float) -> str:
        """``factor`` times a signal: a node of its own, the same for all that read it."""
        if factor == 1.0:
            return source
        if (source, factor) not in self._scaled:
            own = source.removeprefix(f"{self.name}_")
            word = f"{own}_times_{factor:g}".replace("-", "minus_").replace(".", "_").replace("+", "")
            self._scaled[source, factor] = self.add(word, Scale(number(factor)), [(source, 1.0, 0)])
        return self._scaled[source, factor]

    def weighed(self, word: str, source: str, factor: Reals) -> str:
        """A signal times a factor for every neuron."""
        return self.add(word, Scale(factor), [(source, 1.0, 0)])

    def sum(self, word: str, terms: Iterable[Term]) -> str:
        """A node that is the sum of signals."""
        return self.add(word, Scale(number(1.0)), terms)

    def above(self, word: str, threshold: Reals | float, terms: Iterable[Term]) -> str:
        """1 where a sum of signals is above a threshold, else 0."""
        return self.add(word, compared(self.shape, threshold), terms)

    def integral(self, word: str, terms: Iterable[Term], kept: float = 1.0) -> str:
        """``y[t] = kept y[t-1] + x[t]``."""
        return self.add(word, Readout(self.shape, "weighted", decay=kept), terms)

    def digits(self, word: str, x: str, bits: int, *, lowest: int = 0, offset: Reals | float = 0.0) -> str:
        """What is left of ``x + offset`` (which reaches no 2^bits), less the offset, when the digits of its positive
        part from ``2^(bits - 1)`` down to ``2^lowest`` are taken off: ``x - digits``.
        """
        rest = x
        for place in reversed(range(lowest, bits)):
            bit = self.above(f"{word}_{place}", 2.0**place - 0.5 - np.asarray(offset), [(rest, 1.0, 0)])
            rest = self.sum(f"{word}_below_{place}", [(rest, 1.0, 0), (bit, -(2.0**place), 0)])
        return rest

    def done(self) -> Graph:
        """The graph with the nodes in the place of the population; what it sends comes from the node of its name."""
        out = [edge for edge in self.graph.out_of(self.name) if edge.target != self.name]
        return self.graph.edit(self.nodes, [*self.edges, *out])


def compared(shape: Shape, threshold: Reals | float) -> Neuron:
    """NIR's Threshold: ``y[t] = x[t] > threshold``, and nothing is kept."""
    return Neuron(shape, beta=number(1.0), threshold=np.asarray(threshold), reset=By(number(0.0)))


def is_compared(op: Neuron) -> bool:
    """Whether a population is what ``compared`` makes: no memory, no current, and no spike changes anything."""
    bare = isinstance(op.reset, By) and not np.any(real(op.reset.amount))
    return bare and bool(np.all(real(op.beta) == 1.0) and np.all(real(op.alpha) == 1.0) and not np.any(real(op.bias)))

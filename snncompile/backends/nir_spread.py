"""Transposed convolutions: nodes that NIR has spread the signal out, and a plain convolution reads it.

No convolution and no pool of NIR makes a map finer: what is read moves on as fast as what is written. Factors of 0 and
1 for each place do. An axis of n places is spread by s, place by place: ``before`` keeps place j alone, a sum over
windows smears it over the whole axis, and ``after`` keeps place s j::

    y = sum_j after_j * smeared(before_j * x)        y[s j] = x[j], every other place 0
    smeared(x)[q] = sum_{k <= p} x[q - p + k]        p = (s - 1) n: a SumPool2d of p + 1 places, padded by p

Nothing but zeros is added to a value, so that ``y`` is ``x`` to the last bit in any type of float; axes follow one
another. 3 n + 1 nodes an axis, whose factors have the shape of the signal.

Readers without Scale get the map of the signal as the channels of one place, and from there as a kernel that is as
large as the map of the result: two convolutions, exact but for the order of sums, whose weights are all pairs of
places. That is for small maps.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from snncompile.backends.nir_linear import MOST_WEIGHTS
from snncompile.backends.nir_profiles import Profile
from snncompile.errors import NotRepresentable
from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Op, Pool, Scale, Shape, number, real
from snncompile.ir.shapes import shapes
from snncompile.run.linear import conv

NEEDED = frozenset({"Scale", "SumPool2d"})
CANONICAL = "--nir-profile canonical"


def spread(graph: Graph, profile: Profile) -> Graph:
    """Every transposed convolution as nodes of NIR. Raises ``NotRepresentable`` where they would be too large."""
    for name in graph.names(Conv):
        op = graph.nodes[name]
        if not isinstance(op, Conv) or max(op.spread, default=1) == 1:
            continue
        edges = graph.into(name)
        shape = shapes(graph)[edges[0].source]
        if profile.nodes >= NEEDED:
            graph = _Spread(graph, name, op, shape).done()
        else:
            graph = _whole(graph, name, op, shape, profile)
    return graph


def _demand(graph: Graph, name: str, numbers: int, what: str, remedy: str) -> None:
    if numbers > MOST_WEIGHTS:
        why = f"NIR has no such node, and {what} would be {numbers:,} numbers; {MOST_WEIGHTS:,} are written"
        raise NotRepresentable("is a transposed convolution", where=graph.label(name), why=why, remedy=remedy)


class _Spread:
    """The nodes in front of the convolution ``name``, which reads a signal of ``shape``."""

    def __init__(self, graph: Graph, name: str, op: Conv, shape: Shape) -> None:
        self.graph, self.name, self.op, self.shape = graph, name, op, shape
        self.nodes: dict[str, Op | None] = {name: replace(op, spread=())}
        self.edges = [edge for edge in graph.edges if edge.target != name]
        self.arriving = [(edge.source, edge.delay) for edge in graph.into(name)]

    def done(self) -> Graph:
        """The graph in which it reads a spread signal."""
        axes = [axis for axis in reversed(range(len(self.op.spread))) if self.op.spread[axis] > 1]
        _demand(self.graph, self.name, self._numbers(axes), "what spreads its map", "fewer channels or a smaller map")
        for axis in axes:
            self._spread(axis)
        self._connect(self.name, self.arriving)
        return self.graph.edit(self.nodes, self.edges)

    def _numbers(self, axes: list[int]) -> int:
        """The factors of all places, and the kernels of pools that are convolutions."""
        total, shape = 0, list(self.shape)
        for axis in axes:
            places, by = shape[axis + 1], self.op.spread[axis]
            before = prod(shape)
            shape[axis + 1] *= by
            kernel = 0 if len(shape) == 3 else shape[0] ** 2 * ((by - 1) * places + 1)
            total += places * (before + prod(shape) + kernel)
        return total

    def _spread(self, axis: int) -> None:
        """One axis, its places one by one."""
        axes, places, by = len(self.shape) - 1, self.shape[axis + 1], self.op.spread[axis]
        letter = "xy"[axes - 1 - axis]
        finer = tuple(size * by if at == axis + 1 else size for at, size in enumerate(self.shape))
        pad = (by - 1) * places
        kernel = tuple(pad + 1 if at == axis else 1 for at in range(axes))
        smear = Pool("sum", kernel, (1,) * axes, tuple(size - 1 for size in kernel))
        kept = []
        for place in range(places):
            before = self._add(f"{letter}{place}_before", Scale(_only(self.shape, axis, place)), self.arriving)
            smeared = self._add(f"{letter}{place}_smeared", smear, [(before, 0)])
            kept.append((self._add(f"{letter}{place}_after", Scale(_only(finer, axis, by * place)), [(smeared, 0)]), 0))
        self.shape = finer
        self.arriving = [(self._add(letter, Scale(number(1.0)), kept), 0)]

    def _add(self, word: str, op: Op, arriving: list[tuple[str, int]]) -> str:
        node = self.graph.fresh(f"{self.name}_{word}")
        self.nodes[node] = op
        self._connect(node, arriving)
        return node

    def _connect(self, target: str, arriving: list[tuple[str, int]]) -> None:
        self.edges += [Edge(source, target, delay) for source, delay in arriving]


def _only(shape: Shape, axis: int, place: int) -> Reals:
    """1 at a place of an axis, else 0."""
    factor = np.zeros([size if at == axis + 1 else 1 for at, size in enumerate(shape)])
    factor.reshape(-1)[place] = 1.0
    return factor


def _whole(graph: Graph, name: str, op: Conv, shape: Shape, profile: Profile) -> Graph:
    """By the channels of one place: ``y[o, p] = sum_i M[o, p, i] x[i]`` over all places and channels i of ``x``."""
    size, axes = prod(shape), len(shape) - 1
    out = shapes(graph)[name]
    numbers = size * (shape[0] * max(shape[1:]) ** axes + out[0] * max(out[1:]) ** axes)
    what = f"the weights between all places, for readers without {' and '.join(sorted(NEEDED - profile.nodes))},"
    _demand(graph, name, numbers, what, CANONICAL)
    if len({side % 2 for side in out[1:]}) > 1:
        shown = " x ".join(map(str, out[1:]))
        why = f"NIR has no such node, and no square kernel makes a map of {shown} for readers without Scale"
        raise NotRepresentable("is a transposed convolution", where=graph.label(name), why=why, remedy=CANONICAL)
    basis = np.eye(size).reshape(size, *shape)
    map_ = conv(basis, real(op.weight), op.stride, op.padding, op.dilation, op.groups, op.spread)
    whole = np.moveaxis(np.flip(map_, tuple(range(2, axes + 2))), 0, 1)
    once, nothing = (1,) * axes, (0,) * axes
    folded = Conv(basis, None, shape[1:], nothing, once)
    unfolded = Conv(whole, op.bias, once, tuple(side - 1 for side in out[1:]), once)
    places = graph.fresh(f"{name}_places")
    edges = [Edge(e.source, places, e.delay) if e.target == name else e for e in graph.edges]
    return graph.edit({places: folded, name: unfolded}, [*edges, Edge(places, name)])

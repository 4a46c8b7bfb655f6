"""Batch normalisation into the weights before it (TET, Eq. 6).

With ``a = sqrt(variance + epsilon)`` and the norm behind ``sum_i (W_i x_i + b_i) + sum_j y_j``::

    W_i <- W_i g / a,    b_i <- b_i g / a,    b_1 <- b_1 + shift - mean g / a,    y_j <- (g / a) y_j

where y_j is what has no weights of its own to fold into: spikes of an identity skip, weights that another op reads as
well, what comes late. The factor then stands on that edge alone, as one-to-one weights. Where there is no W_i at all,
behind a pool, the norm itself becomes one-to-one weights with a bias, which ``legalise`` composes with what is before.

Preserves every value exactly but for float64 rounding. Declines, and says why, where a norm would have to become a
matrix that is too large. Source: Deng et al., "Temporal Efficient Training of Spiking Neural Network via Gradient
Re-weighting", ICLR 2022.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Norm, Scale, Shape, real
from snncompile.ir.shapes import shapes
from snncompile.passes import Passed

WIDEST = 1 << 12  # features of a norm that becomes a matrix, whose diagonal it then is


def fold_norm(graph: Graph) -> Passed:
    """Fold every norm that can be folded."""
    notes: list[str] = []
    for name in graph.names(Norm):
        if _into(graph, name):
            graph = _folded(graph, name)
            continue
        shape = shapes(graph)[name]
        reason = "nothing before it has weights of its own"
        if len(shape) == 1 and shape[0] > WIDEST:
            notes.append(f"{name} (Norm) stays: {reason}, and {shape[0]} features are a matrix too large")
        else:
            notes.append(f"{name} (Norm) becomes one-to-one weights: {reason}")
            graph = graph.edit({name: _as_weights(graph, name, shape)})
    return Passed(graph, tuple(notes))


def standing(graph: Graph) -> frozenset[str]:
    """The norms whose multiplications no weights of the network take over, one that another such norm feeds among them.

    Folding a norm moves edges, which decides about the norms behind. Only edges are followed, no weight is touched.
    """
    into = {name: list(graph.into(name)) for name in graph.nodes}
    out_of = {name: list(graph.out_of(name)) for name in graph.nodes}
    weighted, found = set(graph.names(Dense, Conv)), set[str]()
    for name in graph.names(Norm):
        takes = [
            edge.source in weighted and not edge.delay and len(out_of[edge.source]) == 1 for edge in into.get(name, ())
        ]
        if not any(takes):
            found.add(name)
            continue
        ends: list[str] = []
        for edge, taken in zip(into[name], takes, strict=True):
            end = edge.source if taken else f"{edge.source}\0{name}\0{len(ends)}"  # the factor on an edge that stays
            ends.append(end)
            out_of[end] = []
        for edge in out_of[name]:
            moved = [Edge(end, edge.target, edge.delay) for end in ends]
            at = into[edge.target].index(edge)
            into[edge.target][at : at + 1] = moved
            for one in moved:
                out_of[one.source].append(one)
    return frozenset(found)


def _into(graph: Graph, name: str) -> list[Edge]:
    """The edges into a norm from weights that nothing else reads, at the same step: what it folds into."""
    return [
        edge
        for edge in graph.into(name)
        if isinstance(graph.nodes[edge.source], Dense | Conv) and not edge.delay and len(graph.out_of(edge.source)) == 1
    ]


def _affine(graph: Graph, name: str) -> tuple[Reals, Reals]:
    """``y = gain x + shift``, a number a channel."""
    norm = graph.nodes[name]
    assert isinstance(norm, Norm)
    gain = real(norm.gain) / np.sqrt(real(norm.variance) + norm.epsilon)
    return gain, real(norm.shift) - real(norm.mean) * gain


def _folded(graph: Graph, name: str) -> Graph:
    gain, shift = _affine(graph, name)
    extent = shapes(graph)
    into = _into(graph, name)
    nodes: dict[str, Dense | Conv | Scale | None] = {name: None}
    for index, edge in enumerate(into):
        nodes[edge.source] = _scaled(graph.nodes[edge.source], gain, shift if index == 0 else None)
    edges = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    ends: list[str] = []
    for edge in graph.into(name):
        if edge in into:
            ends.append(edge.source)
            continue
        factor = f"{name}_of_{edge.source}"
        while factor in nodes or factor in graph.nodes:
            factor += "_"
        axes = len(extent[name]) - 1
        nodes[factor] = Scale(gain.reshape(-1, *(1,) * axes) if gain.ndim else gain)
        edges.append(Edge(edge.source, factor, edge.delay))
        ends.append(factor)
    for edge in graph.out_of(name):
        edges += [Edge(end, edge.target, edge.delay) for end in ends]
    return _in_order(graph, name, ends, graph.edit(nodes, edges))


def _in_order(before: Graph, name: str, ends: list[str], after: Graph) -> Graph:
    """Edges into every node in the order in which they were: sums are computed in that order."""
    rank = {(edge.source, edge.target, edge.delay): index for index, edge in enumerate(before.edges)}

    def place(edge: Edge) -> tuple[int, int]:
        known = rank.get((edge.source, edge.target, edge.delay))
        if known is not None:
            return known, 0
        if edge.source in ends:
            return rank.get((name, edge.target, edge.delay), len(rank)), ends.index(edge.source)
        return rank.get((edge.source, name, edge.delay), len(rank)), 0

    return Graph(after.nodes, sorted(after.edges, key=place))


def _scaled(op: object, gain: Reals, shift: Reals | None) -> Dense | Conv:
    assert isinstance(op, Dense | Conv)
    weight = real(op.weight)
    rows = np.broadcast_to(gain, weight.shape[:1]).reshape(-1, *(1,) * (weight.ndim - 1))
    bias = None if op.bias is None else real(op.bias) * gain
    if shift is not None:
        bias = np.broadcast_to(shift, weight.shape[:1]) if bias is None else bias + shift
    return replace(op, weight=weight * rows, bias=bias)


def _as_weights(graph: Graph, name: str, shape: Shape) -> Dense | Conv:
    gain, shift = (np.broadcast_to(value, shape[:1]) for value in _affine(graph, name))
    axes = len(shape) - 1
    if not axes:
        return Dense(np.diag(gain), shift)
    ones = (1,) * axes
    return Conv(gain.reshape(-1, 1, *ones), shift, ones, (0,) * axes, ones, shape[0])

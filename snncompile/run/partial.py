"""Sums that a machine makes in parts (``Readout`` of kind ``partial``): how large they get, and the graph without them.

A population whose synapses no core holds reads its sum from several populations without memory (``passes/divide.py``)::

    x = sum_g x_g,      x_g = W_g y,      sum_g W_g = W

Integers add up whatever the order, so where no part can leave the machine's range the graph with ``W`` in place of the
parts does the same: that is what the fast interpreters run. Exact.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from snncompile.errors import GraphError, InternalError
from snncompile.fixed import FixedPoint
from snncompile.ir.connections import Connection, connections, is_partial, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Readout, Scale, Synapse, real
from snncompile.ir.signals import grid
from snncompile.target import Target

Bounds = tuple[int, int]
NAMED = re.compile(r"_partial\d+$")


def partial_sums(graph: Graph) -> list[str]:
    """The partial sums of a graph, in the order of computation."""
    return [name for name in graph.names(Readout) if is_partial(graph.nodes[name])]


def most_told(target: Target) -> int:
    """The largest magnitude of a partial sum: a message holds it, and no register on the way overflows."""
    fraction = target.potential.fraction_bits
    bits = min(target.current.bits, target.potential.bits)
    return min(target.spike.most_message, target.sum_most, ((1 << (bits - 1)) - 1) >> fraction)


def sent_by(op: Op) -> Bounds:
    """The least and the largest value that a source sends."""
    if isinstance(op, Input):
        _, least, most = grid(op.signal)
        return least, most
    assert isinstance(op, Neuron)
    return 0, 1


def arriving(op: Dense | Conv, sent: Bounds, first: int = 0, last: int | None = None) -> Bounds:
    """Bounds of what the inputs ``first`` up to ``last`` of a synapse bring a neuron in one step.

    Inputs are counted along the axes of the weights behind the first: sources of a matrix, taps of a kernel.
    """
    assert isinstance(op.weight, FixedPoint)
    some = op.weight.mantissa.reshape(len(op.weight.mantissa), -1)[:, first:last]
    low, high = np.minimum(some * sent[0], some * sent[1]), np.maximum(some * sent[0], some * sent[1])
    least, most = int(low.sum(axis=1).min(initial=0)), int(high.sum(axis=1).max(initial=0))
    halves = -op.weight.exponent  # 0, or 1: weights that are halved behind the sum
    return least >> halves, -(-most >> halves)


def in_range(graph: Graph, target: Target) -> bool:
    """Whether every partial sum is what ``check`` admits, and none can leave the range that the machine has for it,
    whatever the inputs send of what they declare.
    """
    parts, most = set(partial_sums(graph)), most_told(target)
    try:
        every = connections(graph) if parts else []
    except InternalError:  # its linear ops are no single synapses
        return False
    if not all(_plain(graph, name, parts, every) for name in parts):
        return False
    low, high = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for one in every:
        op = synapse_of(graph, one)
        if one.target in parts and isinstance(op, Dense | Conv):  # which it is: ``_plain``
            least, largest = arriving(op, sent_by(graph.nodes[one.source]))
            low[one.target] += least
            high[one.target] += largest
    return all(-most <= low[name] and high[name] <= most for name in parts)


def _plain(graph: Graph, name: str, parts: set[str], every: list[Connection]) -> bool:
    """Whether a partial sum keeps nothing, adds nothing, reads spikes or declared integers, and is read once, by a
    weight of one.
    """
    op, behind = graph.nodes[name], [one for one in every if one.source == name]
    if not isinstance(op, Readout) or op.decay or real(op.bias).any() or len(graph.out_of(name)) != 1 or not behind:
        return False
    last = synapse_of(graph, behind[0])
    if not isinstance(last, Scale) or np.any(real(last.factor) != 1) or behind[0].target in parts:
        return False
    into = [one for one in every if one.target == name]
    reads = all(isinstance(graph.nodes[one.source], Input | Neuron) for one in into)
    return reads and all(isinstance(synapse_of(graph, one), Dense | Conv) for one in into)


def undivided(graph: Graph) -> Graph:
    """The graph, whose partial sums are ``in_range``, with every population reading its sum at once; a graph without
    partial sums as it is.

    Connections bear the names that they had before they were cut. What is read in parts with other delays stays several
    connections.
    """
    parts = set(partial_sums(graph))
    if not parts:
        return graph
    every = connections(graph)
    for name in parts:
        if not _plain(graph, name, parts, every):
            raise GraphError("is no part of a sum", where=graph.label(name), why="it keeps or feeds something else")
    behind = {one.source: one for one in every if one.source in parts}
    gone = parts | {one.synapse for one in behind.values()}
    joined: dict[tuple[object, ...], list[Connection]] = {}
    for one in every:
        if one.target in parts:
            joined.setdefault(_kind_of_way(graph, one, behind[one.target]), []).append(one)
    gone |= {edge.target for some in joined.values() for one in some[1:] for edge in one.edges[:-1]}
    nodes: dict[str, Op] = {name: op for name, op in graph.nodes.items() if name not in gone}
    edges = [edge for edge in graph.edges if edge.source not in gone and edge.target not in gone]
    cut: set[str] = set()
    for some in joined.values():
        first, end = some[0], behind[some[0].target]
        nodes[first.synapse] = _added([synapse_of(graph, one) for one in some])
        edges.remove(first.edges[0])
        edges += [replace(first.edges[0], delay=first.delay + end.delay), Edge(first.edges[-1].source, end.target)]
        cut |= {edge.target for edge in first.edges[:-1]}
    return _renamed(Graph(nodes, edges), cut)


def _kind_of_way(graph: Graph, one: Connection, end: Connection) -> tuple[object, ...]:
    """What ways have in common whose weights may be added."""
    op = synapse_of(graph, one)
    assert isinstance(op, Dense | Conv)
    assert isinstance(op.weight, FixedPoint)
    views = [graph.nodes[edge.target] for edge in one.edges[:-1]]
    shapes = tuple(view.shape if isinstance(view, Flatten) else "weights" for view in views)
    form = (op.stride, op.padding, op.dilation, op.groups, op.spread) if isinstance(op, Conv) else ()
    ends = NAMED.sub("", one.synapse), one.source, end.target, one.delay + end.delay
    return *ends, shapes, form, op.weight.shape, op.weight.exponent


def _added(some: list[Synapse]) -> Synapse:
    """One synapse with the weights of all."""
    first = some[0]
    assert isinstance(first, Dense | Conv)
    assert isinstance(first.weight, FixedPoint)
    total = np.zeros(first.weight.shape, dtype=np.int64)
    for op in some:
        assert isinstance(op, Dense | Conv)
        assert isinstance(op.weight, FixedPoint)
        total += op.weight.mantissa
    return replace(first, weight=FixedPoint(total, first.weight.exponent))


def _renamed(graph: Graph, cut: set[str]) -> Graph:
    """The nodes of cut connections under the names that they had, where nobody else has them; in the order of
    computation.
    """
    new = {name: name for name in graph.nodes}
    for name in sorted(cut):
        plain = NAMED.sub("", name)
        new[name] = plain if plain not in new.values() else name
    edges = [Edge(new[edge.source], new[edge.target], edge.delay) for edge in graph.edges]
    nodes = {new[name]: op for name, op in graph.nodes.items()}
    return Graph({name: nodes[name] for name in Graph(nodes, edges).order}, edges)

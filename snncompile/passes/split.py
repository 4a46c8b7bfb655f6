"""One population as several, each with some of its channels: for machines whose neurons share parameters.

Incoming weights are split by rows, outgoing ones by columns::

    x_i = W[rows i] y,        W y = sum_i W[:, columns i] y_i

so every neuron receives what it received, and the same spikes leave. Exact. Each part names the population that it is
``part`` of; ``run/parts.py`` puts traces together again. Costs one connection for each pair of parts that meet; a
one-to-one connection of which only one side is split becomes a matrix or a convolution of 1 x 1 that selects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from snncompile.fixed import Integers, Reals
from snncompile.ir.connections import Connection, connections, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Op,
    Output,
    Part,
    Readout,
    Scale,
    Shape,
    Synapse,
    To,
    number,
    real,
)
from snncompile.ir.shapes import shape_of, shapes
from snncompile.passes.compose import matrix, ungrouped

Channels = tuple[int, ...]
Groups = Mapping[str, Sequence[Channels]]


def split(graph: Graph, groups: Groups) -> Graph:
    """A graph of single synapses with the named populations in parts, one for each group of their channels."""
    wanted = {name: each for name, each in groups.items() if len(each) > 1}
    if not wanted:
        return graph
    parts = {name: [(f"{name}_part{index}", each) for index, each in enumerate(wanted[name])] for name in wanted}
    extent = shapes(graph)
    nodes: dict[str, Op] = {}
    for name in graph.names(Input, Neuron, Readout):
        op = graph.nodes[name]
        if isinstance(op, Neuron) and name in parts:
            nodes |= {part: _some(op, name, channels) for part, channels in parts[name]}
        else:
            nodes[name] = op
    edges: list[Edge] = []
    for connection in connections(graph):
        _connect(nodes, edges, connection, synapse_of(graph, connection), extent, parts)
    _observe(nodes, edges, graph, parts)
    order = Graph(nodes, edges).order
    return Graph({name: nodes[name] for name in order}, edges)


def by_parameters(op: Neuron) -> tuple[Channels, ...] | None:
    """Groups of channels whose neurons have equal parameters; None where they differ inside a channel."""
    reset = op.reset.value if isinstance(op.reset, To) else op.reset.amount
    shared = (op.threshold, op.alpha, op.beta, reset, op.initial)  # what a machine has once for a population
    if all(value.shape == () for value in shared):
        return (tuple(range(op.shape[0])),)
    table = np.stack([np.broadcast_to(real(value), op.shape).reshape(op.shape[0], -1) for value in shared], axis=1)
    if (table != table[:, :, :1]).any():
        return None
    found: dict[tuple[float, ...], list[int]] = {}
    for channel, row in enumerate(table[:, :, 0].tolist()):
        found.setdefault(tuple(row), []).append(channel)
    return tuple(tuple(channels) for channels in found.values())


def by_range(graph: Graph) -> dict[str, list[Channels]]:
    """Groups of channels whose largest incoming weights, in thresholds, lie within a factor of two.

    One scale then serves all channels of a population well: each uses at least half of the range of weights.
    """
    found: dict[str, list[Channels]] = {}
    extent = shapes(graph)
    largest = {name: np.zeros(extent[name][0]) for name in graph.names(Neuron)}
    for connection in connections(graph):
        if connection.target in largest:
            rows = _largest(synapse_of(graph, connection), extent[connection.source], extent[connection.target])
            largest[connection.target] = np.maximum(largest[connection.target], rows)
    for name, size in largest.items():
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        octave = np.floor(np.log2(np.where(size > 0, size, size.max(initial=0.0) or 1.0)))
        known: dict[float, list[int]] = {}
        for channel, value in enumerate(octave.tolist()):
            known.setdefault(value, []).append(channel)
        found[name] = [tuple(known[value]) for value in sorted(known, reverse=True)]
    return found


def _largest(op: Synapse, source: Shape, target: Shape) -> Reals:
    """The largest weight into each channel of the target."""
    match op:
        case Conv() if shape_of("split", op, source) == target:
            rows = np.abs(real(op.weight)).reshape(target[0], -1)
        case Scale():
            rows = np.abs(np.broadcast_to(real(op.factor), source)).reshape(target[0], -1)
        case Conv():
            rows = np.abs(matrix(op, source)).reshape(target[0], -1)
        case Dense():
            rows = np.abs(real(op.weight)).reshape(target[0], -1)
    return np.asarray(rows.max(axis=1, initial=0.0))


def _some(op: Neuron, name: str, channels: Channels) -> Neuron:
    """The neurons of these channels, with the parameters that they share as one number."""

    def shared(value: Reals) -> Reals:
        some = _of(value, op.shape, channels)
        return number(float(some.flat[0])) if some.ndim and (some == some.flat[0]).all() else some

    reset = op.reset
    own = Part(name, channels)
    if op.part is not None:
        own = Part(op.part.of, tuple(op.part.channels[channel] for channel in channels))
    return replace(
        op,
        shape=(len(channels), *op.shape[1:]),
        alpha=shared(real(op.alpha)),
        beta=shared(real(op.beta)),
        threshold=shared(real(op.threshold)),
        bias=shared(real(op.bias)),
        initial=shared(real(op.initial)),
        reset=By(shared(real(reset.amount))) if isinstance(reset, By) else To(shared(real(reset.value))),
        part=own,
    )


def _of(values: Reals, shape: Shape, channels: Channels) -> Reals:
    """What broadcasts against ``shape``, for some of its channels."""
    if values.ndim < len(shape) or values.shape[0] == 1:
        return values  # the same for every channel
    return values[list(channels)]


def _connect(
    nodes: dict[str, Op],
    edges: list[Edge],
    connection: Connection,
    op: Synapse,
    extent: Mapping[str, Shape],
    parts: Mapping[str, list[tuple[str, Channels]]],
) -> None:
    """A connection for every pair of parts that it joins."""
    before, after = extent[connection.source], extent[connection.target]
    sources = parts.get(connection.source, [(connection.source, tuple(range(before[0])))])
    targets = parts.get(connection.target, [(connection.target, tuple(range(after[0])))])
    for row, (target, rows) in enumerate(targets):
        for column, (source, columns) in enumerate(sources):
            some = op if len(sources) == len(targets) == 1 else _block(op, before, after, columns, rows)
            if some is None:
                continue
            name = connection.synapse + (f"_part{row}" if len(targets) > 1 else "")
            name += f"_from_part{column}" if len(sources) > 1 else ""
            while name in nodes:
                name += "_"
            nodes[name] = some
            edges.append(Edge(source, name, connection.delay))
            own, there = (len(columns), *before[1:]), (len(rows), *after[1:])
            last = name
            if shape_of(name, some, own) != there:
                last = f"{name}_flat"
                nodes[last] = Flatten() if len(there) == 1 else Flatten(there)
                edges.append(Edge(name, last))
            edges.append(Edge(last, target))


def _block(op: Synapse, source: Shape, target: Shape, columns: Channels, rows: Channels) -> Synapse | None:
    """What connects some channels of the source with some of the target; None where nothing does."""
    match op:
        case Conv() if shape_of("split", op, source) == target:
            return _conv_block(op, columns, rows)
        case Scale() if source == target:
            return _scale_block(op, source, columns, rows)
        case Conv():
            whole = matrix(op, source)
        case Scale():
            whole = np.diag(np.broadcast_to(real(op.factor), source).ravel())
        case Dense():
            whole = real(op.weight)
    some = whole[np.ix_(_neurons(target, rows), _neurons(source, columns))]
    return Dense(some) if some.any() or isinstance(op, Dense) else None


def _neurons(shape: Shape, channels: Channels) -> Integers:
    """The neurons of some channels, in C order."""
    return np.asarray(np.arange(prod(shape)).reshape(shape)[list(channels)].ravel())


def _conv_block(op: Conv, columns: Channels, rows: Channels) -> Conv | None:
    """Grouped where every group that is left has as many rows and columns as the others, else with zeros between."""
    weight = real(op.weight)
    each, inward = weight.shape[0] // op.groups, weight.shape[1]
    own = [
        ([row for row in rows if row // each == group], [c - group * inward for c in columns if c // inward == group])
        for group in range(op.groups)
    ]
    joined = [(out, into) for out, into in own if out and into]
    if not joined:
        return None
    alike = len({(len(out), len(into)) for out, into in own if out or into}) == 1
    if alike:
        some = np.concatenate([weight[out][:, into] for out, into in joined])
        return replace(op, weight=some, bias=None, groups=len(joined))
    some = ungrouped(op)[list(rows)][:, list(columns)]
    return replace(op, weight=some, bias=None, groups=1)


def _scale_block(op: Scale, shape: Shape, columns: Channels, rows: Channels) -> Synapse | None:
    factor = real(op.factor)
    if rows == columns:
        return Scale(_of(factor, shape, rows))
    chosen = np.equal.outer(rows, columns)
    if not chosen.any():
        return None
    by_neuron = np.broadcast_to(factor, shape).reshape(shape[0], -1)
    if len(shape) > 1 and (by_neuron == by_neuron[:, :1]).all():
        axes = len(shape) - 1
        weight = np.where(chosen, by_neuron[list(rows), :1], 0.0).reshape(len(rows), len(columns), *(1,) * axes)
        return Conv(weight, None, (1,) * axes, (0,) * axes, (1,) * axes)
    whole = np.diag(by_neuron.ravel())
    return Dense(whole[np.ix_(_neurons(shape, rows), _neurons(shape, columns))])


def _observe(
    nodes: dict[str, Op], edges: list[Edge], graph: Graph, parts: Mapping[str, list[tuple[str, Channels]]]
) -> None:
    """Outputs as they are, or one for each part of what they read."""
    for name in graph.names(Output):
        arriving = graph.into(name)
        if not any(edge.source in parts for edge in arriving):
            nodes[name] = graph.nodes[name]
            edges += arriving
            continue
        for edge in arriving:
            for source in [part for part, _ in parts.get(edge.source, [(edge.source, ())])]:
                own = f"{name}_{source}"
                nodes[own] = Output()
                edges.append(Edge(source, own, edge.delay))

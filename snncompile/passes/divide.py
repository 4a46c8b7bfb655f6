"""Sums that no core holds the synapses of, in parts: for machines whose populations may send each other integers.

All synapses of a neuron lie on its core. Where there are more than a core has words or axons for, the largest
connections of the population are cut by their inputs, and each part is summed by a population of its own, which keeps
nothing and sends its sum on, through a weight of one::

    x = sum_g x_g,      x_g[t] = sum of the inputs in group g of weight times what they send

Exact: integers add up in any order, and every ``x_g`` is proven to stay in the range of a message and of the sums of
the machine, whatever is sent; where it might not, the cut is finer. It costs a synapse's latency, which ``balance``
accounts for, and as few parts are made as hold it. Weights that another part reads are zeros, which take no room.

Declines (the graph stays as it is, and ``place`` says what is too small): where the sheet has no ``spike.message_bits``
or no weight of one, and where the parts would not fit either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, prod

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import FixedPoint, Integers
from snncompile.ir.connections import Connection, is_partial, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Neuron, Op, Readout, Scale, Slice
from snncompile.passes import Passed
from snncompile.passes.storage import Net, Store, Use, store, use
from snncompile.run.partial import arriving, most_told, sent_by
from snncompile.target import Target

FINEST = 256  # parts of a sum


def divide(graph: Graph, target: Target) -> Passed:
    """Cut what no core holds, in a legal graph; a note for each population that is cut.

    In a graph that is not in integers yet ranges are not proven: what it shows is the room that the parts take. Raises
    ``NotRepresentable`` where no cut keeps the parts of a sum inside a message.
    """
    one = _weight_of_one(target)
    if not target.spike.message_bits or one is None:
        return Passed(graph, ())
    net, notes = Net.of(graph, target), []
    for name in graph.names(Neuron, Readout):
        cut = _cut(net, name)
        if not cut:
            continue
        groups = _groups(net, name, cut)
        if groups is None:
            continue
        need, core = _need(net, name, _stored(net, name)), target.core
        graph = _divided(graph, name, groups, one)
        notes.append(
            f"{name}: the sum of {len(groups)} populations, as {need.synaptic_words} synaptic words and"
            f" {need.axons_in} axons of a neuron do not fit a core of {core.synaptic_words} and {core.axons_in}"
            f" ({target.cite('core.synaptic_words')}; {target.cite('spike.message_bits')})"
        )
    return Passed(graph, tuple(notes))


def in_parts(graph: Graph, target: Target) -> frozenset[str]:
    """The synapses of a legal graph that ``divide`` would cut: what comes through them takes one hop more."""
    if not target.spike.message_bits or _weight_of_one(target) is None:
        return frozenset()
    net = Net.of(graph, target)
    found = {name: _cut(net, name) for name in graph.names(Neuron, Readout)}
    return frozenset(one.synapse for name, cut in found.items() if cut and _groups(net, name, cut) for one in cut)


def _weight_of_one(target: Target) -> Scale | None:
    """Synapses that deliver what is sent; None where the sheet has no such weight."""
    for exponent in (0, -1):  # what weights may be shifted by behind the sum
        mantissa = 2**-exponent
        if mantissa % target.weight.step == 0 and mantissa <= target.weight.most:
            return Scale(FixedPoint.number(mantissa, exponent))
    return None


# What is cut


Stored = tuple[Connection, Store]


def _stored(net: Net, name: str) -> list[Stored]:
    """What a population reads, as the machine keeps it."""
    return [(one, net.stores[one.synapse]) for one in net.into[name]]


def _need(net: Net, name: str, some: list[Stored]) -> Use:
    """What the neuron that needs most takes, alone on a core and with the kernels of its channel alone, did its
    population read these connections.
    """
    shape = net.extent[name]
    read = [np.count_nonzero(kept.read, axis=1) for _, kept in some if kept.read is not None]
    first = int(np.argmax(sum(read[1:], read[0]))) if read and len(shape) == 1 else 0
    kernels = shape[0] > 1 and any(isinstance(kept.op, Conv) for _, kept in some)
    stores = {**net.stores, **{one.synapse: kept for one, kept in some}}
    only = replace(net, into={name: [one for one, _ in some]}, stores=stores)
    return use(only, name, Slice(0, first, 1, 0, int(kernels)))


def _fits(need: Use, target: Target) -> bool:
    return need.synaptic_words <= target.core.synaptic_words and need.axons_in <= target.core.axons_in


def _cut(net: Net, name: str) -> list[Connection]:
    """The connections of a population that have to be cut, none where a core holds a neuron: the largest, until what is
    left fits.
    """
    if is_partial(net.graph.nodes[name]) or _fits(_need(net, name, _stored(net, name)), net.target):
        return []
    left = [one for one in _stored(net, name) if isinstance(one[1].op, Dense | Conv)]
    left.sort(key=lambda one: _need(net, name, [one]).synaptic_words)
    cut: list[Connection] = []
    while left and not _left_fits(net, name, cut, 1):
        cut.append(left.pop()[0])
    return cut


def _left_fits(net: Net, name: str, cut: list[Connection], parts: int) -> bool:
    """Whether a core holds a neuron with what is not cut and the sums of so many parts."""
    some = [pair for pair in _stored(net, name) if pair[0] not in cut]
    one = _weight_of_one(net.target)
    assert one is not None
    some += [(Connection(name, f"\0{index}", name, ()), store(one, net.target)) for index in range(parts)]
    return _fits(_need(net, name, some), net.target)


# Groups


@dataclass(frozen=True)
class _Some:
    """The inputs ``first`` up to ``last`` of a connection, counted along the axes of its weights behind the first."""

    connection: Connection
    first: int
    last: int


def _groups(net: Net, name: str, cut: list[Connection]) -> list[list[_Some]] | None:
    """The inputs of each part: as few parts as fit, each with about as many lists of weights. None where no number of
    parts does. Raises ``NotRepresentable`` where only the range is in the way.
    """
    target = net.target
    if not _left_fits(net, name, cut, 1):
        return None
    lists = {one.synapse: _lists(net, one) for one in cut}
    each = [_need(net, name, [_some_lists(net, one, 1)]).synaptic_words for one in cut]
    cost = np.concatenate([(lists[one.synapse] >= 0) * words for one, words in zip(cut, each, strict=True)])
    ends = np.cumsum([0, *map(len, lists.values())])
    total, reached = int(cost.sum()), np.cumsum(cost)
    too_wide = False
    for parts in range(max(1, ceil(total / target.core.synaptic_words)), min(FINEST, len(cost)) + 1):
        bounds = [0, *(int(np.searchsorted(reached, total * k / parts)) + 1 for k in range(1, parts)), len(cost)]
        groups = [
            [
                _Some(one, max(low, begin) - begin, min(high, end) - begin)
                for one, begin, end in zip(cut, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
                if max(low, begin) < min(high, end)
            ]
            for low, high in pairwise(bounds)
        ]
        if not all(groups) or not all(_holds(net, name, group, lists) for group in groups):
            continue
        if all(_in_range(net, group) for group in groups):
            return groups if _left_fits(net, name, cut, parts) else None
        too_wide = True
    if too_wide:
        raise NotRepresentable(
            f"a part of its sum may leave -{most_told(target)}..{most_told(target)}",
            where=net.graph.label(name),
            why=f"{target.cite('spike.message_bits')}; {target.cite('sum.most')}",
            remedy="make the layer smaller: fewer inputs a neuron",
        )
    return None


def _lists(net: Net, one: Connection) -> Integers:
    """For every input of a connection the number of its list of weights; equal lists have one, those of zeros -1."""
    op = synapse_of(net.graph, one)
    assert isinstance(op, Dense | Conv)
    values = op.weight.mantissa if isinstance(op.weight, FixedPoint) else op.weight
    known: dict[bytes, int] = {}
    columns = np.ascontiguousarray(np.moveaxis(values, 0, -1).reshape(-1, len(values)))
    return np.array([known.setdefault(c.tobytes(), len(known)) if c.any() else -1 for c in columns], dtype=np.int64)


def _some_lists(net: Net, one: Connection, lists: int, which: bytes = b"") -> Stored:
    """Some lists of a connection as a machine keeps them; ``which`` tells them from others of the same weights."""
    kept = net.stores[one.synapse]
    return one, replace(kept, lists=lists, digest=kept.digest + which, read=None)


def _holds(net: Net, name: str, group: list[_Some], lists: Mapping[str, Integers]) -> bool:
    """Whether a core holds one neuron of a part."""
    stored = []
    for some in group:
        own = lists[some.connection.synapse][some.first : some.last]
        different, which = len(np.unique(own[own >= 0])), f"{some.first} {some.last}".encode()
        stored.append(_some_lists(net, some.connection, different, which))
    return _fits(_need(net, name, stored), net.target)


def _in_range(net: Net, group: list[_Some]) -> bool:
    """Whether no value of a part can leave the machine's range; weights that are no integers yet are not looked at."""
    least = most = 0
    for some in group:
        op = synapse_of(net.graph, some.connection)
        if not isinstance(op, Dense | Conv) or not isinstance(op.weight, FixedPoint):
            return True
        low, high = arriving(op, sent_by(net.graph.nodes[some.connection.source]), some.first, some.last)
        least, most = least + low, most + high
    return -most_told(net.target) <= least and most <= most_told(net.target)


# The graph in parts


def _divided(graph: Graph, name: str, groups: list[list[_Some]], one: Scale) -> Graph:
    """The graph with a population that reads the sums of groups of its inputs."""
    whole = graph.nodes[name]
    assert isinstance(whole, Neuron | Readout)
    cut = {some.connection.synapse: some.connection for group in groups for some in group}
    gone = {edge.target for connection in cut.values() for edge in connection.edges[:-1]}
    nodes: dict[str, Op] = {key: op for key, op in graph.nodes.items() if key not in gone}
    edges = [edge for edge in graph.edges if edge.source not in gone and edge.target not in gone]

    def fresh(wish: str) -> str:
        while wish in nodes or wish in gone:
            wish += "_"
        return wish

    for index, group in enumerate(groups):
        part = fresh(f"{name}_partial{index}")
        nodes[part] = Readout(whole.shape, "partial", decay=0.0, unit=whole.unit)
        for some in group:
            edges += _own(graph, some, index, part, nodes, fresh)
        into = fresh(f"{part}_in")
        nodes[into] = one
        edges += [Edge(part, into), Edge(into, name)]
    order = Graph(nodes, edges).order
    return Graph({key: nodes[key] for key in order}, edges)


def _own(
    graph: Graph, some: _Some, index: int, part: str, nodes: dict[str, Op], fresh: Callable[[str], str]
) -> list[Edge]:
    """Put the nodes of a connection, with those inputs alone, into ``nodes``; the edges on the way to the part."""
    connection, edges = some.connection, []
    at = connection.source
    for edge in connection.edges[:-1]:
        op = graph.nodes[edge.target]
        name = fresh(f"{edge.target}_partial{index}")
        nodes[name] = _masked(op, some.first, some.last) if edge.target == connection.synapse else op
        edges.append(Edge(at, name, edge.delay))
        at = name
    return [*edges, Edge(at, part, connection.edges[-1].delay)]


def _masked(op: Op, first: int, last: int) -> Op:
    """A synapse with zeros for what other inputs send."""
    assert isinstance(op, Dense | Conv)
    inputs = np.arange(prod(op.weight.shape[1:])).reshape(op.weight.shape[1:])
    ours = (first <= inputs) & (inputs < last)
    if isinstance(op.weight, FixedPoint):
        return replace(op, weight=FixedPoint(op.weight.mantissa * ours, op.weight.exponent))
    return replace(op, weight=op.weight * ours)

"""Populations cut into core slices, greedily, against the sheet's capacities.

A slice is a run of neurons, row by row with channels innermost, as long as a core can hold: neurons, synaptic words,
incoming and outgoing axons. Slices of a population follow each other on fresh cores (the toolchain's own partitioner
also starts with cores of one layer each). Words are estimates from published utilisation tables, upper bounds for
convolutions::

    dense:       lists * ceil(neurons on the core * bits / word)          bits = 20: weight, delay and index
    convolution: lists * (ceil(out channels * 8 / word) + 1)              on every core that holds a tile of the map
    one to one:  ceil(neurons * bits / word)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from snncompile.errors import DoesNotFit
from snncompile.fixed import FixedPoint
from snncompile.ir.connections import Connection, connections, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Neuron, Op, Readout, Scale, Shape, Slice
from snncompile.ir.shapes import shapes
from snncompile.passes import Passed
from snncompile.target import Target

DENSE_BITS = 20
CONV_BITS = 8


@dataclass(frozen=True)
class Use:
    """What a slice needs of a core."""

    neurons: int
    synaptic_words: int
    axons_in: int
    axons_out: int
    groups: int = 1


@dataclass(frozen=True)
class _Net:
    """The graph and what is asked of it again and again; ``lists`` are a synapse op's lists of weights to store."""

    graph: Graph
    extent: Mapping[str, Shape]
    into: Mapping[str, list[Connection]]
    out_of: Mapping[str, list[Connection]]
    lists: Mapping[str, int]

    @staticmethod
    def of(graph: Graph) -> _Net:
        every = connections(graph)
        into = {name: [c for c in every if c.target == name] for name in graph.nodes}
        out_of = {name: [c for c in every if c.source == name] for name in graph.nodes}
        lists = {c.synapse: _lists(synapse_of(graph, c)) for c in every}
        return _Net(graph, shapes(graph), into, out_of, lists)


def _lists(op: Op) -> int:
    """How many different lists of weights, one an input (or kernel tap), there are beside zeros.

    Axons may share a list: the taps of a pool that was composed into the weights are stored once.
    """
    if not isinstance(op, Dense | Conv):
        return 1
    weight = op.weight.mantissa if isinstance(op.weight, FixedPoint) else op.weight
    columns = np.ascontiguousarray(np.moveaxis(weight, 0, -1).reshape(-1, len(weight)))
    return len({column.tobytes() for column in columns if column.any()})


def place(graph: Graph, target: Target) -> Passed:
    """Give every population its cores. Raises ``DoesNotFit`` naming what is too small and its line in the sheet."""
    cores: dict[str, tuple[Slice, ...]] = {}
    free = 0
    net = _Net.of(graph)
    for name in reversed(graph.names(Neuron, Readout)):  # targets first: a source must know how many cores it reaches
        cores[name] = _cut(net, name, cores, target)
    placed: dict[str, Op] = {}
    for name in graph.names(Neuron, Readout):
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        placed[name] = replace(op, cores=tuple(replace(slice_, core=free + slice_.core) for slice_ in cores[name]))
        free += len(cores[name])
    if free > target.chip_cores:
        largest = max(cores, key=lambda name: len(cores[name]))
        raise DoesNotFit(
            f"needs {free} cores, a chip has {target.chip_cores}",
            where=target.name,
            why=f"{target.cite('chip.cores')}; {largest} alone takes {len(cores[largest])}",
            remedy="make the network smaller",
        )
    return Passed(graph.edit(placed), (f"{free} of {target.chip_cores} cores",))


def utilisation(graph: Graph, target: Target) -> dict[str, list[tuple[Slice, Use]]]:
    """What every slice of a placed graph needs."""
    cores = {name: op.cores for name, op in graph.nodes.items() if isinstance(op, Neuron | Readout)}
    net = _Net.of(graph)
    return {
        name: [(slice_, _use(net, name, slice_, cores, target)) for slice_ in cores[name]]
        for name in graph.names(Neuron, Readout)
    }


def _cut(net: _Net, name: str, cores: Mapping[str, tuple[Slice, ...]], target: Target) -> tuple[Slice, ...]:
    """The slices of one population, cores counted from 0."""
    op = net.graph.nodes[name]
    assert isinstance(op, Neuron | Readout)
    slices: list[Slice] = []
    for channel, channels in _blocks(net, name, cores, target):
        first, size = 0, (channels or op.shape[0]) * prod(op.shape[1:])
        while first < size:
            whole = Slice(len(slices), first, size - first, channel, channels)

            def fits(count: int, whole: Slice = whole) -> bool:
                return not _excess(_use(net, name, replace(whole, count=count), cores, target), target)

            count = _largest(fits, whole.count)
            if count == 0:
                raise _does_not_fit(net.graph, name, _use(net, name, replace(whole, count=1), cores, target), target)
            slices.append(replace(whole, count=count))
            if len(slices) > target.chip_cores:
                every = Slice(0, 0, (channels or op.shape[0]) * prod(op.shape[1:]), channel, channels)
                raise _does_not_fit(net.graph, name, _use(net, name, every, cores, target), target)
            first += count
    return tuple(slices)


def _blocks(net: _Net, name: str, cores: Mapping[str, tuple[Slice, ...]], target: Target) -> list[tuple[int, int]]:
    """Channel blocks (first channel, channels) of a population: one of all channels where their kernels fit a core."""
    op = net.graph.nodes[name]
    assert isinstance(op, Neuron | Readout)
    channels = op.shape[0]
    kernels = any(isinstance(synapse_of(net.graph, connection), Conv) for connection in net.into[name])
    each = channels
    while kernels and each > 1:
        use = _use(net, name, Slice(0, 0, 1, 0, 0 if each == channels else each), cores, target)
        if use.synaptic_words <= target.core.synaptic_words:
            break
        each = ceil(each / 2)
    if each == channels:
        return [(0, 0)]
    return [(first, min(each, channels - first)) for first in range(0, channels, each)]


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count that fits, by bisection (needs grow with the count); 0 where not even 1 does."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _excess(use: Use, target: Target) -> list[str]:
    """The capacities of a core that a slice exceeds."""
    return [
        key
        for key in ("neurons", "synaptic_words", "axons_in", "axons_out")
        if getattr(use, key) > getattr(target.core, key)
    ]


def _does_not_fit(graph: Graph, name: str, use: Use, target: Target) -> DoesNotFit:
    key = (_excess(use, target) or ["neurons"])[0]
    what = key.replace("_", " ")
    return DoesNotFit(
        f"needs {getattr(use, key)} {what} on a core, {target.name} has {getattr(target.core, key)}",
        where=graph.label(name),
        why=target.cite(f"core.{key}"),
        remedy="make the layer smaller: fewer inputs a neuron, or fewer neurons",
    )


def _use(net: _Net, name: str, part: Slice, cores: Mapping[str, tuple[Slice, ...]], target: Target) -> Use:
    words = axons_in = 0
    for connection in net.into[name]:
        op, shape = synapse_of(net.graph, connection), net.extent[connection.source]
        reached = _sources(op, shape, net.extent[name], part)
        axons_in += reached
        words += _words(op, net.lists[connection.synapse], part, target)
    axons_out = 0
    for connection in net.out_of[name]:
        axons_out += _targets(net, connection, part, cores.get(connection.target, ()))
    return Use(part.count, words, axons_in, axons_out)


def _row(shape: Shape, part: Slice) -> int:
    """How many neurons of a slice's channels stand in a row."""
    return (part.channels or shape[0]) * prod(shape[2:])


def _rows(shape: Shape, part: Slice) -> tuple[int, int]:
    """The first and last row that a slice touches."""
    row = _row(shape, part)
    return part.first // row, (part.first + part.count - 1) // row


def _field(op: Conv, target: Shape, part: Slice) -> tuple[int, int]:
    """The first and last source row (before clipping to the map) that a slice of a convolution's targets reads."""
    low, high = _rows(target, part)
    reach = op.dilation[0] * (op.weight.shape[2] - 1)
    return low * op.stride[0] - op.padding[0], high * op.stride[0] - op.padding[0] + reach


def _sources(op: Op, source: Shape, target: Shape, part: Slice) -> int:
    """How many source neurons reach a slice: rows of the receptive field for a convolution."""
    match op:
        case Conv() if len(target) > 1:
            begin, end = _field(op, target, part)
            return max(0, min(source[1] - 1, end) - max(0, begin) + 1) * source[0] * prod(source[2:])
        case Scale():
            return part.count
        case _:
            return prod(source)


def _words(op: Op, lists: int, part: Slice, target: Target) -> int:
    word = target.core.word_bits
    match op:
        case Conv():
            out = op.weight.shape[0]
            held = part.channels or out
            groups = ceil(op.groups * held / out)
            return lists * groups * (ceil(held / groups * CONV_BITS / word) + 1)
        case Dense():
            return lists * ceil(part.count * DENSE_BITS / word)
        case _:
            return ceil(part.count * DENSE_BITS / word)


def _targets(net: _Net, connection: Connection, part: Slice, slices: tuple[Slice, ...]) -> int:
    """Out-axons of a slice: one for each of its neurons and each core that the neuron reaches."""
    op = synapse_of(net.graph, connection)
    source, target = net.extent[connection.source], net.extent[connection.target]
    if len(slices) <= 1:
        return part.count
    last = part.first + part.count
    total = 0
    for other in slices:
        match op:
            case Conv() if len(target) > 1:
                begin, end = _field(op, target, other)
                row = _row(source, part)
                total += max(0, min(last, (end + 1) * row) - max(part.first, begin * row))
            case Scale() if (other.channel, other.channels) == (part.channel, part.channels):
                total += max(0, min(last, other.first + other.count) - max(part.first, other.first))
            case _:
                total += min(part.count, other.count) if isinstance(op, Scale) else part.count
    return total

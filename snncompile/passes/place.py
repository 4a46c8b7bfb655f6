"""Populations cut into core slices, greedily, against the sheet's capacities.

A slice is a run of neurons, row by row with channels innermost, as long as a core can hold: neurons, synaptic words,
incoming and outgoing axons. Slices of a population follow each other on fresh cores (the toolchain's own partitioner
also starts with cores of one layer each). Words are estimates from published utilisation tables, upper bounds for
convolutions::

    dense:       axons * ceil(neurons on the core * bits / word)          bits = 20: weight, delay and index
    convolution: in * kernel * (ceil(out channels * 8 / word) + 1)        on every core that holds a tile of the map
    one to one:  ceil(neurons * bits / word)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

from snncompile.errors import DoesNotFit
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
    """The graph and what is asked of it again and again."""

    graph: Graph
    extent: Mapping[str, Shape]
    into: Mapping[str, list[Connection]]
    out_of: Mapping[str, list[Connection]]

    @staticmethod
    def of(graph: Graph) -> _Net:
        every = connections(graph)
        into = {name: [c for c in every if c.target == name] for name in graph.nodes}
        out_of = {name: [c for c in every if c.source == name] for name in graph.nodes}
        return _Net(graph, shapes(graph), into, out_of)


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
        name: [(slice_, _use(net, name, slice_.first, slice_.count, cores, target)) for slice_ in cores[name]]
        for name in graph.names(Neuron, Readout)
    }


def _cut(net: _Net, name: str, cores: Mapping[str, tuple[Slice, ...]], target: Target) -> tuple[Slice, ...]:
    """The slices of one population, cores counted from 0."""
    op = net.graph.nodes[name]
    assert isinstance(op, Neuron | Readout)
    slices: list[Slice] = []
    first, size = 0, prod(op.shape)
    while first < size:
        start = first

        def fits(count: int, start: int = start) -> bool:
            return not _excess(_use(net, name, start, count, cores, target), target)

        count = _largest(fits, size - first)
        if count == 0:
            raise _does_not_fit(net.graph, name, _use(net, name, first, 1, cores, target), target)
        slices.append(Slice(len(slices), first, count))
        if len(slices) > target.chip_cores:
            raise _does_not_fit(net.graph, name, _use(net, name, 0, size, cores, target), target)
        first += count
    return tuple(slices)


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


def _use(net: _Net, name: str, first: int, count: int, cores: Mapping[str, tuple[Slice, ...]], target: Target) -> Use:
    words = axons_in = 0
    for connection in net.into[name]:
        op, shape = synapse_of(net.graph, connection), net.extent[connection.source]
        reached = _sources(op, shape, net.extent[name], first, count)
        axons_in += reached
        words += _words(op, reached, count, target)
    axons_out = 0
    for connection in net.out_of[name]:
        axons_out += _targets(net, connection, first, count, cores.get(connection.target, ()))
    return Use(count, words, axons_in, axons_out)


def _rows(shape: Shape, first: int, count: int) -> tuple[int, int]:
    """The first and last row that a run of neurons touches."""
    row = shape[0] * prod(shape[2:])
    return first // row, (first + count - 1) // row


def _sources(op: Op, source: Shape, target: Shape, first: int, count: int) -> int:
    """How many source neurons reach a run of target neurons: rows of the receptive field for a convolution."""
    match op:
        case Conv() if len(target) > 1:
            low, high = _rows(target, first, count)
            reach = op.dilation[0] * (op.weight.shape[2] - 1)
            begin = max(0, low * op.stride[0] - op.padding[0])
            end = min(source[1] - 1, high * op.stride[0] - op.padding[0] + reach)
            return max(0, end - begin + 1) * source[0] * prod(source[2:])
        case Scale():
            return count
        case _:
            return prod(source)


def _words(op: Op, axons: int, count: int, target: Target) -> int:
    word = target.core.word_bits
    match op:
        case Conv():
            out, inward, *kernel = op.weight.shape
            return inward * op.groups * prod(kernel) * (ceil(out / op.groups * CONV_BITS / word) + 1)
        case Dense():
            return axons * ceil(count * DENSE_BITS / word)
        case _:
            return ceil(count * DENSE_BITS / word)


def _targets(net: _Net, connection: Connection, first: int, count: int, slices: tuple[Slice, ...]) -> int:
    """Out-axons of a run of neurons: one for each of its neurons and each core that the neuron reaches."""
    op = synapse_of(net.graph, connection)
    source, target = net.extent[connection.source], net.extent[connection.target]
    if len(slices) <= 1:
        return count
    total = 0
    for slice_ in slices:
        match op:
            case Conv() if len(target) > 1:
                low, high = _rows(target, slice_.first, slice_.count)
                reach = op.dilation[0] * (op.weight.shape[2] - 1)
                begin = low * op.stride[0] - op.padding[0]
                end = high * op.stride[0] - op.padding[0] + reach
                row = source[0] * prod(source[2:])
                total += max(0, min(first + count, (end + 1) * row) - max(first, begin * row))
            case Scale():
                total += max(0, min(first + count, slice_.first + slice_.count) - max(first, slice_.first))
            case _:
                total += count
    return total

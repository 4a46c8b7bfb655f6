"""How events reach a population: from which source, through which pool and weights, how late.

Edges into a node add, and weights are linear: a convolution that reads a sum of two populations is two ways with the
same weights. What lies on a way is brought into one of three forms: a convolution (a dense layer is one whose kernel
covers its source, and whose weights each target pixel has for itself), one factor a neuron, or, for any other chain of
linear ops, the matrix that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Output, Pool, Readout, Scale, Shape
from snncompile.ir.shapes import shapes
from snncompile.run import linear
from snncompile.run.integer import IntegerGraph
from snncompile.run.steps import phase_of

Array = NDArray[Any]
LARGEST_MATRIX = 1 << 22  # numbers of a matrix that stands for a chain of ops
Pair = tuple[int, int]


class Uncarried(Exception):
    """What the compiled engine does not carry; ``run/integer`` does."""


@dataclass(frozen=True)
class Grid:
    """A shape as the engine sees it: a plane of pixels, each with its channels; features are channels of one pixel."""

    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, shape: Shape) -> Grid:
        match shape:
            case (channels, height, width):
                return cls(height, width, channels)
            case (channels, length):
                return cls(1, length, channels)
            case _:
                return cls(1, 1, prod(shape))

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Way:
    """``source`` -> pool -> weights -> ``target``, ``delay`` steps late; ``name`` is the node that holds the weights.

    ``weights``: integers [target pixel, or 1, ky kx channel, target channel], or for ``one_to_one``
    [pixel, or 1, 1, channel]. ``grid``: what the kernel moves over, the source or what the pool makes of it, spread out
    where the convolution is a transposed one.

    Weights that stand for no synapse are zeros: those between the ``groups`` of a convolution, where an event reaches
    one channel in so many, and those of a matrix, where ``reach`` [pixel channel] says how many neurons it reaches.
    """

    name: str
    source: str
    target: str
    delay: int
    weights: Array
    grid: Grid
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    pool: Pool | None = None
    one_to_one: bool = False
    spread: Pair = (1, 1)
    groups: int = 1
    reach: Array | None = None


def ways(machine: IntegerGraph) -> Iterator[Way]:
    """Every way into every population. Raises ``Uncarried``."""
    graph, extent = machine.graph, shapes(machine.graph)
    for target in graph.names(Neuron, Readout):
        for source, chain, delay in _chains(graph, target, ()):
            yield _way(machine, source, chain, target, delay, extent)


class Reaches(Protocol):
    """What order is about: from where to where, and how late."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def delay(self) -> int: ...


def logical_delay(graph: Graph, way: Reaches) -> int:
    """How many of its own steps a target receives late what its source sent."""
    return way.delay - phase_of(graph, way.target) + phase_of(graph, way.source)


def order(graph: Graph, ways: Sequence[Reaches]) -> tuple[list[str], bool]:
    """Populations in the order of computation, and whether they have to go step by step: where something depends on
    itself, or where a way may deliver what its source did before its first step.
    """
    populations = graph.names(Neuron, Readout)
    flow: nx.DiGraph[str] = nx.DiGraph()
    flow.add_nodes_from(graph.names(Input, Neuron, Readout))
    flow.add_edges_from((way.source, way.target) for way in ways)

    def early(way: Reaches) -> bool:
        late = logical_delay(graph, way)
        return late < 0 or (late > 0 and phase_of(graph, way.source) > 0)

    if not nx.is_directed_acyclic_graph(flow) or any(map(early, ways)):
        return populations, True
    known = set(populations)
    return [name for name in nx.topological_sort(flow) if name in known], False


def _chains(graph: Graph, name: str, behind: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Every source that reaches a node, the ops on the way to the population, and the steps it takes."""
    for edge in graph.into(name):
        op = graph.nodes[edge.source]
        match op:
            case Input() | Neuron():
                yield edge.source, behind, edge.delay
            case Dense() | Conv() | Scale() | Flatten() | Pool() | Output():
                if isinstance(op, Pool) and op.kind == "max" and len(graph.into(edge.source)) != 1:
                    raise Uncarried(f"{edge.source} is a maximum of sums")
                for source, chain, delay in _chains(graph, edge.source, (edge.source, *behind)):
                    yield source, chain, delay + edge.delay
            case _:
                raise Uncarried(f"{edge.source} feeds a population")


def pair(sizes: Sequence[int], filling: int) -> Pair:
    """Sizes along one or two axes, as along two."""
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (filling, sizes[0])


def _way(
    machine: IntegerGraph, source: str, chain: Sequence[str], target: str, delay: int, extent: dict[str, Shape]
) -> Way:
    graph = machine.graph
    ops = [name for name in chain if not isinstance(graph.nodes[name], Flatten | Output)]
    before, after = extent[source], extent[target]
    pool = graph.nodes[ops[0]] if ops else None
    if isinstance(pool, Pool) and len(pool.kernel) <= 2 and extent[graph.into(ops[0])[0].source] == before:
        shape, rest, first = extent[ops[0]], ops[1:], pool
    else:
        shape, rest, first = before, ops, None
    if any(isinstance(graph.nodes[name], Pool) and _kind(graph, name) == "max" for name in rest):
        raise Uncarried(f"{rest[0]} is a maximum behind other ops")
    name = rest[-1] if rest else f"{source} -> {target}"
    common: dict[str, Any] = {"name": name, "source": source, "target": target, "delay": delay}
    last = graph.nodes[rest[0]] if len(rest) == 1 else None
    grid, end = Grid.of(shape), Grid.of(after)
    spread = pair(last.spread, 1) if isinstance(last, Conv) and last.spread else (1, 1)
    if not rest or isinstance(last, Scale):
        factor = machine.weights[rest[0]] if rest else np.ones((), dtype=np.int64)
        carried = extent[graph.into(rest[0])[0].source] if rest else shape
        factors = per_pixel(factor, carried, end) if grid == end else np.empty((0, 0), dtype=np.int64)
        if first is None and grid == end:
            return Way(**common, weights=factors[:, None], grid=grid, one_to_one=True)
        if grid == end and factors.size * end.channels <= LARGEST_MATRIX:  # a kernel of one pixel, channel by channel
            each = factors[:, :, None] * np.eye(end.channels, dtype=np.int64)
            return Way(**common, weights=each, grid=grid, pool=first, groups=end.channels)
    if (
        isinstance(last, Conv)
        and len(last.weight.shape) <= 4
        and (extent[graph.into(rest[0])[0].source] == shape and Grid.of(extent[rest[0]]) == end)
    ):
        return Way(
            **common,
            weights=_convolution(machine.weights[rest[0]], last.groups),
            grid=Grid(grid.height * spread[0], grid.width * spread[1], grid.channels),
            kernel=pair(last.weight.shape[2:], 1),
            stride=pair(last.stride, 1),
            padding=pair(last.padding, 0),
            dilation=pair(last.dilation, 1),
            pool=first,
            spread=spread,
            groups=last.groups,
        )
    reach = None
    if isinstance(last, Dense):
        matrix = machine.weights[rest[0]]
    else:
        matrix = _matrix(machine, rest, shape, after)
        reach = _reached(machine, rest, shape).reshape(grid.channels, grid.pixels).T
    weights = matrix.reshape(end.channels, end.pixels, grid.channels, grid.pixels).transpose(1, 3, 2, 0)
    return Way(
        **common,
        weights=np.ascontiguousarray(weights).reshape(end.pixels, -1, end.channels),
        grid=grid,
        kernel=(grid.height, grid.width),
        stride=(0, 0),
        pool=first,
        reach=None if reach is None else np.ascontiguousarray(reach).reshape(-1),
    )


def before_weights(values: Array, pool: Pool | None, spread: Pair) -> Array:
    """What the weights of a way read of the values [batch, *shape] that its source sends."""
    if pool is not None:
        values = linear.pool(values, pool.kind, pool.kernel, pool.stride, pool.padding)
    return values if spread == (1, 1) else linear.spread_out(values, spread[4 - values.ndim :])


def _kind(graph: Graph, name: str) -> str:
    op = graph.nodes[name]
    return op.kind if isinstance(op, Pool) else ""


def _convolution(weight: Array, groups: int) -> Array:
    """[out, in / groups, *kernel] as [1, ky kx in, out]: what is not in a group has weights of zero."""
    out, inward = weight.shape[:2]
    whole = weight.reshape(out, inward, -1)
    if groups > 1:
        each = out // groups
        whole = np.zeros((out, inward * groups, whole.shape[2]), dtype=weight.dtype)
        for group in range(groups):
            rows = slice(group * each, (group + 1) * each)
            whole[rows, group * inward : (group + 1) * inward] = weight[rows].reshape(each, inward, -1)
    return np.ascontiguousarray(whole.transpose(2, 1, 0)).reshape(1, -1, out)


def per_pixel(value: Array, shape: Shape, grid: Grid) -> Array:
    """A parameter that broadcasts against a shape as [pixel, or 1 where all are alike, channel]."""
    if value.size == 1:
        return np.full((1, grid.channels), value.reshape(()), dtype=np.int64)
    values = np.broadcast_to(value, shape).reshape(grid.channels, grid.pixels).T
    alike = values[:1] if bool((values == values[:1]).all()) else values
    return np.ascontiguousarray(alike, dtype=np.int64)


def _matrix(machine: IntegerGraph, chain: Sequence[str], before: Shape, after: Shape) -> Array:
    """The matrix of a chain of linear ops, [target, source]: what it makes of every unit vector."""
    size = prod(before)
    if size * prod(after) > LARGEST_MATRIX:
        raise Uncarried(f"{' -> '.join(chain) or 'an identity'} is no matrix that fits")
    return _through(machine, chain, np.eye(size, dtype=np.int64).reshape(size, *before), machine.linear).T


def _reached(machine: IntegerGraph, chain: Sequence[str], before: Shape) -> Array:
    """How many neurons each number reaches through a chain, over synapses of any weight, zero included."""

    def connected(name: str, values: Array) -> Array:
        op = machine.graph.nodes[name]
        match op:
            case Dense():
                found = linear.dense(values, np.ones_like(machine.weights[name]))
            case Conv():
                ones = np.ones_like(machine.weights[name])
                found = linear.conv(values, ones, op.stride, op.padding, op.dilation, op.groups, op.spread)
            case Scale():
                return values
            case _:
                found = machine.linear(name, values)
        return np.minimum(found, 1)

    size = prod(before)
    every = np.eye(size, dtype=np.int64).reshape(size, *before)
    return np.asarray(_through(machine, chain, every, connected).sum(axis=1))


def _through(machine: IntegerGraph, chain: Sequence[str], values: Array, step: Callable[[str, Array], Array]) -> Array:
    """What a chain makes of vectors [vector, *shape], as [vector, number]."""
    size, extent = len(values), shapes(machine.graph)
    for name in chain:
        values = values.reshape(size, *extent[machine.graph.into(name)[0].source])
        values = step(name, values)
    return values.reshape(size, -1)

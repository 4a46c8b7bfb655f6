"""Synaptic operations counted beside a run on NumPy: the integers that the compiled engine counts while it runs.

A way brings ``n`` units at a step: spikes, or the magnitudes of graded values, after its pool. Each unit goes through
as many synapses as its place reaches, borders, strides and groups exact::

    operations = sum over steps, samples and places p of n[p] fan_out[p]

A target receives in its own steps alone: what arrives while its phase lets it wait, or after its end, counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.ir.graph import Graph
from snncompile.ir.ops import Neuron, Pool, Resonator, SigmaDelta
from snncompile.ir.shapes import shapes
from snncompile.run.integer import IntegerGraph
from snncompile.run.steps import phase_of
from snncompile.run.ways import Grid, Pair, Uncarried, Way, before_weights, logical_delay, order, pair, ways

Array = NDArray[Any]


@dataclass(frozen=True)
class Counted:
    """A way whose units are counted: what it is called and where it begins and ends, without its weights.

    ``fan_out``: synapses that a unit goes through, [channel, pixel] of what pool and spread make of the source; for
    spikes of neurons, which are never negative, of the source itself, unless maxima are between.
    """

    name: str
    source: str
    target: str
    delay: int
    fan_out: Array
    spikes: bool
    pool: Pool | None = None
    spread: Pair = (1, 1)

    def units(self, values: Array) -> int:
        """Operations that values [batch, *shape of the source] make."""
        if not self.spikes:
            values = np.abs(before_weights(values.astype(np.int64, copy=False), self.pool, self.spread))
        every = values.sum(axis=0, dtype=np.int64).reshape(-1, self.fan_out.shape[1])
        return int(np.vdot(every, self.fan_out))


class Operations:
    """Counts by node of weights, of one graph."""

    def __init__(self, graph: Graph, found: list[Counted]) -> None:
        self.graph = graph
        populations, _ = order(graph, found)
        once: dict[str, str] = {}  # weights that feed several populations are the same synapses
        self.ways: dict[str, list[Counted]] = {}  # by target
        for target in populations:
            for way in found:
                if way.target == target and once.setdefault(way.name, target) == target:
                    self.ways.setdefault(target, []).append(way)
        self.totals = dict.fromkeys(once, 0)

    @classmethod
    def of(cls, machine: IntegerGraph) -> Operations | None:
        """None where what arrives is no number of units: read-outs, maxima of sums and changes send other numbers."""
        if machine.graph.names(SigmaDelta, Resonator):
            return None
        try:
            return cls(machine.graph, list(_counted(machine)))
        except Uncarried:
            return None

    def start(self) -> None:
        """Count from nothing."""
        self.totals = dict.fromkeys(self.totals, 0)

    def layer(self, target: str, sent: Mapping[str, Array]) -> None:
        """All steps of a population at once; ``sent``: [samples, steps, *shape] of its sources."""
        for way in self.ways.get(target, ()):
            values = sent[way.source]
            given = values[:, : max(0, values.shape[1] - logical_delay(self.graph, way))]
            self.totals[way.name] += way.units(given.reshape(-1, *values.shape[2:]))

    def step(self, steps: int, machine_step: int, sent: Mapping[str, Array]) -> None:
        """One machine step of a run of ``steps`` logical ones; ``sent``: [samples, *shape] of every node, then."""
        for target, some in self.ways.items():
            for way in some:
                if 0 <= machine_step + way.delay - phase_of(self.graph, target) < steps:
                    self.totals[way.name] += way.units(sent[way.source])


def _counted(machine: IntegerGraph) -> Iterator[Counted]:
    extent = shapes(machine.graph)
    for way in ways(machine):  # one at a time: what is kept has no weights
        reached = fan_out(way, Grid.of(extent[way.target]))
        ends = way.name, way.source, way.target, way.delay
        neurons = isinstance(machine.graph.nodes[way.source], Neuron)
        if neurons and (way.pool is None or way.pool.kind == "sum"):
            yield Counted(*ends, pulled_back(way, reached, Grid.of(extent[way.source])), True)
        else:
            yield Counted(*ends, reached, False, way.pool, way.spread)


def fan_out(way: Way, target: Grid) -> Array:
    """Synapses that a unit goes through, [channel, pixel] of the grid that the way's kernel moves over."""
    grid, size = way.grid, (way.grid.channels, way.grid.pixels)
    if way.one_to_one:
        return np.ones(size, dtype=np.int64)
    if way.reach is not None:
        return np.asarray(way.reach.reshape(grid.pixels, grid.channels).T, dtype=np.int64)
    rows = _readers(grid.height, target.height, way, 0)
    columns = _readers(grid.width, target.width, way, 1)
    pixels = (rows[:, None] * columns).reshape(-1) * (target.channels // way.groups)
    return np.broadcast_to(pixels, size)


def pulled_back(way: Way, reached: Array, source: Grid) -> Array:
    """A fan-out [channel, pixel] of what a sum pool and a spread make of the source, as one of the source itself."""
    grid = way.grid
    held = reached.reshape(grid.channels, grid.height, grid.width)[:, :: way.spread[0], :: way.spread[1]]
    if way.pool is not None:
        kernel, stride = pair(way.pool.kernel, 1), pair(way.pool.stride, 1)
        above, left = pair(way.pool.padding, 0)
        _, height, width = held.shape
        found = np.zeros((source.channels, source.height + 2 * above, source.width + 2 * left), dtype=np.int64)
        for y, x in np.ndindex(*kernel):
            rows = slice(y, y + stride[0] * (height - 1) + 1, stride[0])
            found[:, rows, x : x + stride[1] * (width - 1) + 1 : stride[1]] += held
        held = found[:, above : above + source.height, left : left + source.width]
    return np.ascontiguousarray(held).reshape(source.channels, source.pixels)


def _readers(places: int, targets: int, way: Way, axis: int) -> Array:
    """How many targets and taps read each place along an axis."""
    found = np.zeros(places, dtype=np.int64)
    first = np.arange(targets) * way.stride[axis] - way.padding[axis]
    for tap in range(way.kernel[axis]):
        at = first + tap * way.dilation[axis]
        np.add.at(found, at[(at >= 0) & (at < places)], 1)
    return found

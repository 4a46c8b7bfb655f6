"""A graph as the compiled engine runs it (``run/kernels``): ways, number widths, weights; and its runs.

Layer after layer over all steps where nothing depends on itself, step after step where there are loops. Every width is
proven for the run at hand (``run/ranges.py``), so the result is that of ``run/integer`` to the last bit, whatever the
instruction set and the number of threads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ToolError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Neuron, Pool, Readout
from snncompile.ir.shapes import shapes
from snncompile.run import _kernels
from snncompile.run.groups import Part, fitting, parts
from snncompile.run.integer import IntegerGraph
from snncompile.run.ranges import largest, rules
from snncompile.run.steps import check_stimulus, latency, phase_of
from snncompile.run.trace import Packed, Trace
from snncompile.run.ways import Grid, Pair, Uncarried, Way, before_weights, logical_delay, order, pair, per_pixel, ways

Array = NDArray[Any]
BYTES, SHORTS, NUMBERS, ONE_TO_ONE, DEPTHWISE = range(5)  # the forms of network.hpp
BATCH_BYTES = 1 << 26  # of events and masks that one batch of samples may hold
MOST_SAMPLES = 64  # of a batch, for every thread
GROUPS = 4  # of so many samples, of a batch that goes step by step and is shared out to several threads
LARGEST_VALUE = 2**31 - 1  # of a graded input, and of a sum of products
MOST_COUNTED = 127  # spikes in the window of a pool, where they are multiplied
PRODUCTS: float | None = (
    None  # instead of what the kernels have (kernels/network.hpp): 0 none, infinity all are multiplied
)


@dataclass(frozen=True)
class _Fed:
    """How an input is given in a run: as spikes or integers, at every step or once for all, and its largest value."""

    spikes: bool
    constant: bool
    most: int


class Compiled:
    """One graph on one instruction set. Raises ``Uncarried`` for what the engine does not carry."""

    def __init__(self, machine: IntegerGraph, kernels: str) -> None:
        self.machine, self.graph, self.kernels = machine, machine.graph, kernels
        self.extent = shapes(self.graph)
        self.ways = list(ways(machine))
        self.populations, self.stepwise = order(self.graph, self.ways)
        self._ready: tuple[object, _Ready] | None = None

    def run(self, stimulus: Mapping[str, Array], keep: Collection[str] | None, threads: int) -> Trace:
        """As ``Simulator.run``. Raises ``Uncarried`` where the values given need more than the engine has."""
        samples, steps = check_stimulus(self.graph, stimulus)
        fed = {name: _fed(name, values) for name, values in stimulus.items()}
        key = (steps, tuple(sorted(fed.items(), key=lambda item: item[0])))
        if self._ready is None or self._ready[0] != key:
            self._ready = key, _Ready(self, fed, steps)
        return self._ready[1].run(stimulus, keep, samples, threads)


def _fed(name: str, values: Array) -> _Fed:
    if values.dtype.kind not in "biu":
        raise Uncarried(f"{name} is given reals")
    most = 1 if values.dtype == np.bool_ else largest(values)
    if most > LARGEST_VALUE:
        raise Uncarried(f"{name} is given values beyond 32 bits")
    spikes = most <= 1 and (values.dtype == np.bool_ or int(values.min()) >= 0)
    # most frames part here already: those of the first sample, then of all
    alike = values.shape[1] > 1 and all(bool((part[:, 1] == part[:, 0]).all()) for part in (values[:1], values))
    constant = alike and bool((values == values[:, :1]).all())
    return _Fed(spikes and not constant, constant, most)


class _Ready:
    """The engine, built for runs of so many steps with inputs of such values."""

    def __init__(self, plan: Compiled, fed: Mapping[str, _Fed], steps: int) -> None:
        self.plan, self.fed, self.steps = plan, fed, steps
        self.engine = _kernels.Engine(plan.kernels)
        if PRODUCTS is not None:
            self.engine.products = PRODUCTS
        self.machine_steps = steps + (latency(plan.graph) if plan.stepwise else 0)
        self.signals: dict[str, int] = {}
        for name in plan.graph.names(Input, Neuron, Readout):
            grid = Grid.of(plan.extent[name])
            self.signals[name] = self.engine.signal(grid.height, grid.width, grid.channels)
        self.lists: dict[object, int] = {}
        # graded inputs behind a pool, or spread out, as inputs of their own
        self.pooled: dict[tuple[str, Pool | None, Pair], int] = {}
        self.labels: list[tuple[str, int, int, int]] = []  # weights, their groups, population, its connection
        for index, name in enumerate(plan.populations):
            self._population(index, name, [way for way in plan.ways if way.target == name])
        numbers = sum(int(np.prod(plan.extent[name])) for name in self.signals) * self.machine_steps
        self.most = BATCH_BYTES // max(1, numbers)

    def _population(self, index: int, name: str, into: list[Way]) -> None:
        plan, grid = self.plan, Grid.of(self.plan.extent[name])
        most = {way.source: self.fed[way.source].most if way.source in self.fed else 1 for way in into}
        found = rules(plan.machine, name, into, most, self.machine_steps)
        tile = fitting(into, grid.channels, _tile(grid.channels, self.engine.widest))
        self.engine.population(
            self.signals[name],
            tile,
            found.wide,
            isinstance(plan.graph.nodes[name], Readout),
            phase_of(plan.graph, name) if plan.stepwise else 0,
            found.record,
            self._parameters(name, grid),
        )
        for place, part in enumerate(part for way in into for part in parts(way, grid.channels, tile)):
            self._connect(index, part, tile)
            self.labels.append((part.way.name, part.way.groups, index, place))

    def _parameters(self, name: str, grid: Grid) -> list[Array]:
        machine, op = self.plan.machine, self.plan.graph.nodes[name]
        zero = np.zeros((), dtype=np.int64)
        if isinstance(op, Neuron):
            own, one = machine.neurons[name], 1 << machine.target.decay.bits
            threshold = own["threshold"] if op.fires == ">" else own["threshold"] - 1
            values = [one - own["alpha"], one - own["beta"], own["bias"], threshold, own["reset"], own["initial"]]
        else:
            kept = (1 << machine.target.decay.bits) - machine.forgets[name]
            values = [zero, kept, machine.readouts[name], zero, zero, zero]
        return [per_pixel(np.asarray(value), self.plan.extent[name], grid) for value in values]

    def _connect(self, population: int, part: Part, tile: int) -> None:
        way = part.way
        spikes = way.source not in self.fed or self.fed[way.source].spikes
        form, shift, flush = _form(part, tile, spikes=spikes)
        listed = spikes and form not in (ONE_TO_ONE, DEPTHWISE)
        given = {
            "form": form,
            "first": part.first,
            "channels": part.channels,
            "lane": part.lane,
            "lanes": part.lanes,
            "source": self.signals[way.source] if spikes or not _changes(way) else self._pooled(way),
            "events": self._lists(part) if listed else -1,
            "delay": way.delay if self.plan.stepwise else logical_delay(self.plan.graph, way),
            "shift": shift,
            "flush": flush,
            "kernel": way.kernel,
            "stride": way.stride,
            "padding": way.padding,
            "dilation": way.dilation,
            "matrix": form in (BYTES, SHORTS)
            and way.reach is None
            and way.spread == (1, 1)
            and _multiplies(way, shift),
        }
        self.engine.connect(population, given, np.ascontiguousarray(way.weights >> shift), way.reach)

    def _pooled(self, way: Way) -> int:
        """The signal of what is made of a graded input, pooled or spread out; ``run`` computes it."""
        pool = way.pool
        most = self.fed[way.source].most * (int(np.prod(pool.kernel)) if pool and pool.kind == "sum" else 1)
        if most > LARGEST_VALUE:
            raise Uncarried(f"{way.name} sums values beyond 32 bits")
        key = way.source, pool, way.spread
        if key not in self.pooled:
            grid = way.grid
            self.pooled[key] = self.engine.signal(grid.height, grid.width, grid.channels)
        return self.pooled[key]

    def _lists(self, part: Part) -> int:
        """The lists of events that a part of a way reads, made once for all that read the same."""
        way, window = part.way, (part.first, part.channels)
        pool = way.pool or Pool("sum", (1, 1), (1, 1), (0, 0))
        key = (way.source, window, pool.kind, pool.kernel, pool.stride, pool.padding, way.spread, way.grid)
        if key not in self.lists:
            self.lists[key] = self.engine.events(
                self.signals[way.source],
                *window,
                pair(pool.kernel, 1),
                pair(pool.stride, 1),
                pair(pool.padding, 0),
                way.spread,
                pool.kind == "max",
                way.grid.height,
                way.grid.width,
            )
        return self.lists[key]

    def _batch(self, samples: int, threads: int) -> int:
        """Samples that run together: what memory allows, all batches about alike, and as many for every thread."""
        groups = GROUPS if self.plan.stepwise and threads > 1 else 1
        most = max(1, min(MOST_SAMPLES * threads * groups, self.most))
        alike = -(-samples // max(1, -(-samples // most)))
        return max(1, alike) if alike < threads else -(-alike // threads) * threads

    def run(self, stimulus: Mapping[str, Array], keep: Collection[str] | None, samples: int, threads: int) -> Trace:
        plan = self.plan
        given: list[tuple[int, Array | None, Array | None, bool]] = []
        for name, values in stimulus.items():
            fed = self.fed[name]
            shown = values[:, :1] if fed.constant else values
            bits = shown.view(np.uint8) if shown.dtype == np.bool_ else shown
            spikes = np.ascontiguousarray(bits, dtype=np.uint8) if fed.spikes else None
            numbers = None if fed.spikes else np.ascontiguousarray(shown, dtype=np.int32)
            given.append((self.signals[name], spikes, numbers, fed.constant))
            for (source, pool, spread), signal in self.pooled.items():
                if source == name:
                    flat = before_weights(shown.reshape(-1, *shown.shape[2:]), pool, spread)
                    given.append((signal, None, np.ascontiguousarray(flat, dtype=np.int32), fed.constant))
        fired: dict[str, tuple[Array, Array, Array]] = {}
        potentials: dict[str, Array] = {}
        kept: list[tuple[int, Array | None, Array | None, Array | None, Array | None]] = []
        for name in plan.graph.names(Neuron, Readout):
            if keep is not None and name not in keep:
                continue
            whole = (samples, self.steps, *plan.extent[name])
            potentials[name] = np.empty(whole, dtype=np.int64)
            view = words = number = None
            if isinstance(plan.graph.nodes[name], Neuron):
                words = np.empty((*whole[:2], -(-prod(whole[2:]) // 64)), dtype=np.uint64)
                number = np.empty(whole[:2], dtype=np.int64)
                fired[name] = np.empty(whole, dtype=np.bool_), words, number
                view = fired[name][0].view(np.uint8)
            kept.append((plan.populations.index(name), view, potentials[name], words, number))
        batch = self._batch(samples, threads)
        try:
            self.engine.run(given, kept, samples, self.steps, self.machine_steps, plan.stepwise, batch, threads)
        except MemoryError as error:
            raise ToolError(
                "the memory of this machine does not hold it",
                where="simulate",
                why=f"{min(batch, samples)} samples of {self.machine_steps} steps run together",
                remedy="keep fewer populations, or give fewer steps",
            ) from error
        except RuntimeError as error:  # no more threads, or whatever the system refuses
            raise ToolError(f"the engine ended: {error}", where="simulate", remedy="try fewer threads") from error
        counts = dict(zip(plan.populations, self.engine.fired, strict=True))
        operations: dict[str, int] = {}
        once: dict[str, int] = {}  # weights that feed several populations are the same synapses
        for label, groups, population, place in self.labels:
            if once.setdefault(label, population) != population:
                continue
            # the engine counts every channel that a part feeds; an event reaches those of its group
            counted = self.engine.operations(population, place) // groups
            operations[label] = operations.get(label, 0) + counted
        meta = {
            "steps": self.steps,
            "latency": latency(plan.graph),
            "potential": "before reset",
            "spikes": {name: counts[name] for name in plan.graph.names(Neuron)},
            "operations": operations,
        }
        packed = {name: Packed(*arrays) for name, arrays in fired.items()}
        return Trace({name: bits.of for name, bits in packed.items()}, potentials, meta, packed)


def _changes(way: Way) -> bool:
    """Whether weights read something else than what the source sends."""
    return way.pool is not None or way.spread != (1, 1)


def _tile(channels: int, widest: int) -> int:
    """Channels whose sums are held in registers together."""
    if channels <= 32:
        return 32
    for tile in (256, 128):
        if tile <= widest and -(-channels // tile) * tile <= -(-channels // 64) * 64:
            return tile
    return 64


def _form(part: Part, tile: int, *, spikes: bool) -> tuple[int, int, int]:
    """The form of a part's weights, the power of two they are divided by, and after how many events 16 bits end."""
    way = part.way
    together = int(np.bitwise_or.reduce(np.abs(way.weights), axis=None)) if way.weights.size else 0
    shift = min(16, (together & -together).bit_length() - 1) if together else 0
    most = largest(way.weights) >> shift
    if way.one_to_one:
        return ONE_TO_ONE, shift, 0
    if part.depthwise:
        return DEPTHWISE, shift, 0
    if not spikes or most > 2**15 // 8:
        return NUMBERS, shift, 0
    if tile >= 64 and int(way.weights.min()) >> shift >= -128 and int(way.weights.max()) >> shift <= 127:
        return BYTES, shift, 255
    return SHORTS, shift, (2**15 - 1) // max(1, most)


def _multiplies(way: Way, shift: int) -> bool:
    """Whether all counts of spikes times all weights are a product of bytes whose sums 32 bits hold."""
    each = prod(way.pool.kernel) if way.pool and way.pool.kind == "sum" else 1
    narrow = int(way.weights.min()) >> shift >= -128 and int(way.weights.max()) >> shift <= 127
    if len(way.weights) != 1 or not narrow or each > MOST_COUNTED:
        return False
    return each * int(np.abs(way.weights >> shift).sum(axis=1).max()) <= LARGEST_VALUE


__all__ = ["Compiled", "Graph", "Uncarried"]

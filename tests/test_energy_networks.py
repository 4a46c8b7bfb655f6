"""Counts of networks that no other generator makes, against matrices that torch makes of every op.

Grouped, strided, dilated, padded and transposed at once; pools over counts and signs, maxima of sums and of maxima;
feedback with delays; several inputs and read-outs; one step, weights of zero, silence. Nothing is shared with counting:
``S`` [out, in] says how often an element of an op's output reads one of its input, ``N`` the same where the weight is
not zero, ``V`` with which weight; what events reach is ``sum(S P |e|)`` with P the product of such matrices on the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from snncompile.energy import Counts, count
from snncompile.energy_conventions import Options
from snncompile.energy_skeleton import skeleton
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Pool, Readout, Scale, Shape, real
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Analog, Count, Fixed, Signal, Signed, Spike
from snncompile.run.trace import Trace

Array = np.ndarray[Any, np.dtype[Any]]
Columns = dict[tuple[str, str], Array]

# --- every op as a matrix, by torch -----------------------------------------------------------------------------------


def applied(x: Array, weight: Array, op: Conv | Pool, groups: int) -> Array:
    """torch's convolution of ``x`` [n, *shape] in float64, zeros outside."""
    axes = weight.ndim - 2
    for axis, step in enumerate(getattr(op, "spread", ()), start=2):
        wide = np.zeros((*x.shape[:axis], x.shape[axis] * step, *x.shape[axis + 1 :]))
        wide[(slice(None),) * axis + (slice(None, None, step),)] = x
        x = wide
    call = functional.conv1d if axes == 1 else functional.conv2d
    dilation = getattr(op, "dilation", (1,) * axes)
    given_ = torch.from_numpy(np.array(x, dtype=np.float64)), torch.from_numpy(np.array(weight, dtype=np.float64))
    return np.asarray(call(*given_, None, op.stride, op.padding, dilation, groups))


def matrix(op: Op, arriving: Shape, weight: Array | None = None) -> Array:
    """[out, in], flattened; ``weight``: taken for the op's own."""
    size = prod(arriving)
    basis = np.eye(size)
    match op:
        case Dense():
            return real(op.weight) if weight is None else weight
        case Conv():
            made = applied(basis.reshape(size, *arriving), real(op.weight) if weight is None else weight, op, op.groups)
        case Pool():
            ones = np.ones((arriving[0], 1, *op.kernel)) / (prod(op.kernel) if op.kind == "mean" else 1)
            ones = ones if weight is None else np.ones(ones.shape)
            made = applied(basis.reshape(size, *arriving), ones, op, arriving[0])
        case Scale():
            return np.diag(np.broadcast_to(real(op.factor), arriving).ravel())
        case _:
            return basis
    return made.reshape(size, -1).T


@dataclass
class Way:
    """From ``source`` to a node: ``paths`` and those of them that weights of zero leave; the nearest pool."""

    source: str
    paths: Array
    delay: int
    pool: str = ""


class Matrices:
    """What a network's events reach, step by step."""

    def __init__(self, graph: Graph, stimulus: dict[str, Array], spikes: dict[str, Array]) -> None:
        self.graph, self.extent, self.spikes = graph, shapes(graph), spikes
        self.samples, self.steps = next(iter(stimulus.values())).shape[:2]
        self.stimulus = stimulus
        self.events: dict[str, tuple[Array, float]] = {}  # whole numbers of events, and what one is worth
        for name in graph.order:
            match graph.nodes[name]:
                case Input(signal=Spike(amplitude) | Count(amplitude=amplitude)):
                    self.events[name] = self._flat(np.rint(stimulus[name] / amplitude)), amplitude
                case Input(signal=Signed()):
                    self.events[name] = self._flat(stimulus[name]), 1.0
                case Neuron(amplitude=amplitude):
                    self.events[name] = self._flat(spikes[name]), amplitude
        for name in graph.order:
            op = graph.nodes[name]
            if isinstance(op, Pool) and op.kind == "max" and all(way.source in self.events for way in self.into(name)):
                self.events[name] = self._largest(name, op)

    def _flat(self, values: Array) -> Array:
        return values.astype(np.int64).reshape(self.samples, self.steps, -1)

    def shape_into(self, name: str) -> Shape:
        return self.extent[self.graph.into(name)[0].source]

    def into(self, name: str) -> list[Way]:
        """Every way into a node from what sends by itself."""
        found = []
        for edge in self.graph.into(name):
            op = self.graph.nodes[edge.source]
            if isinstance(op, Flatten | Scale) or (isinstance(op, Pool) and op.kind != "max"):
                shape = self.shape_into(edge.source)
                each = matrix(op, shape, np.ones(())) != 0 if isinstance(op, Scale | Pool) else np.eye(prod(shape))
                pool = edge.source if isinstance(op, Pool) else ""
                for way in self.into(edge.source):
                    found.append(Way(way.source, each @ way.paths, way.delay + edge.delay, pool or way.pool))
            else:
                found.append(Way(edge.source, np.eye(prod(self.extent[edge.source])), edge.delay))
        return found

    def late(self, values: Array, delay: int) -> Array:
        found = np.zeros_like(values)
        for step in range(delay, self.steps):
            found[:, step] = values[:, step - delay]
        return found

    def _sum(self, name: str) -> tuple[Array, float]:
        """What arrives at a node, in events of one worth, from nothing but events."""
        total, worth = np.zeros((self.samples, self.steps, prod(self.shape_into(name))), dtype=np.int64), 0.0
        for edge in self.graph.into(name):
            if edge.source in self.events:
                values, worth = self.events[edge.source]
            else:
                op = self.graph.nodes[edge.source]
                values, worth = self._sum(edge.source)
                if isinstance(op, Pool):
                    values = values @ matrix(op, self.shape_into(edge.source), np.ones(())).T.astype(np.int64)
                    worth /= prod(op.kernel) if op.kind == "mean" else 1
                elif isinstance(op, Scale):
                    worth *= float(real(op.factor))
            total += self.late(values, edge.delay)
        return total, worth

    def _largest(self, name: str, op: Pool) -> tuple[Array, float]:
        values, worth = self._sum(name)
        windows = matrix(op, self.shape_into(name), np.ones(())) != 0
        found = np.empty((self.samples, self.steps, len(windows)), dtype=np.int64)
        for cell, window in enumerate(windows):
            inside = values[:, :, window]
            zeros = np.zeros((self.samples, self.steps, prod(op.kernel) - int(window.sum())), dtype=np.int64)
            found[:, :, cell] = np.concatenate([inside, zeros], axis=2).max(axis=2)
        return found, worth

    def biased(self, name: str) -> Array:
        """Which neurons get something where nothing is sent."""

        def constant(node: str) -> Array:
            op = self.graph.nodes[node]
            if isinstance(op, Input | Neuron | Readout):
                return np.zeros(prod(self.extent[node]))
            arriving = sum(constant(edge.source) for edge in self.graph.into(node))
            if isinstance(op, Pool) and op.kind == "max":
                values = np.asarray(arriving)
                windows = matrix(op, self.shape_into(node), np.ones(())) != 0
                full = windows.sum(axis=1) == prod(op.kernel)
                most = [values[row].max(initial=-np.inf if whole else 0.0) for row, whole in zip(windows, full)]  # noqa: B905
                return np.array(most)
            made = matrix(op, self.shape_into(node)) @ arriving
            if isinstance(op, Dense | Conv) and op.bias is not None:
                made = made + np.repeat(real(op.bias), len(made) // len(real(op.bias)))
            return np.asarray(made)

        op = self.graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        sent = sum(constant(edge.source) for edge in self.graph.into(name))
        bias = np.broadcast_to(real(op.bias), op.shape).ravel()
        gain = np.broadcast_to(real(op.gain), op.shape).ravel() if isinstance(op, Neuron) else 1.0
        return np.asarray(gain * sent + bias != 0)

    def reached(self, way: Way, behind: Array) -> Array:
        """[samples, steps]: synapses of ``behind`` [out, elements] that the events of a way go through."""
        return np.abs(self.events[way.source][0]) @ (behind @ way.paths).sum(axis=0).astype(np.int64)

    def columns(self, options: Options) -> Columns:
        found: Columns = defaultdict(lambda: np.zeros((self.samples, self.steps), dtype=np.int64))
        for name in self.graph.order:
            op, some = self.graph.nodes[name], self.into(name) if self.graph.into(name) else []
            events = all(way.source in self.events for way in some)
            match op:
                case Dense() | Conv():
                    self._weights(found, name, op, some, events, options)
                case Pool() if op.kind != "max":
                    every = matrix(op, self.shape_into(name), np.ones(()))
                    if not events:
                        found[name, "pool_adds"] += int(every.sum())
                    else:
                        found[name, "spikes_in"] += self.sent(some)
                case Neuron() | Readout():
                    self._population(found, name, op, some)
        return found

    def sent(self, some: list[Way]) -> Array:
        """The events of sources, each once."""
        return np.asarray(sum(np.abs(self.events[source][0]).sum(axis=2) for source in {way.source for way in some}))

    def _weights(
        self, found: Columns, name: str, op: Dense | Conv, some: list[Way], events: bool, options: Options
    ) -> None:
        shape, weight = self.shape_into(name), real(op.weight)
        every, present = matrix(op, shape, np.ones(weight.shape)), matrix(op, shape, (weight != 0).astype(float))
        if not events:
            found[name, "mac"] += int(every.sum())
            if options.static_input == "cache" and all(self.is_input(way.source) for way in some):
                found[name, "mac"] *= self.changed({way.source for way in some})
            if len(some) == 1 and not some[0].pool and self.is_input(some[0].source):
                seen = self.stimulus[some[0].source].reshape(self.samples, self.steps, -1) != 0
                found[name, "mac_nonzero"] += seen @ (present @ some[0].paths).sum(axis=0).astype(np.int64)
                if options.static_input == "cache":
                    found[name, "mac_nonzero"] *= self.changed({some[0].source})
        elif options.multiplicity == "graded":
            met = np.zeros((self.samples, self.steps, prod(shape)), dtype=bool)
            for way in some:
                there = (self.events[way.source][0] != 0) @ (way.paths != 0).T.astype(np.int64)
                met |= self.late(there > 0, way.delay)
            found[name, "spikes_in"] += met.sum(axis=2)
            for key, matrix_ in (("ac", every), ("ac_nonzero_weight", present)):
                found[name, key] += met @ matrix_.sum(axis=0).astype(np.int64)
        else:
            for way in some:
                found[name, "ac"] += self.reached(way, every)
                found[name, "ac_nonzero_weight"] += self.reached(way, present)
            found[name, "spikes_in"] += self.sent(some)

    def is_input(self, source: str) -> bool:
        return isinstance(self.graph.nodes[source], Input)

    def changed(self, sources: set[str]) -> Array:
        found = np.ones((self.samples, self.steps), dtype=np.int64)
        for sample in range(self.samples):
            for step in range(1, self.steps):
                pairs = [(self.stimulus[one][sample, step], self.stimulus[one][sample, step - 1]) for one in sources]
                found[sample, step] = any(not np.array_equal(now, before) for now, before in pairs)
        return found

    def _population(self, found: Columns, name: str, op: Neuron | Readout, some: list[Way]) -> None:
        one = np.eye(prod(op.shape))
        for way in some:
            if way.pool and not all(one.source in self.events for one in self.into(way.pool)):
                continue  # numbers are among what this pool adds: it adds all of it, at every step
            if way.source in self.events:
                found[(way.pool, "pool_adds") if way.pool else (name, "one_to_one")] += self.reached(way, one)
            elif not way.pool and isinstance(self.graph.nodes[way.source], Input | Readout):
                found[name, "one_to_one"] += int(way.paths.sum())
        found[name, "bias_adds"] += int(self.biased(name).sum())
        if isinstance(op, Neuron):
            found[name, "neuron_updates"] += prod(op.shape)
            found[name, "spikes_out"] += self.spikes[name].reshape(self.samples, self.steps, -1).sum(axis=2)
        else:
            found[name, "readout_adds"] += prod(op.shape)


def assert_counted(found: Counts, expected: Columns) -> None:
    """Every column of every layer; what is not expected must be empty."""
    arrays = {(layer.name, key): array for layer in found.layers for key, array in layer.columns.items()}
    for key in arrays.keys() | expected.keys():
        if key not in arrays:
            assert not expected[key].any(), key
            continue
        assert arrays[key].dtype == np.int64
        assert arrays[key].tolist() == expected.get(key, np.zeros_like(arrays[key])).tolist(), key


# --- the networks -----------------------------------------------------------------------------------------------------

MOST = 90  # elements of a signal: matrices stay small


class Odd:
    """A network of everything at once."""

    def __init__(self, source: Random) -> None:
        self.source, self.pick = source, source.choice
        self.numbers = np.random.default_rng(source.randint(0, 2**32 - 1))
        self.nodes, self.edges = dict[str, Op](), list[Edge]()
        self.samples, self.steps = source.randint(1, 3), self.pick([1, 1, 2, 4])
        self.stimulus: dict[str, Array] = {}
        shape = self.pick([(4, 5, 3), (2, 6, 5), (6, 3, 3), (4, 9), (3, 4, 4), (7,)])
        ends = [self.input(f"in{index}", shape) for index in range(self.pick([1, 2, 3]))]
        populations = []
        for index in range(source.randint(1, 3)):
            ends = [self.layer(f"n{index}", ends)]
            populations.append(ends[0])
            if self.maybe(3):
                ends.append(self.input(f"late{index}", self.extent[ends[0]]))
        for index in range(self.pick([0, 1, 2])):
            self.back(f"back{index}", populations)
        for index in range(self.pick([0, 1, 2])):
            start = self.pick([*populations, *ends])
            bias = self.pick([None, np.array([0.0, 2.0])])
            at = self.add(f"w_out{index}", Dense(self.weight(2, prod(self.extent[start])), bias), [start])
            self.add(f"out{index}", Readout((2,), bias=self.pick([0.0, 0.0, 1.0])), [at])
        self.add("end", Output(), ends[:1])
        self.graph = Graph(self.nodes, self.edges)
        rate = self.pick([0.0, 0.3, 0.3, 1.0])
        self.spikes = {
            name: self.numbers.random((self.samples, self.steps, *op.shape)) < rate
            for name, op in self.nodes.items()
            if isinstance(op, Neuron)
        }

    @property
    def extent(self) -> dict[str, Shape]:
        return shapes(Graph(self.nodes, self.edges))

    def maybe(self, one_in: int) -> bool:
        return self.source.randrange(one_in) == 0

    def add(self, name: str, op: Op, sources: list[str], delays: tuple[int, ...] = (0, 0, 0, 1, 2)) -> str:
        self.nodes[name] = op
        self.edges += [Edge(source, name, self.pick(delays)) for source in sources]
        return name

    def weight(self, *shape: int) -> Array:
        values = self.numbers.integers(-2, 3, shape).astype(float)
        return values * self.pick([0, 1, 1, 1, 1])  # now and then nothing at all

    def input(self, name: str, shape: Shape) -> str:
        signal: Signal = self.pick(
            [Spike(), Spike(0.3), Count(5, 0.1), Count(1), Signed(), Signed(), Analog(), Fixed(4)]
        )
        most = signal.most if isinstance(signal, Count) else 7 if isinstance(signal, Fixed) else 1
        least = -most if isinstance(signal, Signed | Fixed) else 0
        values = self.numbers.integers(least, most + 1, (self.samples, self.steps, *shape)).astype(float)
        values *= self.numbers.random(values.shape) < self.pick([0.0, 0.4, 1.0])
        for step in range(1, self.steps):
            if self.maybe(3):
                values[:, step] = values[:, step - 1]
        amplitude = signal.amplitude if isinstance(signal, Spike | Count) else 1.0
        self.nodes[name], self.stimulus[name] = Input(shape, signal), values * amplitude
        return name

    def axes(self, choices: list[int], number: int) -> tuple[int, ...]:
        return tuple(self.pick(choices) for _ in range(number))

    def pool(self, kind: str, shape: Shape) -> Pool:
        kernel = tuple(min(self.pick([1, 2, 3]), n) for n in shape[1:])
        pads = tuple(self.pick([0, 1]) if k > 1 else 0 for k in kernel)
        return Pool(kind, kernel, self.axes([1, 2, 3], len(kernel)), pads)  # type: ignore[arg-type]

    def before(self, name: str, sources: list[str]) -> list[str]:
        """Nothing, or factors, sums, means and maxima, one behind the other."""
        for index in range(self.pick([0, 0, 1, 2, 3])):
            shape = self.extent[sources[0]]
            what = self.pick(["scale", "scale", "max", "sum", "mean", "flat"])
            if what == "scale":
                channels = (shape[0], *(1,) * (len(shape) - 1))
                factor = self.pick([np.array(0.5), np.array(3.0), self.weight(*channels), self.weight(*shape)])
                if factor.size > 1 or len(sources) > 1:
                    sources = self.branches(f"{name}_{index}", factor, sources)
                else:
                    sources = [self.add(f"{name}_{index}", Scale(factor), sources)]
            elif what == "flat" and len(shape) > 1 and index:
                sources = [self.add(f"{name}_{index}", Flatten(), sources)]
            elif len(shape) > 1:
                if what == "max" and (len(sources) > 1 or not self.one_worth(sources[0])):
                    what = "mean"
                sources = [self.add(f"{name}_{index}", self.pool(what, shape), sources)]
        return sources

    def branches(self, name: str, factor: Array, sources: list[str]) -> list[str]:
        """The factor, beside ways that go without it."""
        scaled = self.add(name, Scale(factor), sources)
        return [scaled, *(sources if self.maybe(2) else [])]

    def one_worth(self, name: str) -> bool:
        """Whether a maximum may be taken: one factor for all on the way from one source, or numbers."""
        op = self.nodes[name]
        if not isinstance(op, Scale | Pool | Flatten) or (isinstance(op, Pool) and op.kind == "max"):
            return True
        edges = [edge for edge in self.edges if edge.target == name]
        single = len(edges) == 1 and not (isinstance(op, Scale) and (real(op.factor).size > 1 or real(op.factor) <= 0))
        return single and self.one_worth(edges[0].source)

    def weights(self, shape: Shape) -> Op:
        axes = len(shape) - 1
        for _ in range(20 if axes else 0):
            groups = self.pick([g for g in (1, 2, 3, shape[0]) if shape[0] % g == 0])
            features = groups * self.pick([1, 2])
            kernel = self.axes([1, 2, 3], axes)
            geometry = self.axes([1, 2, 3], axes), self.axes([0, 1, 2], axes), self.axes([1, 2], axes)
            bias = self.pick([None, None, self.numbers.integers(-1, 2, features).astype(float)])
            spread = self.axes([1, 2], axes) if self.maybe(3) else ()
            op = Conv(self.weight(features, shape[0] // groups, *kernel), bias, *geometry, groups, spread)
            size = [n * s for n, s in zip(shape[1:], spread or (1,) * axes, strict=True)]
            reach = [d * (k - 1) + 1 for d, k in zip(op.dilation, kernel, strict=True)]
            room = [n + 2 * p - r for n, p, r in zip(size, op.padding, reach, strict=True)]
            places = [free // s + 1 for free, s in zip(room, op.stride, strict=True)]
            if min(room) >= 0 and features * prod(places) <= MOST:
                return op
        return Dense(self.weight(4, prod(shape)), self.pick([None, np.array([0.0, 1.0, 0.0, -1.0])]))

    def layer(self, name: str, sources: list[str]) -> str:
        ready = self.before(name, sources)
        shape = self.extent[ready[0]]
        if self.maybe(5):  # as it is, without weights
            return self.neuron(name, shape, ready)
        at = [self.add(f"{name}_w", self.weights(shape), ready)]
        if self.maybe(6):  # weights that read weights
            at = [self.add(f"{name}_v", self.weights(self.extent[at[0]]), at)]
        shape = self.extent[at[0]]
        alike = [one for one, own in self.extent.items() if own == shape and one not in at]
        return self.neuron(name, shape, [*at, *([self.pick(alike)] if alike and self.maybe(2) else [])])

    def neuron(self, name: str, shape: Shape, sources: list[str]) -> str:
        bias = self.pick([np.zeros(()), np.zeros(()), np.ones(()), self.numbers.integers(0, 2, shape).astype(float)])
        gain = self.pick([np.ones(()), np.ones(()), self.numbers.integers(0, 2, shape).astype(float)])
        return self.add(name, Neuron(shape, bias=bias, gain=gain, amplitude=self.pick([1.0, 1.0, 0.25])), sources)

    def back(self, name: str, populations: list[str]) -> None:
        """A loop: the spikes of a population reach itself, or one before it, some steps late."""
        start = self.source.randrange(len(populations))
        end, start_name = populations[self.source.randrange(start + 1)], populations[start]
        own, target = self.extent[start_name], self.extent[end]
        if own == target and self.maybe(2):
            self.edges.append(Edge(start_name, end, self.pick([1, 2])))
            return
        at = self.add(name, Dense(self.weight(prod(target), prod(own))), [start_name], (1, 2, 3))
        if len(target) > 1:
            at = self.add(f"{name}_shaped", Flatten(target), [at])
        self.edges.append(Edge(at, end))


nets = st.randoms(use_true_random=False).map(Odd)
CHOICES = [Options(), Options("cache"), Options(multiplicity="graded")]


@given(nets, st.sampled_from(CHOICES))
def test_every_count_is_that_of_the_matrices(net: Odd, options: Options) -> None:
    expected = Matrices(net.graph, net.stimulus, net.spikes).columns(options)
    assert_counted(count(net.graph, net.stimulus, Trace(net.spikes), options), expected)
    bare = skeleton(net.graph)
    assert_counted(count(bare, net.stimulus, Trace(net.spikes), options), expected)


def seeds() -> Iterator[Odd]:
    for seed in range(150):
        yield Odd(Random(seed))


def test_plain_seeds_meet_what_they_are_made_for() -> None:
    met: set[str] = set()
    for net in seeds():
        for name, op in net.graph.nodes.items():
            match op:
                case Conv():
                    parts = ("grouped", op.groups > 1), ("strided", max(op.stride) > 1), ("padded", max(op.padding) > 0)
                    more = ("dilated", max(op.dilation) > 1), ("transposed", max(op.spread, default=1) > 1)
                    met.add(" ".join(word for word, there in (*parts, *more) if there))
                    met |= {"zero weights"} if not np.any(real(op.weight)) else set()
                case Pool():
                    sources = [net.graph.nodes[edge.source] for edge in net.graph.into(name)]
                    met |= {f"{op.kind} of {type(one.signal).__name__}" for one in sources if isinstance(one, Input)}
                    met |= {f"{op.kind} of {one.kind}" for one in sources if isinstance(one, Pool)}
                case Readout():
                    met.add(f"{len(net.graph.names(Readout))} read-outs")
        met |= {f"{len(net.graph.names(Input))} inputs", f"{net.steps} steps"}
        met |= {"feedback"} if any(name.startswith("back") for name in net.graph.nodes) else set()
        met |= {"silent"} if net.spikes and not any(spikes.any() for spikes in net.spikes.values()) else set()
    wanted = {"grouped strided padded dilated transposed", "grouped strided padded dilated", "zero weights", "silent"}
    wanted |= {"feedback", "1 steps", "3 inputs", "2 read-outs", "max of max", "max of sum", "sum of max"}
    wanted |= {f"{kind} of {signal}" for kind in ("max", "sum", "mean") for signal in ("Count", "Signed")}
    assert met >= wanted, wanted - met


@pytest.mark.parametrize("options", CHOICES, ids=["plain", "cache", "graded"])
def test_every_count_of_plain_seeds_is_that_of_the_matrices(options: Options) -> None:
    for net in seeds():
        expected = Matrices(net.graph, net.stimulus, net.spikes).columns(options)
        assert_counted(count(net.graph, net.stimulus, Trace(net.spikes), options), expected)

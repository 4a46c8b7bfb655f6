"""Energy: exact counts of what recorded spikes cause, priced afterwards.

For a layer with weights, ``AC[sample, step] = sum over arriving events of the synapses that each one reaches``: one
accumulate for each unit event and synapse inside the borders. Where anything but events arrives, every synapse
multiplies at every step: MAC. The declared signal decides which, values only check it (TET counts likewise, from mean
rates; here every spike is followed). Counts are int64, per layer, sample and step; joules are derived at the end. What
is counted how stands in ``CONVENTIONS`` and goes into every report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_counts import Plan, Sent, Way, counted
from snncompile.errors import GraphError
from snncompile.fixed import Integers, Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Output,
    Pool,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    kind,
)
from snncompile.ir.text import arrays, to_text
from snncompile.run.steps import check_stimulus
from snncompile.run.trace import Trace
from snncompile.target import CostModel

Array = NDArray[Any]
Column = Literal[
    "ac",  # additions that events cause, one a synapse inside the borders: the headline
    "ac_nonzero_weight",  # of these, the ones at synapses whose weight is not zero
    "mac",  # multiplications with additions, where numbers meet weights: the headline
    "one_to_one",  # additions without weights: identity skips, one-to-one synapses
    "pool_adds",  # additions of pools that are not folded into the weights behind them
    "neuron_updates",  # neurons times steps
    "bias_adds",  # neurons with a bias times steps
    "readout_adds",  # accumulations of read-outs
    "spikes_in",  # events that arrive, whatever they reach
    "spikes_out",  # spikes of a population
]
CONVENTIONS: Mapping[str, str] = MappingProxyType(
    {
        "schema": "snncompile.conventions/1",
        "operation": "the declared signal decides: events cause AC, analog and fixed signals MAC; values are checked",
        "multiplicity": "unary: a count of k is k events, sources that add are counted one by one",
        "synapses": "structural: every synapse inside the borders; ac_nonzero_weight leaves out weights of zero",
        "fan_out": "exact at borders, for stride, dilation, groups and kernels of any shape",
        "static_input": "recompute: the first layer meets its input anew at every step",
        "zero_skip": "no: a MAC is counted for an analog value of zero as well",
        "linear_ops": "pools, factors and flattens between events and weights are folded: events are followed through",
        "norm": "folded into the weights before it; one that cannot be folded is one MAC an element and step",
        "max_pool": "0 AC; its own spikes are the events of what follows",
        "delay": "an event counts at the step at which it is sent",
        "headline": "ac and mac; all other columns are counted and not priced",
        "ann": "every weighted layer once, all synapses inside the borders, MAC; of the network as trained where it is"
        " at hand (pools merged into larger kernels for a machine would flatter the spiking network)",
    }
)


@dataclass(frozen=True, eq=False)
class Layer:
    """One node's counts.

    ``signal`` says what arrives (``spike``, ``count``, ``analog``, ``analog + spike`` ...) and ``sources`` from where;
    ``sites`` are the elements of the sources (of a population: its neurons), ``synapses`` the structural ones, which is
    what one dense pass multiplies. ``columns``: int64 [samples, steps] each; a column that does not apply is absent.
    """

    name: str
    kind: str
    signal: str
    sources: tuple[str, ...]
    sites: int
    synapses: int
    columns: Mapping[Column, Integers]

    def total(self, column: Column) -> int:
        """The sum over samples and steps, 0 where the column does not apply."""
        return int(self.columns[column].sum()) if column in self.columns else 0

    @property
    def ac(self) -> Integers | None:
        """Structural accumulates [samples, steps]."""
        return self.columns.get("ac")

    @property
    def mac(self) -> Integers | None:
        """Multiply-accumulates [samples, steps]."""
        return self.columns.get("mac")


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of a run, layers and populations in the order of computation. ``stimulus``: a digest a sample."""

    layers: tuple[Layer, ...]
    samples: int
    steps: int
    weights: str
    stimulus: tuple[str, ...]

    def total(self, column: Column) -> int:
        """The sum over layers, samples and steps."""
        return sum(layer.total(column) for layer in self.layers)

    @property
    def ann_mac(self) -> int:
        """MACs of the same topology as an artificial network, one pass."""
        return sum(layer.synapses for layer in self.layers)

    @cached_property
    def stimulus_digest(self) -> str:
        """One digest for all samples in their order, however they were batched."""
        return hashlib.sha256("".join(self.stimulus).encode()).hexdigest()


class Counter:
    """Counts runs of one graph, of any level; batch by batch with ``concatenate``."""

    def __init__(self, graph: Graph) -> None:
        self._plan = Plan(graph)
        self._weights = weights_digest(graph)

    def count(self, stimulus: Mapping[str, Array], trace: Trace) -> Counts:
        """What the spikes of a run cause; ``stimulus`` [samples, steps, *shape] and the ``trace`` it left.

        Raises ``GraphError`` where an input carries what it does not declare, where the trace lacks a population, or
        where an op cannot be counted.
        """
        graph = self._plan.graph
        samples, steps = check_stimulus(graph, stimulus)
        run = _Run(self._plan, Sent(graph, stimulus, trace), samples, steps)
        layers = []
        for name in graph.order:
            match graph.nodes[name]:
                case Dense() | Conv():
                    layers.append(run.weights(name))
                case Norm() if name in self._plan.standing:
                    layers.append(run.norm(name))
                case Pool() as op:
                    layers.append(run.pool(name, op))
                case Neuron() | Readout() as op:
                    layers.append(run.population(name, op))
                case Norm() | Input() | Output() | Flatten() | Scale():
                    pass  # inputs and outputs compute nothing; the others are folded, and events followed through
                case SigmaDelta() | Resonator():
                    pass  # the plan refuses them
                case _ as never:
                    assert_never(never)
        return Counts(tuple(layers), samples, steps, self._weights, _sample_digests(stimulus, samples))


def count(graph: Graph, stimulus: Mapping[str, Array], trace: Trace) -> Counts:
    """``Counter(graph).count(stimulus, trace)``: one run of one graph."""
    return Counter(graph).count(stimulus, trace)


def dense_macs(graph: Graph) -> int:
    """MACs of a network's weighted layers, each run once with every input present: the artificial network's price."""
    plan = Plan(graph)
    return sum(plan.synapses[name] for name in graph.names(Dense, Conv))


def concatenate(parts: Sequence[Counts]) -> Counts:
    """The counts of all samples from counts of batches of them, which must be of one graph and number of steps."""
    first = parts[0]
    for part in parts:
        if (part.weights, part.steps) != (first.weights, first.steps):
            raise GraphError("counts of different networks or steps do not add", where="energy")
    layers = tuple(
        replace(
            layer,
            columns={key: np.concatenate([part.layers[index].columns[key] for part in parts]) for key in layer.columns},
        )
        for index, layer in enumerate(first.layers)
    )
    stimulus = tuple(digest for part in parts for digest in part.stimulus)
    return Counts(layers, sum(part.samples for part in parts), first.steps, first.weights, stimulus)


def weights_digest(graph: Graph) -> str:
    """SHA-256 of the graph as text and of every array in it."""
    content = hashlib.sha256(to_text(graph).encode())
    for key, array in sorted(arrays(graph).items()):
        content.update(key.encode() + np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _sample_digests(stimulus: Mapping[str, Array], samples: int) -> tuple[str, ...]:
    found = []
    for sample in range(samples):
        content = hashlib.sha256()
        for name in sorted(stimulus):
            values = np.ascontiguousarray(stimulus[name][sample])
            content.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
        found.append(content.hexdigest())
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Run:
    """What every count of one run needs."""

    plan: Plan
    sent: Sent
    samples: int
    steps: int

    def layer(self, name: str, synapses: int, columns: dict[Column, Integers], sites: int | None = None) -> Layer:
        sources = tuple(dict.fromkeys(way.source for way in self.plan.ways[name]))
        signal = " + ".join(dict.fromkeys(self.signal(source) for source in sources))
        if sites is None:
            sites = sum(prod(self.plan.extent[source]) for source in sources)
        return Layer(name, kind(self.plan.graph.nodes[name]), signal, sources, sites, synapses, columns)

    def signal(self, source: str) -> str:
        """What a source sends, in a word."""
        op = self.plan.graph.nodes[source]
        if isinstance(op, Input):
            return type(op.signal).__name__.lower()
        return "analog" if self.sent.events(source) is None else "spike"

    def every_step(self, number: int) -> Integers:
        """The same number at every sample and step."""
        return np.full((self.samples, self.steps), number, dtype=np.int64)

    def only_events(self, name: str) -> bool:
        """Whether nothing but events arrives at a node."""
        return all(self.sent.events(way.source) is not None for way in self.plan.ways[name])

    def along(self, some: Iterable[Way]) -> Integers:
        """What the events of these ways reach: [2, samples, steps]. Ways of numbers reach nothing here."""
        total = np.zeros((2, self.samples, self.steps), dtype=np.int64)
        for way in some:
            events = self.sent.events(way.source)
            if events is not None:
                total += counted(events, way.fan_out)
        return total

    def spikes(self, sources: set[str]) -> Integers:
        """Events of sources, each source once."""
        total = np.zeros((self.samples, self.steps), dtype=np.int64)
        for source in sources:
            events = self.sent.events(source)
            assert events is not None
            total += np.abs(events.reshape(self.samples, self.steps, -1)).sum(axis=2, dtype=np.int64)
        return total

    def weights(self, name: str) -> Layer:
        """Events: AC along every way. Anything else: every synapse at every step."""
        structural, found = self.plan.synapses[name], self.plan.ways[name]
        if not self.only_events(name):
            return self.layer(name, structural, {"mac": self.every_step(structural)})
        every, present = self.along(found)
        spikes = self.spikes({way.source for way in found})
        return self.layer(name, structural, {"ac": every, "ac_nonzero_weight": present, "spikes_in": spikes})

    def norm(self, name: str) -> Layer:
        """A norm with no weights before it to fold into: one MAC an element."""
        return self.layer(name, 0, {"mac": self.every_step(prod(self.plan.extent[name]))})

    def pool(self, name: str, op: Pool) -> Layer:
        """Sums of numbers are additions of their own; sums of events are, where a population takes them as they are."""
        if op.kind == "max":
            return self.layer(name, 0, {})
        if not self.only_events(name):
            return self.layer(name, 0, {"pool_adds": self.every_step(self.plan.synapses[name])})
        spikes = self.spikes({way.source for way in self.plan.ways[name]})
        return self.layer(name, 0, {"pool_adds": self.along(self.plan.through(name))[0], "spikes_in": spikes})

    def population(self, name: str, op: Neuron | Readout) -> Layer:
        """Updates, biases, and what arrives without having met weights or a pool."""
        size = prod(op.shape)
        bare = [way for way in self.plan.ways[name] if way.pool is None]
        direct = self.along(bare)[0]
        for way in bare:
            sender = self.plan.graph.nodes[way.source]
            if isinstance(sender, Input | Readout) and self.sent.events(way.source) is None:
                direct += int(way.fan_out[0].sum())  # a number for every neuron, every step
        columns: dict[Column, Integers] = {"one_to_one": direct, "bias_adds": self.every_step(self.plan.biased[name])}
        if isinstance(op, Neuron):
            columns |= {"neuron_updates": self.every_step(size), "spikes_out": self.spikes({name})}
        else:
            columns["readout_adds"] = self.every_step(size)
        return self.layer(name, 0, columns, size)


@dataclass(frozen=True)
class Price:
    """Energy in joules under one cost model: mean per sample by layer and in all, of each sample, and of the ANN.

    ``trained``: whether the ANN is the network that was trained, not the layers that were counted.
    """

    cost_model: CostModel
    layers: Mapping[str, float]
    total: float
    samples: Reals
    ann: float
    ann_mac: int
    trained: bool

    @property
    def ratio(self) -> float:
        """Energy of the spiking network over that of the artificial one: above 1, the artificial one wins."""
        return self.total / self.ann if self.ann else float("inf")


def price(counts: Counts, cost_model: CostModel, *, ann_mac: int | None = None) -> Price:
    """``(AC ac + MAC mac) pJ`` of structural accumulates and of multiply-accumulates; nothing else is priced.

    ``ann_mac``: what one pass of the trained network multiplies, ``dense_macs`` of its level ``read``; without it the
    layers that were counted stand in.
    """

    def joules(ac: int, mac: int) -> float:
        return (ac * cost_model.ac + mac * cost_model.mac) * 1e-12

    def mean(ac: int, mac: int) -> float:
        return joules(ac, mac) / counts.samples

    dense = counts.ann_mac if ann_mac is None else ann_mac
    nothing = np.zeros((counts.samples, counts.steps), dtype=np.int64)
    each: dict[Column, Integers] = {
        column: sum((layer.columns.get(column, nothing).sum(axis=1) for layer in counts.layers), nothing.sum(axis=1))
        for column in ("ac", "mac")
    }
    return Price(
        cost_model,
        {layer.name: mean(layer.total("ac"), layer.total("mac")) for layer in counts.layers},
        mean(counts.total("ac"), counts.total("mac")),
        np.array([joules(int(ac), int(mac)) for ac, mac in zip(each["ac"], each["mac"], strict=True)]),
        joules(0, dense),
        dense,
        ann_mac is not None,
    )

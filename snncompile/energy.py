"""Energy: exact counts of what recorded spikes cause, priced afterwards.

For a layer with weights, ``AC[sample, step] = sum over arriving events of the synapses that each one reaches``: one
accumulate for each unit event and synapse inside the borders. Where anything but events arrives, every synapse
multiplies at every step: MAC. The declared signal decides which, values only check it (TET counts likewise, from mean
rates; here every spike is followed). Counts are int64, per layer, sample and step; joules are derived at the end. What
is counted how stands in ``CONVENTIONS`` and goes into every report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_counts import Sent, Way, arriving_shape, before, biased, counted, synapses, ways
from snncompile.errors import GraphError
from snncompile.fixed import Integers, Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Norm, Pool, Readout, Shape, kind
from snncompile.ir.shapes import shapes
from snncompile.ir.text import arrays, to_text
from snncompile.passes.fold_norm import fold_norm
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
        "ann": "every weighted layer once, all synapses inside the borders, MAC",
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


def count(graph: Graph, stimulus: Mapping[str, Array], trace: Trace) -> Counts:
    """Count what the spikes of a run cause. Any level; ``stimulus`` [samples, steps, *shape] and ``trace`` of that run.

    Raises ``GraphError`` where an input carries what it does not declare, where the trace lacks a population, or where
    an op cannot be counted.
    """
    samples, steps = check_stimulus(graph, stimulus)
    run = _Run(graph, shapes(graph), Sent(graph, stimulus, trace), biased(graph, shapes(graph)), samples, steps)
    standing = set(fold_norm(graph).graph.names(Norm))
    layers = []
    for name in graph.order:
        match graph.nodes[name]:
            case Dense() | Conv() as op:
                layers.append(run.weights(name, op))
            case Norm() if name in standing:
                layers.append(run.norm(name))
            case Pool() as op:
                layers.append(run.pool(name, op))
            case Neuron() | Readout() as op:
                layers.append(run.population(name, op))
            case _:
                pass  # inputs and outputs compute nothing; flattens, factors and folded norms are followed through
    return Counts(tuple(layers), samples, steps, weights_digest(graph), _sample_digests(stimulus, samples))


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

    graph: Graph
    extent: Mapping[str, Shape]
    sent: Sent
    biased: Mapping[str, int]
    samples: int
    steps: int

    def every_step(self, number: int) -> Integers:
        """The same number at every sample and step."""
        return np.full((self.samples, self.steps), number, dtype=np.int64)

    def layer(
        self, name: str, arriving: list[Way], sites: int, synapses_: int, columns: dict[Column, Integers]
    ) -> Layer:
        sources = tuple(dict.fromkeys(way.source for way in arriving))
        signal = " + ".join(dict.fromkeys(self.signal(source) for source in sources))
        return Layer(name, kind(self.graph.nodes[name]), signal, sources, sites, synapses_, columns)

    def signal(self, source: str) -> str:
        """What a source sends, in a word."""
        op = self.graph.nodes[source]
        if isinstance(op, Input):
            return type(op.signal).__name__.lower()
        return "analog" if self.sent.events(source) is None else "spike"

    def arriving(self, name: str, fan_out: Integers) -> tuple[list[Way], int, bool]:
        """The ways into a node, the elements at their far ends, and whether only events come along them."""
        found = list(ways(self.graph, self.extent, name, fan_out))
        sources = {way.source for way in found}
        sites = sum(prod(self.extent[source]) for source in sources)
        return found, sites, all(self.sent.events(source) is not None for source in sources)

    def weights(self, name: str, op: Dense | Conv) -> Layer:
        """Events: AC along every way. Anything else: every synapse at every step."""
        own = synapses(op, arriving_shape(self.graph, self.extent, name), self.extent[name])
        found, sites, events = self.arriving(name, own)
        structural = int(own[0].sum())
        if not events:
            return self.layer(name, found, sites, structural, {"mac": self.every_step(structural)})
        total = np.zeros((2, self.samples, self.steps), dtype=np.int64)
        for way in found:
            total += self.along(way)
        columns: dict[Column, Integers] = {"ac": total[0], "ac_nonzero_weight": total[1]}
        columns["spikes_in"] = self.spikes({way.source for way in found})
        return self.layer(name, found, sites, structural, columns)

    def along(self, way: Way) -> Integers:
        """Synapses that the events of one way reach: [2, samples, steps]."""
        events = self.sent.events(way.source)
        assert events is not None
        return counted(events, way.fan_out)

    def spikes(self, sources: set[str]) -> Integers:
        """Events of sources, each source once."""
        total = np.zeros((self.samples, self.steps), dtype=np.int64)
        for source in sources:
            events = self.sent.events(source)
            assert events is not None
            total += np.abs(events.reshape(self.samples, self.steps, -1)).sum(axis=2, dtype=np.int64)
        return total

    def norm(self, name: str) -> Layer:
        """A norm with no weights before it to fold into: one MAC an element."""
        found, sites, _ = self.arriving(name, self.ones(name))
        return self.layer(name, found, sites, 0, {"mac": self.every_step(prod(self.extent[name]))})

    def ones(self, name: str) -> Integers:
        return np.ones((2, *self.extent[name]), dtype=np.int64)

    def pool(self, name: str, op: Pool) -> Layer:
        """Sums of numbers are additions of their own; sums of events are, where a population takes them as they are."""
        inside = before(op, self.ones(name), arriving_shape(self.graph, self.extent, name))
        found, sites, events = self.arriving(name, inside)
        if op.kind == "max":
            return self.layer(name, found, sites, 0, {})
        if not events:
            return self.layer(name, found, sites, 0, {"pool_adds": self.every_step(int(inside[0].sum()))})
        total = np.zeros((self.samples, self.steps), dtype=np.int64)
        for target in self.graph.names(Neuron, Readout):
            for way in ways(self.graph, self.extent, target, self.ones(target)):
                if way.pool == name and self.sent.events(way.source) is not None:
                    total += self.along(way)[0]
        return self.layer(
            name, found, sites, 0, {"pool_adds": total, "spikes_in": self.spikes({w.source for w in found})}
        )

    def population(self, name: str, op: Neuron | Readout) -> Layer:
        """Updates, biases, and what arrives without having met weights."""
        size = prod(op.shape)
        direct = self.every_step(0)
        found = list(ways(self.graph, self.extent, name, self.ones(name)))
        for way in found:
            if way.pool is None and self.sent.events(way.source) is not None:
                direct += self.along(way)[0]
            elif way.pool is None and isinstance(self.graph.nodes[way.source], Input | Readout):
                direct += int(way.fan_out[0].sum())  # a number for every neuron, every step
        columns: dict[Column, Integers] = {"one_to_one": direct, "bias_adds": self.every_step(self.biased[name])}
        if isinstance(op, Neuron):
            columns |= {"neuron_updates": self.every_step(size), "spikes_out": self.spikes({name})}
        else:
            columns["readout_adds"] = self.every_step(size)
        return self.layer(name, found, size, 0, columns)


@dataclass(frozen=True)
class Price:
    """Energy in joules under one cost model: mean per sample by layer and in all, of each sample, and of the ANN."""

    cost_model: CostModel
    layers: Mapping[str, float]
    total: float
    samples: Reals
    ann: float

    @property
    def ratio(self) -> float:
        """Energy of the spiking network over that of the artificial one: above 1, the artificial one wins."""
        return self.total / self.ann if self.ann else float("inf")


def price(counts: Counts, cost_model: CostModel) -> Price:
    """``(AC ac + MAC mac) pJ`` of structural accumulates and of multiply-accumulates; nothing else is priced."""

    def joules(ac: int, mac: int) -> float:
        return (ac * cost_model.ac + mac * cost_model.mac) * 1e-12

    def mean(ac: int, mac: int) -> float:
        return joules(ac, mac) / counts.samples

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
        joules(0, counts.ann_mac),
    )

"""Energy: exact counts of what recorded spikes cause, priced afterwards.

For a layer with weights, ``AC[sample, step] = sum over arriving events of the synapses that each one reaches``: one
accumulate for each unit event and synapse inside the borders. Where anything but events arrives, every synapse
multiplies at every step: MAC. The declared signal decides which, values only check it (TET counts likewise, from mean
rates; here every spike is followed). Counts are int64, per layer, sample and step; joules are derived from the report
(``energy_prices``). What is counted how stands in ``energy_conventions`` and goes into every report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_conventions import Column, Options, Role
from snncompile.energy_counts import Plan, Sent, Way, counted
from snncompile.errors import GraphError
from snncompile.fixed import Integers
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

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Layer:
    """One node's counts.

    ``signal`` says what arrives (``spike``, ``count``, ``analog``, ``analog + spike`` ...) and ``sources`` from where;
    ``sites`` are the elements of the sources (of a population: its neurons), ``size`` the elements it sends,
    ``synapses`` the structural ones, which is what one dense pass multiplies, ``taps`` the same with those that reach
    beyond the borders, ``parameters`` the stored weights and biases (``biased``: with any). ``columns``: int64
    [samples, steps] each; a column that does not apply is absent. ``fired``: how often each neuron fired over all
    samples and steps, of neurons only.
    """

    name: str
    kind: str
    signal: str
    sources: tuple[str, ...]
    sites: int
    synapses: int
    columns: Mapping[Column, Integers]
    role: Role = "network"
    size: int = 0
    taps: int = 0
    parameters: int = 0
    biased: bool = False
    fired: Integers | None = None

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
    options: Options = field(default_factory=Options)

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

    def __init__(self, graph: Graph, options: Options | None = None) -> None:
        self._plan, self._options = Plan(graph), options or Options()
        self._weights = weights_digest(graph)

    def count(self, stimulus: Mapping[str, Array], trace: Trace) -> Counts:
        """What the spikes of a run cause; ``stimulus`` [samples, steps, *shape] and the ``trace`` it left.

        Raises ``GraphError`` where an input carries what it does not declare, where the trace lacks a population, or
        where an op cannot be counted.
        """
        graph = self._plan.graph
        samples, steps = check_stimulus(graph, stimulus)
        run = _Run(self._plan, Sent(graph, stimulus, trace), samples, steps, self._options, stimulus)
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
        digests = _sample_digests(stimulus, samples)
        return Counts(tuple(layers), samples, steps, self._weights, digests, self._options)


def count(graph: Graph, stimulus: Mapping[str, Array], trace: Trace, options: Options | None = None) -> Counts:
    """``Counter(graph, options).count(stimulus, trace)``: one run of one graph."""
    return Counter(graph, options).count(stimulus, trace)


def dense_layers(graph: Graph) -> list[dict[str, Any]]:
    """A network's weighted layers as an artificial network runs them: once, every input present."""
    plan, found = Plan(graph), []
    for name in graph.names(Dense, Conv):
        size, _, parameters, _ = plan.sizes(name)
        sites = sum(prod(plan.extent[source]) for source in dict.fromkeys(way.source for way in plan.ways[name]))
        outside = all(isinstance(graph.nodes[way.source], Input) for way in plan.ways[name])
        entry = {"name": name, "mac": plan.synapses[name], "sites": sites, "size": size, "parameters": parameters}
        found.append({**entry, "reads_input": outside})
    return found


def dense_macs(graph: Graph) -> int:
    """MACs of a network's weighted layers, each run once with every input present: the artificial network's price."""
    plan = Plan(graph)
    return sum(plan.synapses[name] for name in graph.names(Dense, Conv))


def concatenate(parts: Sequence[Counts]) -> Counts:
    """The counts of all samples from counts of batches of them, which must be of one graph and number of steps."""
    first = parts[0]
    for part in parts:
        if (part.weights, part.steps, part.options) != (first.weights, first.steps, first.options):
            raise GraphError("counts of different networks, steps or conventions do not add", where="energy")
    layers = tuple(
        replace(
            layer,
            columns={key: np.concatenate([part.layers[index].columns[key] for part in parts]) for key in layer.columns},
            fired=_added([part.layers[index].fired for part in parts]),
        )
        for index, layer in enumerate(first.layers)
    )
    stimulus = tuple(digest for part in parts for digest in part.stimulus)
    return replace(first, layers=layers, samples=sum(part.samples for part in parts), stimulus=stimulus)


def _added(parts: Sequence[Integers | None]) -> Integers | None:
    known = [part for part in parts if part is not None]
    return np.sum(known, axis=0, dtype=np.int64) if known else None


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
    options: Options
    stimulus: Mapping[str, Array]

    def layer(self, name: str, synapses: int, columns: dict[Column, Integers], sites: int | None = None) -> Layer:
        sources = tuple(dict.fromkeys(way.source for way in self.plan.ways[name]))
        signal = " + ".join(dict.fromkeys(self.signal(source) for source in sources))
        if sites is None:
            sites = sum(prod(self.plan.extent[source]) for source in sources)
        op, role = self.plan.graph.nodes[name], self.plan.roles.get(name, "network")
        return Layer(name, kind(op), signal, sources, sites, synapses, columns, role, *self.plan.sizes(name))

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

    def numbers(self, name: str) -> tuple[Integers, Integers] | None:
        """What the non-zero values of an input reach, [2, samples, steps], and whether they changed: [samples, steps].

        None where anything but one input arrives, or through a pool: those values are not recorded.
        """
        way, *more = self.plan.ways[name]
        if more or way.pool is not None or way.source not in self.stimulus:
            return None
        values = self.stimulus[way.source]
        flat = values.reshape(self.samples, self.steps, -1)
        changed = np.ones((self.samples, self.steps), dtype=np.int64)
        changed[:, 1:] = (flat[:, 1:] != flat[:, :-1]).any(axis=2)
        return counted(values != 0, way.fan_out), changed

    def spikes(self, sources: set[str]) -> Integers:
        """Events of sources, each source once."""
        total = np.zeros((self.samples, self.steps), dtype=np.int64)
        for source in sources:
            events = self.sent.events(source)
            assert events is not None
            flat = events.reshape(self.samples, self.steps, -1)
            total += (
                np.count_nonzero(flat, axis=2) if flat.dtype == np.bool_ else np.abs(flat).sum(axis=2, dtype=np.int64)
            )
        return total

    def weights(self, name: str) -> Layer:
        """Events: AC along every way. Anything else: every synapse at every step."""
        structural, found = self.plan.synapses[name], self.plan.ways[name]
        if not self.only_events(name):
            return self.layer(name, structural, self.products(name))
        if self.options.multiplicity == "graded":
            arriving = self.sent.arriving(name) != 0
            every, present = counted(arriving, self.plan.own[name])
            spikes = arriving.reshape(self.samples, self.steps, -1).sum(axis=2, dtype=np.int64)
        else:
            every, present = self.along(found)
            spikes = self.spikes({way.source for way in found})
        return self.layer(name, structural, {"ac": every, "ac_nonzero_weight": present, "spikes_in": spikes})

    def products(self, name: str) -> dict[Column, Integers]:
        """Where numbers meet weights."""
        columns: dict[Column, Integers] = {"mac": self.every_step(self.plan.synapses[name])}
        known = self.numbers(name)
        if known is None and self.options.zero_skip:
            raise GraphError(
                "which of the numbers that arrive are zero is not recorded",
                where=self.plan.graph.label(name),
                remedy="count without zero_skip",
            )
        if known is not None:
            (every, present), changed = known
            columns["mac_nonzero"] = present
            if self.options.zero_skip:
                columns["mac"] = every
            if self.options.static_input == "cache":
                columns = {key: values * changed for key, values in columns.items()}
        return columns

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
        found = self.layer(name, 0, columns, size)
        return replace(found, fired=self.sent.fired(name)) if isinstance(op, Neuron) else found

"""What one layer of a run costs: a column of counts for every kind of operation, each int64 [samples, steps]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import assert_never

import numpy as np

from snncompile.energy_conventions import Column, Options, Role
from snncompile.energy_counts import Plan, Way, reach
from snncompile.energy_events import Events, FanOut
from snncompile.energy_reach import total
from snncompile.energy_sent import Sent
from snncompile.errors import GraphError
from snncompile.fixed import Integers
from snncompile.ir.ops import Input, Neuron, Pool, Readout, kind
from snncompile.run.bits import Bits, ones

Both = tuple[Integers, Integers]  # by every synapse, by those whose weight is not zero: [samples, steps] each


@dataclass(frozen=True)
class Fired:
    """Which neurons of a population fired ``ever`` and ``always``, over every step of every sample, packed."""

    neurons: int
    ever: Bits
    always: Bits

    def joined(self, other: Fired) -> Fired:
        """The same over the samples of both."""
        return Fired(self.neurons, self.ever | other.ever, self.always & other.always)

    @property
    def dead(self) -> int:
        """How many fired at no step of any sample."""
        return self.neurons - ones(self.ever)

    @property
    def saturated(self) -> int:
        """How many fired at every step of every sample."""
        return ones(self.always)


@dataclass(frozen=True, eq=False)
class Layer:
    """One node's counts.

    ``signal`` says what arrives (``spike``, ``count``, ``analog``, ``analog + spike`` ...) and ``sources`` from where;
    ``sites`` are the elements of the sources (of a population: its neurons), ``size`` the elements it sends,
    ``synapses`` the structural ones, which is what one dense pass multiplies, ``taps`` the same with those that reach
    beyond the borders, ``parameters`` the stored weights and biases (``biased``: with any). ``columns``: int64
    [samples, steps] each; a column that does not apply is absent. ``fired``: of neurons only.
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
    fired: Fired | None = None

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
class Run:
    """What every count of one run needs."""

    plan: Plan
    sent: Sent
    options: Options

    @property
    def samples(self) -> int:
        """How many samples were run."""
        return self.sent.samples

    @property
    def steps(self) -> int:
        """How many steps each of them took."""
        return self.sent.steps

    def layer(self, name: str, synapses: int, columns: dict[Column, Integers], fired: Fired | None = None) -> Layer:
        """The counts of a node beside what is known of it."""
        op, sources = self.plan.graph.nodes[name], self.plan.sources[name]
        signal = " + ".join(dict.fromkeys(self.signal(source) for source in sources))
        role, sizes = self.plan.roles.get(name, "network"), self.plan.sizes[name]
        sites = sizes[0] if isinstance(op, Neuron | Readout) else self.plan.sites[name]
        return Layer(name, kind(op), signal, sources, sites, synapses, columns, role, *sizes, fired)

    def signal(self, source: str) -> str:
        """What a source sends, in a word."""
        op = self.plan.graph.nodes[source]
        if isinstance(op, Input):
            return type(op.signal).__name__.lower()
        return "spike" if self.sent.sends_events(source) else "analog"

    def every_step(self, number: int) -> Integers:
        """The same number at every sample and step."""
        return np.full((self.samples, self.steps), number, dtype=np.int64)

    def only_events(self, name: str) -> bool:
        """Whether nothing but events arrives at a node."""
        return all(self.sent.sends_events(way.source) for way in self.plan.ways[name])

    def along(self, some: Iterable[Way]) -> Both:
        """What the events of these ways reach. Ways of numbers reach nothing here."""
        found = [_both(events, way.reach) for way in some if (events := self.sent.events(way.source)) is not None]
        if not found:
            return (self.every_step(0),) * 2
        return _sum([every for every, _ in found]), _sum([present for _, present in found])

    def numbers(self, name: str) -> Both | None:
        """What the non-zero values of the input that arrives reach.

        None where anything but one input arrives, or through a pool: those values are not recorded.
        """
        way, *more = self.plan.ways[name]
        if more or way.pool is not None or not self.is_input(way.source):
            return None
        return _both(self.sent.nonzero(way.source), way.reach)

    def spikes(self, sources: Iterable[str]) -> Integers:
        """Events of sources, each source once."""
        found = [events.number for source in sources if (events := self.sent.events(source)) is not None]
        return _sum(found) if found else self.every_step(0)

    def weights(self, name: str) -> Layer:
        """Events: AC along every way. Anything else: every synapse at every step."""
        structural = self.plan.synapses[name]
        if not self.only_events(name):
            return self.layer(name, structural, self.products(name))
        if self.options.multiplicity == "graded":
            met = self.sent.present(name)
            arriving = Events(met)
            every, present = _both(arriving, reach(self.plan.own[name], met.shape[2:]))
            spikes = arriving.number
        else:
            every, present = self.along(self.plan.ways[name])
            spikes = self.spikes(self.plan.sources[name])
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
            every, columns["mac_nonzero"] = known
            if self.options.zero_skip:
                columns["mac"] = every
        sources = self.plan.sources[name]
        if self.options.static_input == "cache" and all(self.is_input(source) for source in sources):
            changed = reduce(np.maximum, [self.sent.changed(source) for source in sources])
            columns = {key: values * changed for key, values in columns.items()}
        return columns

    def is_input(self, source: str) -> bool:
        """Whether a source is what the outside gives."""
        return isinstance(self.plan.graph.nodes[source], Input)

    def norm(self, name: str) -> Layer:
        """A norm with no weights before it to fold into: one MAC an element."""
        return self.layer(name, 0, {"mac": self.every_step(prod(self.plan.extent[name]))})

    def pool(self, name: str, op: Pool) -> Layer:
        """Sums of numbers are additions of their own; sums of events are, where a population takes them as they are."""
        if op.kind == "max":
            return self.layer(name, 0, {})
        if not self.only_events(name):
            return self.layer(name, 0, {"pool_adds": self.every_step(self.plan.synapses[name])})
        spikes = self.spikes(self.plan.sources[name])
        return self.layer(name, 0, {"pool_adds": self.along(self.plan.through(name))[0], "spikes_in": spikes})

    def population(self, name: str, op: Neuron | Readout) -> Layer:
        """Updates, biases, and what arrives without having met weights or a pool."""
        size = prod(op.shape)
        bare = [way for way in self.plan.ways[name] if way.pool is None]
        direct = self.along(bare)[0]
        for way in bare:
            sender = self.plan.graph.nodes[way.source]
            if isinstance(sender, Input | Readout) and self.sent.events(way.source) is None:
                direct = direct + total(way.fan_out[0], way.shape)  # a number for every neuron, every step
        columns: dict[Column, Integers] = {"one_to_one": direct, "bias_adds": self.every_step(self.plan.biased[name])}
        match op:
            case Neuron():
                events = self.sent.events(name)
                assert events is not None
                columns |= {"neuron_updates": self.every_step(size), "spikes_out": events.number}
                return self.layer(name, 0, columns, Fired(size, events.ever, events.always))
            case Readout():
                columns["readout_adds"] = self.every_step(size * _accumulations(op))
                return self.layer(name, 0, columns)
            case _ as never:
                assert_never(never)


def _both(events: Events, reach: tuple[FanOut, FanOut]) -> Both:
    """What events reach, by every synapse and by those that are not zero."""
    every, present = reach
    whole = events.reached(every)
    return whole, whole if present is every else events.reached(present)


def _sum(parts: list[Integers]) -> Integers:
    """The sum of columns; a single one is itself."""
    return reduce(np.add, parts)


def _accumulations(op: Readout) -> int:
    """Additions into a read-out, an element and step. Every kind writes its accumulator at every step."""
    match op.kind:
        case "sum" | "mean" | "weighted" | "last":
            return 1
        case "partial":  # it sends its sum on and keeps nothing
            return 0
        case _ as never:
            assert_never(never)

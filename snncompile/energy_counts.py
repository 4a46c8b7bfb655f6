"""Where events meet synapses: what reaches an op, and through how many synapses each event goes. Exact, in int64.

The fan-out of an element is how many synapses it feeds: the adjoint of the op's structure, its weights replaced by
ones, applied to ones. So it is exact at the borders and for any stride, dilation, group and kernel. Maps are arrays
``[2, *shape]``: row 0 counts every synapse (structural), row 1 those whose weight is not zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_conventions import Role
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
    Op,
    Pool,
    Readout,
    Resonator,
    Scale,
    Shape,
    SigmaDelta,
    real,
)
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Analog, Count, Fixed, Signed, Spike, is_event
from snncompile.passes.fold_norm import standing
from snncompile.run import linear
from snncompile.run.reference import apply_linear
from snncompile.run.trace import Trace

Array = NDArray[Any]
CHUNK_NUMBERS = 1 << 20  # spikes become numbers this many at a time
EXACT = 1 << 53  # below it every whole number is a float64

Linear = Flatten | Pool | Scale  # what has no weights of its own: events pass through


@dataclass(frozen=True)
class Way:
    """A way from ``source`` to where counting began: ``fan_out`` [2, *shape of the source], and the ``pool`` on it
    that is nearest to its end.
    """

    source: str
    fan_out: Integers
    pool: str | None


def arriving_shape(graph: Graph, extent: Mapping[str, Shape], name: str) -> Shape:
    """The shape of what arrives at a node."""
    return extent[graph.into(name)[0].source]


def synapses(op: Dense | Conv, arriving: Shape, out: Shape) -> Integers:
    """The synapses of each arriving element: [2, *arriving]."""
    present = np.stack([np.ones(op.weight.shape, dtype=bool), real(op.weight) != 0])
    if isinstance(op, Dense):
        return np.asarray(present.sum(axis=1, dtype=np.int64).reshape(2, *arriving))
    outward, inward, *kernel = op.weight.shape
    # all output channels of a group reach the same places: one channel a group, each tap counting its synapses
    taps = present.reshape(2, op.groups, outward // op.groups, inward, *kernel).sum(axis=2, dtype=np.int64)
    ones = np.ones((1, op.groups, *out[1:]), dtype=np.int64)
    geometry = op.stride, op.padding, op.dilation, op.groups, op.spread
    maps = [linear.conv_adjoint(ones, row, arriving[1:], *geometry) for row in taps]
    return np.concatenate(maps)


def before(op: Linear, fan_out: Integers, arriving: Shape) -> Integers:
    """The map before an op without weights, from the map [2, *out] behind it."""
    match op:
        case Flatten():
            return fan_out.reshape(2, *arriving)
        case Scale():
            present = np.stack([np.ones(arriving, dtype=bool), np.broadcast_to(real(op.factor) != 0, arriving)])
            return np.asarray(fan_out * present)
        case Pool():
            planes = fan_out.reshape(-1, 1, *fan_out.shape[2:])
            ones = np.ones((1, 1, *op.kernel), dtype=np.int64)
            spread = linear.conv_adjoint(planes, ones, arriving[1:], op.stride, op.padding, (1,) * len(op.kernel), 1)
            return np.asarray(spread.reshape(2, *arriving))


def passes_events(op: Op) -> bool:
    """Whether an event that enters an op is followed to what comes behind it."""
    return isinstance(op, Flatten | Scale) or (isinstance(op, Pool) and op.kind != "max")


def ways(
    graph: Graph, extent: Mapping[str, Shape], name: str, fan_out: Integers, pool: str | None = None
) -> Iterator[Way]:
    """Every way into a node, back to what sends: a population, a maximum, weights or a norm."""
    for edge in graph.into(name):
        op = graph.nodes[edge.source]
        if isinstance(op, Flatten | Pool | Scale) and passes_events(op):
            passed = before(op, fan_out, arriving_shape(graph, extent, edge.source))
            nearest = pool or (edge.source if isinstance(op, Pool) else None)
            yield from ways(graph, extent, edge.source, passed, nearest)
        else:
            yield Way(edge.source, fan_out, pool)


class Plan:
    """What counting needs to know of a graph, once for all runs: every way events can take, and their fan-outs.

    ``ways``: into weights (fan-outs over their synapses), norms, pools and populations; ``synapses``: what weights or a
    pool read inside the borders; ``own``: of weights, the fan-out of what arrives at them; ``biased``: neurons with a
    bias; ``standing``: norms that no weights take over; ``roles``: of nodes that are not simply the network.
    """

    def __init__(self, graph: Graph) -> None:
        for name in graph.names(SigmaDelta, Resonator):
            raise GraphError("its operations are not counted", where=graph.label(name), why="LIF neurons are")
        self.graph, self.extent = graph, shapes(graph)
        self.standing = standing(graph)
        self.biased = biased(graph, self.extent)
        self.ways: dict[str, tuple[Way, ...]] = {}
        self.synapses: dict[str, int] = {}
        self.own: dict[str, Integers] = {}
        for name in graph.names(Dense, Conv, Norm, Pool, Neuron, Readout):
            op, ones = graph.nodes[name], np.ones((2, *self.extent[name]), dtype=np.int64)
            match op:
                case Dense() | Conv():
                    fan_out = self.own[name] = synapses(op, arriving_shape(graph, self.extent, name), self.extent[name])
                    fan_out[0] //= self.addends(name)  # only one of the neurons of a number reads each source
                case Pool():
                    fan_out = before(op, ones, arriving_shape(graph, self.extent, name))
                case _:
                    fan_out = ones
            self.synapses[name] = int(fan_out[0].sum())
            self.ways[name] = tuple(ways(graph, self.extent, name, fan_out))
        self.roles = dict(_roles(self))

    def addends(self, name: str) -> int:
        """How many neurons a number has in the read-out behind weights; 1 elsewhere."""
        behind = [self.graph.nodes[edge.target] for edge in self.graph.out_of(name)]
        return max((op.addends for op in behind if isinstance(op, Readout)), default=1)

    def sizes(self, name: str) -> tuple[int, int, int, bool]:
        """Elements that a node sends, its taps (synapses as if there were no borders), its stored parameters, and
        whether biases are among them.
        """
        op, size = self.graph.nodes[name], prod(self.extent[name])
        if not isinstance(op, Dense | Conv):
            return size, 0, 0, False
        biases = 0 if op.bias is None else real(op.bias).size
        stored, addends = prod(op.weight.shape), self.addends(name)
        return size, size * prod(op.weight.shape[1:]) // addends, stored // addends + biases, biases > 0

    def through(self, pool: str) -> Iterator[Way]:
        """The ways from a source over this pool to a population, without weights."""
        for target in self.graph.names(Neuron, Readout):
            yield from (way for way in self.ways[target] if way.pool == pool)


def _roles(plan: Plan) -> Iterator[tuple[str, Role]]:
    """Encoders, relays and read-outs, from what reaches what."""
    nodes = plan.graph.nodes

    def numbers(source: str) -> bool:
        op = nodes[source]
        return isinstance(op, Input) and not is_event(op.signal)

    encoders = {name for name in plan.graph.names(Dense, Conv) if any(numbers(way.source) for way in plan.ways[name])}
    for name in plan.graph.names(Dense, Conv, Neuron, Readout):
        sources = {way.source for way in plan.ways[name]}
        behind = {edge.target for edge in plan.graph.out_of(name)}
        if isinstance(nodes[name], Readout) or (behind and all(isinstance(nodes[one], Readout) for one in behind)):
            yield name, "readout"
        elif name in encoders or sources & encoders or (isinstance(nodes[name], Neuron) and any(map(numbers, sources))):
            yield name, "encoder"
        elif isinstance(nodes[name], Neuron) and sources and all(isinstance(nodes[one], Neuron) for one in sources):
            yield name, "network" if any(way.pool for way in plan.ways[name]) else "relay"


def counted(events: Array, fan_out: Integers) -> Integers:
    """``sum over elements of |events| * fan_out``: events [N, T, *shape] and a map [k, *shape] give [k, N, T].

    Exact: in float64, which is several times as fast, where no sum can leave its whole numbers; else in int64.
    """
    samples, steps = events.shape[:2]
    flat, table = events.reshape(samples * steps, -1), fan_out.reshape(len(fan_out), -1).T
    largest = 1 if events.dtype == np.bool_ else int(np.abs(events).max(initial=0))
    number = np.float64 if largest * int(fan_out.sum()) < EXACT else np.int64
    table = table.astype(number)
    total = np.empty((len(flat), len(fan_out)), dtype=np.int64)
    rows = max(1, CHUNK_NUMBERS // max(1, flat.shape[1]))
    for first in range(0, len(flat), rows):
        total[first : first + rows] = np.abs(flat[first : first + rows].astype(number)) @ table
    return np.ascontiguousarray(total.T).reshape(len(fan_out), samples, steps)


class Sent:
    """What every source of events sent: unit events [N, T, *shape] of inputs, neurons and maxima over them.

    Raises ``GraphError`` where an input carries what it does not declare, or the trace lacks a population.
    """

    def __init__(self, graph: Graph, stimulus: Mapping[str, Array], trace: Trace) -> None:
        self.graph = graph
        self.samples, self.steps = next(iter(stimulus.values())).shape[:2]
        self._known: dict[str, tuple[Array, float]] = {}
        for name in graph.names(Input):
            op = graph.nodes[name]
            assert isinstance(op, Input)
            values = _audited(graph.label(name), op, stimulus[name])
            if values is not None:
                self._known[name] = values
        for name in graph.names(Neuron):
            op = graph.nodes[name]
            assert isinstance(op, Neuron)
            self._known[name] = _recorded(graph, name, trace, (self.samples, self.steps)), op.amplitude

    def events(self, name: str) -> Array | None:
        """The events of a source; None where it sends something else."""
        op = self.graph.nodes[name]
        if isinstance(op, Pool) and op.kind == "max" and name not in self._known and self._all_events(name):
            values, unit = self._arriving(name)
            planes = values.reshape(-1, *values.shape[2:]).astype(np.int64)
            largest = linear.pool(planes, "max", op.kernel, op.stride, op.padding)
            self._known[name] = largest.reshape(self.samples, self.steps, *largest.shape[1:]), unit
        return self._known[name][0] if name in self._known else None

    def fired(self, name: str) -> Integers:
        """How often each neuron of a population fired: int64, its neurons in C order."""
        spikes = self._known[name][0]
        return np.asarray(spikes.reshape(self.samples * self.steps, -1).sum(axis=0, dtype=np.int64))

    def arriving(self, name: str) -> Array:
        """What arrives at a node, in events of one worth: [N, T, *shape]. Raises ``GraphError`` where worths differ."""
        return self._arriving(name)[0]

    def _all_events(self, name: str) -> bool:
        """Whether nothing but events arrives at a node."""
        return all(
            self._all_events(edge.source)
            if isinstance(self.graph.nodes[edge.source], Flatten | Pool | Scale)
            else edge.source in self._known
            for edge in self.graph.into(name)
        )

    def _arriving(self, name: str) -> tuple[Array, float]:
        """The sum of what arrives, in unit events, and what one is worth: only maxima need to know."""
        parts = [(self._late(*self._value(edge.source), edge.delay)) for edge in self.graph.into(name)]
        units = [unit for _, unit in parts]
        if not all(isclose(unit, units[0], rel_tol=1e-12) for unit in units):
            raise GraphError(
                f"events worth {units} meet",
                where=self.graph.label(name),
                why="their sum is no number of events",
                remedy="give the populations that it reads one amplitude",
            )
        return np.asarray(sum(values for values, _ in parts)), units[0]

    def _late(self, values: Array, unit: float, delay: int) -> tuple[Array, float]:
        late = np.zeros(values.shape, dtype=np.int64)
        late[:, delay:] = values[:, : max(0, self.steps - delay)]
        return late, unit

    def _value(self, name: str) -> tuple[Array, float]:
        """What a node on the way to a maximum sends, in events of one worth."""
        op = self.graph.nodes[name]
        if self.events(name) is not None:
            return self._known[name]
        values, unit = self._arriving(name)
        match op:
            case Flatten():
                return values.reshape(self.samples, self.steps, -1), unit
            case Pool():
                planes = values.reshape(-1, *values.shape[2:])
                total = linear.pool(planes, "sum", op.kernel, op.stride, op.padding)
                worth = unit / prod(op.kernel) if op.kind == "mean" else unit
                return total.reshape(self.samples, self.steps, *total.shape[1:]), worth
            case Scale() if np.unique(real(op.factor)).size == 1 and real(op.factor).flat[0] > 0:
                return values, unit * float(real(op.factor).flat[0])
            case _:
                raise GraphError(
                    "cannot be counted here",
                    where=self.graph.label(name),
                    why="only one positive factor for all keeps events events",
                )


def _audited(label: str, op: Input, values: Array) -> tuple[Array, float] | None:
    """An input's events, or None for numbers; ``GraphError`` where the values are not what the input declares."""
    signal = op.signal
    if not np.isfinite(values).all():
        raise GraphError("carries values that are not finite", where=label)
    match signal:
        case Analog():
            return None
        case Spike(amplitude):
            unit, least, most = amplitude, 0, 1
        case Count(most, amplitude):
            unit, least = amplitude, 0
        case Signed():
            unit, least, most = 1.0, -1, 1
        case Fixed():
            unit, least, most = 1.0, -signal.most if signal.signed else 0, signal.most
    numbers = np.rint(np.asarray(values, dtype=np.float64) / unit).astype(np.int64)
    # compared in the precision the values are given in: 0.1 as float32 is what it is
    wrong = ((numbers * unit).astype(values.dtype) != values) | (numbers < least) | (numbers > most)
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise GraphError(
            f"declares {signal} and carries {values[place].item()!r} (sample {place[0]}, step {place[1]},"
            f" element {list(place[2:])})",
            where=label,
            why="the declaration decides between AC and MAC",
            remedy="declare what it carries, or mend the data",
        )
    return (numbers, unit) if is_event(signal) else None


def _recorded(graph: Graph, name: str, trace: Trace, run: tuple[int, int]) -> Array:
    op, label = graph.nodes[name], graph.label(name)
    assert isinstance(op, Neuron)
    if name not in trace.spikes:
        raise GraphError("the trace holds no spikes of it", where=label, remedy="record every population")
    spikes = trace.spikes[name]
    if spikes.shape != (*run, *op.shape):
        raise GraphError(
            f"the trace holds spikes of shape {list(spikes.shape)}, the stimulus asks for {[*run, *op.shape]}",
            where=label,
            remedy="count with the stimulus that was run",
        )
    if spikes.dtype != np.bool_ and not np.isin(spikes, (0, 1)).all():
        raise GraphError("the trace holds something other than 0 and 1", where=label)
    return spikes


def biased(graph: Graph, extent: Mapping[str, Shape]) -> dict[str, int]:
    """How many neurons of each population have a bias: their own, or what linear ops send when nothing is sent."""
    known: dict[str, Reals] = {}

    def arriving(name: str) -> Reals:
        edges = graph.into(name)
        start = np.zeros((1, *(extent[edges[0].source] if edges else extent[name])))
        return np.asarray(sum((constant(edge.source) for edge in edges), start))

    def constant(name: str) -> Reals:
        if name not in known:
            if isinstance(graph.nodes[name], Input | Neuron | Readout):
                known[name] = np.zeros((1, *extent[name]))
            else:
                known[name] = apply_linear(graph, name, arriving(name))
        return known[name]

    found = {}
    for name in graph.names(Neuron, Readout):
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        gain = real(op.gain) if isinstance(op, Neuron) else 1.0
        found[name] = int(np.count_nonzero(gain * arriving(name)[0] + real(op.bias)))
    return found

"""Parameters to the target's integers. The one pass that loses anything; it says how much.

For a population with threshold theta, weights W and bias b, one ``unit`` (what an integer weight of 1 is worth)::

    W' = step round(W q / (unit step)), clipped to the sheet's range        q: what 1 of the source is worth
    threshold' = theta / unit, bias' = b / unit as mantissa 2^exponent, decays as mantissa / 2^bits

The unit is chosen by its spikes: the fewest that differ on calibration data, with the inputs and resets of the
unquantised network (teacher forcing), and where several have as few, by the error in the potential. So clipping a few
large weights can win over coarse steps for all. A read-out has no spikes, its error alone decides. Units for which a
current could leave the machine's range are no candidates; the worst case over all inputs decides that, not the data.

A read-out adds over a whole sample, so a wide one has room for few levels of its weights. Where that costs more than a
little, each of its numbers becomes the sum of several neurons (``Readout.addends``), each of which reads some channels
of every source; the sum is made outside the machine, and is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import FixedPoint, Reals, round_half_away
from snncompile.ir.connections import Connection, connections, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Op, Output, Readout, Scale, Synapse, real
from snncompile.ir.signals import Analog, Count, Fixed, Signal, Signed, Spike, grid
from snncompile.passes.quantise_integers import (
    Candidate,
    Incoming,
    integer_decays,
    integer_population,
    integer_weights,
)
from snncompile.passes.quantise_unit import addend_of, choose_unit, lasting, worst_addend
from snncompile.passes.quantise_view import Seen
from snncompile.run import reference
from snncompile.run.stimulus import encode as encode  # what an input of the quantised graph receives
from snncompile.run.trace import Array, Trace
from snncompile.target import Target


@dataclass(frozen=True)
class Range:
    """A quantity in weight units: its limit on the machine, and the worst case over all inputs (None: unbounded)."""

    limit: float
    worst: float | None

    @property
    def proven(self) -> bool:
        """Whether no input at all can leave the range."""
        return self.worst is not None and self.worst <= self.limit


@dataclass(frozen=True)
class Layer:
    """What quantisation did to one population, on calibration data.

    ``error``: root mean square in the potential, in thresholds; ``decay``: the larger error of alpha and beta;
    ``wrong`` of ``compared`` spikes differ from the unquantised network's, given its inputs and resets, and
    ``otherwise`` would with the scale of the least ``error``; ``addends``: neurons for each number of a read-out.
    """

    name: str
    unit: float
    threshold: int
    error: float
    clipped: int
    weights: int
    current: Range
    potential: Range
    decay: float = 0.0
    wrong: int = 0
    compared: int = 0
    otherwise: int = 0
    addends: int = 1


@dataclass(frozen=True)
class Quantised:
    """The graph in integers and what each population lost."""

    graph: Graph
    layers: tuple[Layer, ...]


def quantise(graph: Graph, target: Target, calibration: Mapping[str, Array], *, addends: bool = False) -> Quantised:
    """Quantise a legal graph; ``calibration``: input name -> reals [samples, steps, *shape]. ``addends``: read-outs may
    have several neurons a number.

    Raises ``NotRepresentable`` where no unit keeps a population inside the machine's widths.
    """
    run = _Run(graph, target, calibration, reference.run(graph, calibration), addends)
    coded = _coding(run)
    changed: dict[str, Op] = {}
    for name, signal in coded.items():
        op = graph.nodes[name]
        assert isinstance(op, Input)
        changed[name] = replace(op, signal=signal)
    layers = []
    for name in graph.names(Neuron, Readout):
        population = graph.nodes[name]
        assert isinstance(population, Neuron | Readout)
        incoming, best = run.choose(name, coded)
        for item in incoming:
            changed.update(dict.fromkeys(item.names, _integer_synapse(item, best, target)))
        changed[name] = _in_addends(integer_population(name, population, best, target), best.addends)
        layers.append(_layer(name, population, incoming, best, target, run.steps))
    return Quantised(graph.edit(changed), tuple(layers))


@dataclass(frozen=True, eq=False)
class _Run:
    """The unquantised network on calibration data: what every population receives and does."""

    graph: Graph
    target: Target
    calibration: Mapping[str, Array]
    trace: Trace
    addends: bool = False

    @property
    def steps(self) -> int:
        return int(next(iter(self.calibration.values())).shape[1])

    def choose(self, name: str, coded: Mapping[str, Signal]) -> tuple[list[Incoming], Candidate]:
        """What arrives at a population, and its unit."""
        population = self.graph.nodes[name]
        assert isinstance(population, Neuron | Readout)
        incoming = _joined([self._incoming(one, coded) for one in connections(self.graph) if one.target == name])
        spikes, potentials = self.trace.spikes.get(name), self.trace.potentials[name]
        seen = Seen(population, incoming, spikes, len(potentials), self.steps)
        several = self.addends and self._read_alone(name)
        return incoming, choose_unit(name, seen, self.target, potentials, addends=several)

    def _read_alone(self, name: str) -> bool:
        """Whether nothing but outputs reads a population, each of them nothing else: sums can be made behind it."""
        behind = [edge.target for edge in self.graph.out_of(name)]
        ends = all(isinstance(self.graph.nodes[one], Output) for one in behind)
        return ends and all(len(self.graph.into(one)) == 1 for one in behind)

    def _incoming(self, connection: Connection, coded: Mapping[str, Signal]) -> Incoming:
        signal = coded.get(connection.source, Spike())
        unit, least, most = grid(signal)
        if connection.source in coded:
            values = self.calibration[connection.source]
            exact = encode(signal, values)
        else:
            values = exact = self.trace.spikes[connection.source]
        synapse = synapse_of(self.graph, connection)
        return Incoming((connection.synapse,), synapse, unit, most, least < 0, values, exact, connection.delay)


def _joined(incoming: list[Incoming]) -> list[Incoming]:
    """Connections with equal weights as one that delivers the sum of what their sources send."""
    found: dict[tuple[object, ...], Incoming] = {}
    for item in incoming:
        op, weight = item.synapse, item.real_weight
        shape = (op.stride, op.padding, op.dilation, op.groups, op.spread) if isinstance(op, Conv) else ()
        content = sha256(weight.tobytes()).digest()
        alone = () if item.values is item.coded else item.names  # numbers that are rounded on their way
        key = type(op), shape, weight.shape, content, item.unit, item.delay, item.values.shape, item.signed, alone
        first = found.get(key)
        if first is None:
            found[key] = item
            continue
        total = first.values.astype(np.uint16) + item.values
        found[key] = replace(
            first, names=(*first.names, *item.names), most=first.most + item.most, values=total, coded=total
        )
    return list(found.values())


def _coding(run: _Run) -> dict[str, Signal]:
    """How the inputs reach the machine: the width that costs the populations that read them the fewest spikes, then
    the least error.

    A finer input leaves the weights less room in the sums, so the widest is not the best.
    """
    inputs = run.graph.names(Input)
    readers = sorted({one.target for one in connections(run.graph) if one.source in inputs})
    best: tuple[tuple[int, float], dict[str, Signal]] | None = None
    tried: list[dict[str, Signal]] = []
    refused: NotRepresentable | None = None
    for bits in range(run.target.spike.input_bits, 1, -1):
        coded = {name: _code(run.graph.nodes[name], run.calibration[name], bits) for name in inputs}
        if coded in tried:
            continue
        tried.append(coded)
        try:
            chosen = [run.choose(name, coded)[1] for name in readers]
        except NotRepresentable as reason:
            refused = refused or reason
            continue
        lost = sum(one.wrong for one in chosen), sum(one.error**2 for one in chosen)
        if best is None or lost < best[0]:
            best = lost, coded
        elif lost[1] > 4 * best[0][1]:
            break  # twice the best error, and coarser from here on
    if best is None:
        if refused is not None:
            raise refused
        return {name: _code(run.graph.nodes[name], run.calibration[name], 1) for name in inputs}
    return best[1]


def _code(op: Op, values: Array, bits: int) -> Signal:
    """How an input reaches the machine: spikes as they are, numbers as signed integers of at most ``bits`` bits."""
    assert isinstance(op, Input)
    match op.signal:
        case Spike() | Fixed() | Signed():
            return op.signal
        case Count(most, 1.0) if most.bit_length() < bits:
            return op.signal  # events stay events: what arrives at a weight is still counted as such
        case Analog() | Count():
            most = int(2 ** (bits - 1)) - 1
            largest = float(np.max(np.abs(values))) or 1.0
            levels = _exact_levels(np.unique(np.abs(values)) / largest, most)
            signed = bool(np.min(values, initial=0.0) < 0)
            return Fixed(int(levels).bit_length() + 1, largest / levels, signed)


def _exact_levels(values: Reals, most: int) -> int:
    """The smallest number of levels on which all ``values`` (0 to 1) lie; ``most`` where there is none."""
    if len(values) <= most + 1:
        for levels in range(1, most + 1):
            scaled = values * levels
            if np.abs(scaled - np.rint(scaled)).max() < 1e-6:
                return levels
    return most


def _integer_synapse(item: Incoming, best: Candidate, target: Target) -> Synapse:
    values = integer_weights(item, best.unit, target)
    if best.addends > 1:  # a row for each neuron, zeros where another neuron of the same number reads
        own = addend_of(item, best.addends)
        values = np.concatenate([np.where(own == index, values, 0.0) for index in range(best.addends)])
    weight = FixedPoint(values.astype(np.int64))
    match item.synapse:
        case Dense():
            return Dense(weight)
        case Conv() as op:
            return replace(op, weight=weight, bias=None)
        case Scale():
            return Scale(weight)


def _in_addends(op: Neuron | Readout, addends: int) -> Neuron | Readout:
    """A read-out with several neurons a number; the first of them has the bias."""
    if addends == 1 or isinstance(op, Neuron):
        return op
    assert isinstance(op.bias, FixedPoint)
    mantissa = np.zeros((addends * op.shape[0], *op.shape[1:]), dtype=np.int64)
    mantissa[: op.shape[0]] = op.bias.mantissa
    return replace(op, shape=mantissa.shape, bias=FixedPoint(mantissa, op.bias.exponent), addends=addends)


def unchanged(graph: Graph, target: Target, steps: int) -> tuple[Layer, ...]:
    """What ``quantise`` would say of a graph that was trained in the target's integers: nothing is lost, and how far
    its currents and potentials reach.
    """
    layers = []
    for name in graph.names(Neuron, Readout):
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        incoming = []
        for one in connections(graph):
            if one.target == name:
                source = graph.nodes[one.source]
                _, least, most = grid(source.signal if isinstance(source, Input) else Spike())
                nothing = np.zeros((0, steps))
                synapse = synapse_of(graph, one)
                incoming.append(Incoming((one.synapse,), synapse, 1.0, most, least < 0, nothing, nothing, one.delay))
        threshold = int(real(op.threshold).max()) if isinstance(op, Neuron) else target.threshold.most
        bias = op.bias if isinstance(op.bias, FixedPoint) else FixedPoint.number(0)
        made = _layer(name, op, incoming, Candidate(1.0, threshold, bias, 0.0), target, steps)
        layers.append(replace(made, unit=op.unit))
    return tuple(layers)


def _layer(
    name: str, op: Neuron | Readout, incoming: list[Incoming], best: Candidate, target: Target, steps: int
) -> Layer:
    weights = [integer_weights(item, best.unit, target) for item in incoming]
    largest = max(-target.weight.least, target.weight.most) + target.weight.step / 2
    clipped = sum(int(np.sum(np.abs(item.real_weight) * (item.unit / best.unit) > largest)) for item in incoming)
    arriving = sum(worst_addend(item, weight, best.addends) for item, weight in zip(incoming, weights, strict=True))
    limit = min(target.sum_most, 2 ** (target.current.bits - 1 - target.potential.fraction_bits) - 1)
    if isinstance(op, Readout):
        current, lasted = arriving, lasting(op, steps, target)
        decay = abs(op.decay - float(round_half_away(op.decay * 2.0**target.decay.bits)) / 2.0**target.decay.bits)
    else:
        alpha, beta = (mantissa / 2**target.decay.bits for mantissa in integer_decays(op, target))
        decay = max(float(np.abs(real(kept) - own).max()) for kept, own in ((op.alpha, alpha), (op.beta, beta)))
        current = arriving / alpha
        lasted = min(float(steps), 1 / beta) if beta else float(steps)
    potential = lasted * (current + float(np.abs(best.bias.real).max(initial=0.0)))
    if isinstance(op, Neuron):
        reset = op.reset.amount if isinstance(op.reset, By) else op.reset.value
        potential += sum(float(np.abs(real(value)).max()) / best.unit for value in (reset, op.initial))
    room = 2 ** (target.potential.bits - 1 - target.potential.fraction_bits) - 1
    return Layer(
        name,
        best.unit,
        best.threshold,
        best.error,
        clipped,
        sum(weight.size for weight in weights),
        Range(float(limit), float(current)),
        Range(float(room), float(potential)),
        decay,
        best.wrong,
        best.compared,
        best.otherwise,
        best.addends,
    )

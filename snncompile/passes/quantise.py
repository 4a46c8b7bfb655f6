"""Parameters to the target's integers. The one pass that loses anything; it says how much.

For a population with threshold theta, weights W and bias b, one ``unit`` (what an integer weight of 1 is worth)::

    W' = step round(W q / (unit step)), clipped to the sheet's range        q: what 1 of the source is worth
    threshold' = theta / unit, bias' = b / unit as mantissa 2^exponent, decays as mantissa / 2^bits

The unit is chosen by the error it makes in the potential on calibration data, with the inputs and resets of the
unquantised network (teacher forcing), so that clipping a few large weights can win over coarse steps for all. Units
for which a current could leave the machine's range are no candidates; the worst case over all inputs decides that,
not the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import FixedPoint, Integers, Reals, round_half_away
from snncompile.ir.connections import Connection, connections, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Op, Readout, Reset, Scale, Synapse, To, real
from snncompile.ir.signals import Analog, Count, Fixed, Signal, Signed, Spike, grid
from snncompile.passes.quantise_unit import (
    Candidate,
    Incoming,
    choose_unit,
    integer_decays,
    integer_potential,
    integer_weights,
    worst_sum,
)
from snncompile.run import reference
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
    """What quantisation did to one population. ``error``: root mean square in the potential, in thresholds;
    ``decay``: the larger error of alpha and beta.
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


@dataclass(frozen=True)
class Quantised:
    """The graph in integers and what each population lost."""

    graph: Graph
    layers: tuple[Layer, ...]


def quantise(graph: Graph, target: Target, calibration: Mapping[str, Array]) -> Quantised:
    """Quantise a legal graph; ``calibration``: input name -> reals [samples, steps, *shape].

    Raises ``NotRepresentable`` where no unit keeps a population inside the machine's widths.
    """
    run = _Run(graph, target, calibration, reference.run(graph, calibration))
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
            changed[item.name] = _integer_synapse(item, best.unit, target)
        changed[name] = _integer_population(name, population, best, target)
        layers.append(_layer(name, population, incoming, best, target, run.steps))
    return Quantised(graph.edit(changed), tuple(layers))


@dataclass(frozen=True, eq=False)
class _Run:
    """The unquantised network on calibration data: what every population receives and does."""

    graph: Graph
    target: Target
    calibration: Mapping[str, Array]
    trace: Trace

    @property
    def steps(self) -> int:
        return int(next(iter(self.calibration.values())).shape[1])

    def choose(self, name: str, coded: Mapping[str, Signal]) -> tuple[list[Incoming], Candidate]:
        """What arrives at a population, and its unit."""
        population = self.graph.nodes[name]
        assert isinstance(population, Neuron | Readout)
        incoming = [self._incoming(one, coded) for one in connections(self.graph) if one.target == name]
        spikes, potentials = self.trace.spikes.get(name), self.trace.potentials[name]
        return incoming, choose_unit(name, population, incoming, self.target, potentials, spikes, self.steps)

    def _incoming(self, connection: Connection, coded: Mapping[str, Signal]) -> Incoming:
        signal = coded.get(connection.source, Spike())
        unit, least, most = grid(signal)
        if connection.source in coded:
            values = self.calibration[connection.source]
        else:
            values = self.trace.spikes[connection.source].astype(np.float64)
        exact = encode(signal, values).astype(np.float64)
        synapse = synapse_of(self.graph, connection)
        return Incoming(connection.synapse, synapse, unit, most, least < 0, values, exact, connection.delay)


def _coding(run: _Run) -> dict[str, Signal]:
    """How the inputs reach the machine: the width that costs the populations that read them the least error.

    A finer input leaves the weights less room in the sums, so the widest is not the best.
    """
    inputs = run.graph.names(Input)
    readers = sorted({one.target for one in connections(run.graph) if one.source in inputs})
    best: tuple[float, dict[str, Signal]] | None = None
    tried: list[dict[str, Signal]] = []
    refused: NotRepresentable | None = None
    for bits in range(run.target.spike.input_bits, 1, -1):
        coded = {name: _code(run.graph.nodes[name], run.calibration[name], bits) for name in inputs}
        if coded in tried:
            continue
        tried.append(coded)
        try:
            error = sum(run.choose(name, coded)[1].error ** 2 for name in readers)
        except NotRepresentable as reason:
            refused = refused or reason
            continue
        if best is None or error < best[0]:
            best = error, coded
        elif error > 4 * best[0]:
            break  # twice the best error, and coarser from here on
    if best is None:
        if refused is not None:
            raise refused
        return {name: _code(run.graph.nodes[name], run.calibration[name], 1) for name in inputs}
    return best[1]


def encode(signal: Signal, values: Array) -> Integers:
    """What an input of the quantised graph receives for real ``values``: units of ``signal.unit``, clipped to its
    bits.
    """
    unit, least, most = grid(signal)
    return np.clip(round_half_away(np.asarray(values, dtype=np.float64) / unit), least, most)


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


def _integer_synapse(item: Incoming, unit: float, target: Target) -> Synapse:
    weight = FixedPoint(integer_weights(item, unit, target))
    match item.synapse:
        case Dense():
            return Dense(weight)
        case Conv() as op:
            return replace(op, weight=weight, bias=None)
        case Scale():
            return Scale(weight)


def _integer_population(name: str, op: Neuron | Readout, best: Candidate, target: Target) -> Neuron | Readout:
    bits = target.decay.bits
    if isinstance(op, Readout):
        kept = float(round_half_away(op.decay * 2.0**bits)) / 2.0**bits
        return replace(op, bias=best.bias, unit=best.unit, decay=kept)
    alpha, beta = integer_decays(op, target)
    if not 1 <= alpha <= 2**bits or not 0 <= beta < 2**bits:
        raise NotRepresentable(
            f"its decays {real(op.alpha)} and {real(op.beta)} have no form in {bits} bits",
            where=f"{name} (Neuron)",
            why=target.cite("decay.bits"),
        )
    return replace(
        op,
        alpha=FixedPoint.number(alpha, -bits),
        beta=FixedPoint.number(beta, -bits),
        threshold=FixedPoint.number(best.threshold),
        bias=best.bias,
        reset=_integer_reset(op.reset, best.unit, target),
        initial=integer_potential(op.initial, best.unit, target),
        unit=best.unit,
    )


def _integer_reset(reset: Reset, unit: float, target: Target) -> Reset:
    if isinstance(reset, By):
        return By(integer_potential(reset.amount, unit, target))
    return To(integer_potential(reset.value, unit, target))


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
                incoming.append(Incoming(one.synapse, synapse, 1.0, most, least < 0, nothing, nothing, one.delay))
        threshold = int(real(op.threshold).max()) if isinstance(op, Neuron) else target.threshold.most
        bias = op.bias if isinstance(op.bias, FixedPoint) else FixedPoint.number(0)
        made = _layer(name, op, incoming, Candidate(1.0, threshold, bias, 0.0), target, steps)
        layers.append(replace(made, unit=op.unit))
    return tuple(layers)


def _layer(
    name: str, op: Neuron | Readout, incoming: list[Incoming], best: Candidate, target: Target, steps: int
) -> Layer:
    weights = [integer_weights(item, best.unit, target) for item in incoming]
    clipped = sum(
        int(np.sum(np.abs(real_weight) > max(-target.weight.least, target.weight.most) + target.weight.step / 2))
        for real_weight in (item.real_weight * item.unit / best.unit for item in incoming)
    )
    arriving = sum(worst_sum(item, weight) for item, weight in zip(incoming, weights, strict=True))
    limit = min(target.sum_most, 2 ** (target.current.bits - 1 - target.potential.fraction_bits) - 1)
    if isinstance(op, Readout):
        current, lasting = arriving, min(float(steps), 1 / (1 - op.decay)) if op.decay < 1 else float(steps)
        decay = abs(op.decay - float(round_half_away(op.decay * 2.0**target.decay.bits)) / 2.0**target.decay.bits)
    else:
        alpha, beta = (mantissa / 2**target.decay.bits for mantissa in integer_decays(op, target))
        decay = max(float(np.abs(real(kept) - own).max()) for kept, own in ((op.alpha, alpha), (op.beta, beta)))
        current = arriving / alpha
        lasting = min(float(steps), 1 / beta) if beta else float(steps)
    potential = lasting * (current + float(np.abs(best.bias.real).max(initial=0.0)))
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
    )

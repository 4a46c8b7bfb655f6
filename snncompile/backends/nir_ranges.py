"""How far the integers of a network can reach in a sample: intervals for every signal, neuron by neuron.

A signal is bounded twice: what it is in one step, and what it adds up to over any first steps of a sample (what a
sum of changes sees: many changes of a bounded quantity do not add up to more than the quantity). With ``T`` steps,
``[l, h]`` what arrives, and ``g(k) = 1 + k + ... + k^(T-1)``::

    weights       W+ [l, h] + W- [h, l],   W+ and W- the positive and the negative part
    Input         once: what its signal declares;   summed: T of these
    Neuron        once [0, 1];  summed [0, T];  |u| <= g(1 - alpha) |x|,  |v| <= g(1 - beta) (|u| + |bias|) + |reset|
    SigmaDelta    a in max(0, summed + bias), or once + bias;  e, what was told, is 0 or an earlier a;
                  once (a - e) / 2^shift;  summed e / 2^shift, less 1 a step for what is rounded down
    Resonator     |z| <= g(rho) (|x| + 2 sqrt 2 units) + threshold max(1, rho^T),  rho^2 = cosine^2 + sine^2

Loops and delays: rounds over the graph, each of which hears the round before where an edge is late, until nothing
changes or as many rounds as steps are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from snncompile.errors import GraphError, NotRepresentable
from snncompile.fixed import Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Op,
    Output,
    Pool,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    real,
)
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import grid
from snncompile.run import linear
from snncompile.target import Target

BEYOND = 2.0**60
"""Where a loop has no range: nothing holds such integers."""


@dataclass(frozen=True, eq=False)
class Interval:
    """``low <= values <= high``, each of the shape of a signal."""

    low: Reals
    high: Reals

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Interval:
        return Interval(self.low * factor, self.high * factor)

    @property
    def most(self) -> float:
        """The largest magnitude."""
        return float(max(np.max(np.abs(self.low), initial=0.0), np.max(np.abs(self.high), initial=0.0)))

    @property
    def with_zero(self) -> Interval:
        return Interval(np.minimum(self.low, 0.0), np.maximum(self.high, 0.0))


@dataclass(frozen=True, eq=False)
class Reach:
    """A signal ``once``, in a step, and ``summed`` over the first steps of a sample."""

    once: Interval
    summed: Interval

    def __add__(self, other: Reach) -> Reach:
        return Reach(self.once + other.once, self.summed + other.summed)

    def equals(self, other: Reach) -> bool:
        pairs = ((self.once, other.once), (self.summed, other.summed))
        return all(np.array_equal(a.low, b.low) and np.array_equal(a.high, b.high) for a, b in pairs)


@dataclass(frozen=True)
class Ranges:
    """``arrives``: at every node with state; ``sent``: by every node. In weights times messages."""

    arrives: Mapping[str, Reach]
    sent: Mapping[str, Reach]

    def activation(self, name: str, op: SigmaDelta) -> Interval:
        """What a sigma-delta population tells changes of."""
        return _activation(op, self.arrives[name])


def ranges(graph: Graph, steps: int) -> Ranges:
    """The reach of every signal of a graph in integers in ``steps`` steps.

    Raises ``GraphError`` for analog inputs, ``NotRepresentable`` where a loop multiplies what it hears without an end.
    """
    extent = shapes(graph)
    nothing = {name: _nothing(shape) for name, shape in extent.items()}
    sent, arrives = nothing, dict(nothing)
    for _ in range(steps + 1):
        before, sent = sent, {}
        for name in graph.order:
            edges = graph.into(name)
            parts = [(before if edge.delay else sent)[edge.source] for edge in edges]
            total = sum(parts[1:], parts[0]) if parts else nothing[name]
            arrives[name] = total
            sent[name] = _sent(graph, name, total, steps)
        if all(sent[name].equals(before[name]) for name in sent):
            break
        for name, reach in sent.items():
            if reach.summed.most > BEYOND:
                what = f"its sum may reach {reach.summed.most:.3g} in {steps} steps"
                raise NotRepresentable(what, where=graph.label(name), why="no number type holds such integers")
    return Ranges(arrives, sent)


def _nothing(shape: tuple[int, ...]) -> Reach:
    zero = Interval(np.zeros(shape), np.zeros(shape))
    return Reach(zero, zero)


def _sent(graph: Graph, name: str, x: Reach, steps: int) -> Reach:
    op = graph.nodes[name]
    match op:
        case Input():
            try:
                _, least, most = grid(op.signal)
            except ValueError as error:
                raise GraphError("has no range", where=graph.label(name), why=str(error)) from error
            return _each_step(np.full(op.shape, float(least)), np.full(op.shape, float(most)), steps)
        case Neuron() | Resonator():
            return _each_step(np.zeros(op.shape), np.ones(op.shape), steps)
        case SigmaDelta(kind="sigma"):
            return _each_step(x.summed.low, x.summed.high, steps)
        case SigmaDelta():
            return _changes(op, x, steps)
        case Readout():
            given = np.abs(real(op.bias)) + np.maximum(np.abs(x.once.low), np.abs(x.once.high))
            held = np.array(np.broadcast_to(given * lasting(op.decay, steps), op.shape))
            return _each_step(-held, held, steps)
        case _:
            return Reach(_through(op, x.once), _through(op, x.summed))


def _each_step(low: Reals, high: Reals, steps: int) -> Reach:
    once = Interval(low, high)
    return Reach(once, once.with_zero * float(steps))


def _activation(op: SigmaDelta, x: Reach) -> Interval:
    bias = real(op.bias)
    if op.kind == "delta":
        return Interval(x.once.low + bias, x.once.high + bias)
    return Interval(np.maximum(x.summed.low + bias, 0.0), np.maximum(x.summed.high + bias, 0.0))


def _changes(op: SigmaDelta, x: Reach, steps: int) -> Reach:
    """What is told of an activation, and what all that was told adds up to."""
    now, unit = _activation(op, x), 2.0**-op.shift
    known = now.with_zero
    lost = float(op.shift > 0)
    once = Interval((now.low - known.high) * unit - lost, (now.high - known.low) * unit).with_zero
    return Reach(once, Interval(known.low * unit - lost * steps, known.high * unit))


def _through(op: Op, x: Interval) -> Interval:
    """What an op without state and bias makes of an interval."""
    match op:
        case Output():
            return x
        case Flatten():
            shape = op.shape or (-1,)
            return Interval(x.low.reshape(shape), x.high.reshape(shape))
        case Scale():
            factor = real(op.factor)
            return Interval(np.minimum(factor * x.low, factor * x.high), np.maximum(factor * x.low, factor * x.high))
        case Pool():
            low, high = (linear.pool(v[None], op.kind, op.kernel, op.stride, op.padding)[0] for v in (x.low, x.high))
            return Interval(low, high)
        case Dense() | Conv():
            weight = real(op.weight)
            more, less = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
            return Interval(
                _weighed(op, more, x.low) + _weighed(op, less, x.high),
                _weighed(op, more, x.high) + _weighed(op, less, x.low),
            )
        case _:
            raise GraphError(f"a {type(op).__name__} has no range in integers", where="nir")


def _weighed(op: Dense | Conv, weight: Reals, x: Reals) -> Reals:
    if isinstance(op, Dense):
        return np.asarray(linear.dense(x[None], weight)[0])
    return np.asarray(linear.conv(x[None], weight, op.stride, op.padding, op.dilation, op.groups, op.spread)[0])


def lasting(kept: float, steps: int) -> float:
    """``1 + kept + ... + kept^(steps - 1)``: what an error, or a value, of 1 a step adds up to."""
    return float(steps) if kept == 1.0 else (1.0 - kept**steps) / (1.0 - kept)


def registers(op: Op, x: Reach, target: Target, steps: int) -> dict[str, tuple[float, float]]:
    """What the registers of a population may reach, and what they hold, in weight units, by what they are called."""
    fraction = target.potential.fraction_bits
    room = 2.0 ** (target.potential.bits - 1 - fraction) - 1
    once = x.once.most
    match op:
        case Neuron():
            current = once * max(lasting(float(kept), steps) for kept in np.unique(1.0 - real(op.alpha)))
            kept = max(lasting(float(kept), steps) for kept in np.unique(1.0 - real(op.beta)))
            start = real(op.reset.amount if isinstance(op.reset, By) else op.reset.value), real(op.initial)
            potential = kept * (current + float(np.abs(real(op.bias)).max(initial=0.0)))
            potential += sum(float(np.abs(value).max(initial=0.0)) for value in start)
            limit = min(float(target.sum_most), 2.0 ** (target.current.bits - 1 - fraction) - 1)
            return {"current": (current, limit), "potential": (potential, room)}
        case Readout():
            bias = float(np.abs(real(op.bias)).max(initial=0.0))
            return {"potential": (lasting(op.decay, steps) * (once + bias), room)}
        case Resonator():
            return {"state": (state(op, x, target, steps), room)}
        case _:
            return {}


def state(op: Resonator, x: Reach, target: Target, steps: int) -> float:
    """The largest magnitude of a resonator's state; both parts of each product are rounded by less than a unit."""
    unit = 2.0**-target.potential.fraction_bits
    given = float(np.hypot(*np.maximum(np.abs(x.once.low), np.abs(x.once.high))).max(initial=0.0))
    kept = float(np.hypot(real(op.cosine), real(op.sine)).max())
    start = float(np.abs(real(op.threshold)).max()) * max(1.0, kept**steps)  # of a reset
    return lasting(kept, steps) * (given + 2 * sqrt(2.0) * unit) + start

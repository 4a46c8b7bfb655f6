"""The meaning of a graph in reals: float64, slow, obvious. With ``integer`` it is the definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import InternalError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Neuron,
    Norm,
    Pool,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    Stateful,
    To,
    real,
)
from snncompile.run import linear, resonance
from snncompile.run.steps import Arithmetic, Fired, State, drive
from snncompile.run.trace import Trace

Array = NDArray[Any]


def run(
    graph: Graph,
    stimulus: Mapping[str, Array],
    *,
    stream: bool = False,
    forced: Mapping[str, Array] | None = None,
) -> Trace:
    """Run a graph of any level in float64; parameters count with their value, whatever form they have.

    ``stimulus``: input name -> [samples, steps, *shape]. ``stream`` and ``forced`` as in ``steps.drive``. Potentials
    are in the units of the graph's parameters.
    """

    def neuron(name: str) -> Neuron:
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        return op

    def apply(name: str, x: Array) -> Array:
        return apply_linear(graph, name, x)

    def fire(name: str, x: Array, state: State) -> Fired:
        match graph.nodes[name]:
            case SigmaDelta() as op:
                return resonance.change(op, x, state, real(op.threshold), real(op.bias))
            case Resonator() as op:
                factors = real(op.cosine), real(op.sine)
                return resonance.resonate(op, x, state, factors, real(op.threshold), np.multiply, np.asarray)
            case _:
                return integrate_and_fire(name, x, state)

    def integrate_and_fire(name: str, x: Array, state: State) -> Fired:
        op = neuron(name)
        state.u = (1.0 - real(op.alpha)) * state.u + real(op.gain) * x
        rest = real(op.rest)
        v = rest + (1.0 - real(op.beta)) * (state.w - rest) + state.u + real(op.bias)
        threshold = real(op.threshold)
        return Fired(v, v > threshold if op.fires == ">" else v >= threshold)

    def settle(name: str, fired: Fired, s: Array, state: State) -> None:
        match graph.nodes[name]:
            case SigmaDelta():
                state.w = state.w + fired.v * s
            case Resonator() as op:
                resonance.settle(op, s, state, np.nextafter(real(op.threshold), -np.inf))
            case Neuron(reset=By(amount)):
                state.w = fired.v - s * real(amount)
            case Neuron(reset=To(value)):
                state.w = np.where(s, real(value), fired.v)
            case _:
                raise InternalError(f"{graph.label(name)} is no population")

    def emit(name: str, fired: Fired, s: Array) -> Array:
        match graph.nodes[name]:
            case SigmaDelta() as op:
                return np.asarray(fired.v * s / 2.0**op.shift)
            case Resonator():
                return s.astype(np.float64)
            case _:
                return s * neuron(name).amplitude

    def integrate(name: str, x: Array, state: State) -> Array:
        op = graph.nodes[name]
        if isinstance(op, SigmaDelta):
            return np.asarray(state.w + x)
        assert isinstance(op, Readout)
        return np.asarray(op.decay * state.w + x + real(op.bias))

    def rest(name: str, batch: int) -> State:
        op = graph.nodes[name]
        assert isinstance(op, Stateful)
        w = np.zeros((batch, *op.shape))
        return State(np.zeros_like(w), w + real(op.initial) if isinstance(op, Neuron) else w)

    return drive(
        graph,
        stimulus,
        Arithmetic(np.float64, apply, fire, settle, emit, integrate, lambda name, total: total, rest),
        stream=stream,
        forced=forced,
    )


def channels(values: Array, axes: int) -> Array:
    """Per-channel values [channels] shaped to broadcast against ``[batch, channels, *axes]``."""
    return values.reshape(-1, *(1,) * axes)


def apply_linear(graph: Graph, name: str, x: Array) -> Array:
    """An op without state on ``x`` [batch, *shape] in float64."""
    op = graph.nodes[name]
    match op:
        case Dense():
            y = linear.dense(x, real(op.weight))
            return y if op.bias is None else y + real(op.bias)
        case Conv():
            y = linear.conv(x, real(op.weight), op.stride, op.padding, op.dilation, op.groups, op.spread)
            return y if op.bias is None else y + channels(real(op.bias), y.ndim - 2)
        case Norm():
            axes = x.ndim - 2
            mean, variance = channels(real(op.mean), axes), channels(real(op.variance), axes)
            gain, shift = channels(real(op.gain), axes), channels(real(op.shift), axes)
            return np.asarray(gain * (x - mean) / np.sqrt(variance + op.epsilon) + shift)
        case Pool():
            return linear.pool(x, op.kind, op.kernel, op.stride, op.padding)
        case Flatten():
            return x.reshape(len(x), *(op.shape or (-1,)))
        case Scale():
            return np.asarray(real(op.factor) * x)
        case _:
            raise InternalError(f"{graph.label(name)} is no linear op")

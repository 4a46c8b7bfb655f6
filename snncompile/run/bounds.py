"""How far two roundings of the same network can lie apart: running error analysis, not a tolerance.

For every population and step, a bound on ``abs(computed potential - exact potential)`` when the graph is evaluated in
floating point of unit roundoff ``r`` in any order of summation, on given inputs and given resets. With ``gamma(n) = n
r / (1 - n r)``::

    sum of n products:   gamma(n + 2) (sum abs(w) abs(x) + abs(b))       Higham, Accuracy and Stability, 2nd ed., eq.
    3.5 error that arrives:  sum abs(w) e(x)
    norm:                abs(g/a) e + gamma(8) (abs(g/a) (m + abs(mean)) + abs(shift))
    potential:           e_v[t] = (1 - beta) e_w[t-1] + e_u[t] + gamma(6) (m_w + m_u + abs(bias)); e_w = 0 after a
    hard reset

where ``m`` bounds the magnitude of a value and ``e`` its error.
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import numpy as np

from snncompile.errors import GraphError, InternalError
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
    To,
    real,
)
from snncompile.run import linear
from snncompile.run.reference import channels
from snncompile.run.trace import Array, Trace

FLOAT32 = 2.0**-24
FLOAT64 = 2.0**-53


def bounds(graph: Graph, stimulus: Mapping[str, Array], recorded: Trace, roundoff: float) -> dict[str, Array]:
    """The bound of every population's potential, [samples, steps, *shape].

    ``recorded`` holds the spikes that populations sent and were reset by, and potentials as magnitudes of their states.
    """
    analysis = _Analysis(roundoff)
    found: dict[str, tuple[Array, Array]] = {}  # magnitude and error of every node's output
    result: dict[str, Array] = {}
    for name in graph.order:
        op = graph.nodes[name]
        if isinstance(op, Input):
            values = np.abs(np.asarray(stimulus[name], dtype=np.float64))
            found[name] = values, np.zeros_like(values)
            continue
        if isinstance(op, Neuron):
            sent = recorded.spikes[name] * abs(op.amplitude)
            found[name] = sent, np.zeros_like(sent)
    for name in _whatever_the_delay(graph):
        op = graph.nodes[name]
        if isinstance(op, Input):
            continue
        arriving = [_delayed(found[edge.source], edge.delay) for edge in graph.into(name)]
        if isinstance(op, Neuron | Readout):
            result[name] = analysis.population(op, arriving, recorded, name)
        if isinstance(op, Readout):
            found[name] = np.abs(recorded.potentials[name]), result[name]
        elif isinstance(op, SigmaDelta | Resonator):
            raise GraphError("has no rounding bound", where=graph.label(name), why="bounds are proven for LIF neurons")
        elif not isinstance(op, Neuron):
            found[name] = analysis.linear(op, *analysis.add(arriving))
    return result


def _whatever_the_delay(graph: Graph) -> list[str]:
    """Every node after the ops without state that it reads, late or not: weights may be heard a step later than the
    population behind them, whose own spikes are recorded.
    """
    reads: nx.DiGraph[str] = nx.DiGraph()
    reads.add_nodes_from(graph.order)
    reads.add_edges_from((e.source, e.target) for e in graph.edges if not isinstance(graph.nodes[e.source], Neuron))
    return list(nx.topological_sort(reads))


def _delayed(pair: tuple[Array, Array], delay: int) -> tuple[Array, Array]:
    if not delay:
        return pair
    late = min(delay, pair[0].shape[1])
    one, other = (np.concatenate([np.zeros_like(p[:, :late]), p[:, : p.shape[1] - late]], axis=1) for p in pair)
    return one, other


class _Analysis:
    def __init__(self, roundoff: float) -> None:
        self.roundoff = roundoff

    def gamma(self, operations: int) -> float:
        return operations * self.roundoff / (1 - operations * self.roundoff)

    def add(self, arriving: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        """A sum of signals."""
        magnitude = sum((m for m, _ in arriving[1:]), arriving[0][0])
        error = sum((e for _, e in arriving[1:]), arriving[0][1])
        return magnitude, error + self.gamma(len(arriving) - 1) * (magnitude + error)

    def linear(self, op: object, m: Array, e: Array) -> tuple[Array, Array]:
        """Magnitude and error behind an op without state."""
        match op:
            case Output():
                return m, e
            case Flatten():
                shape = (*m.shape[:2], *(op.shape or (-1,)))
                return m.reshape(shape), e.reshape(shape)
            case Scale():
                factor = np.abs(real(op.factor))
                return factor * m, factor * e + self.gamma(1) * factor * (m + e)
            case Norm():
                axes = m.ndim - 3
                gain = channels(np.abs(real(op.gain)) / np.sqrt(real(op.variance) + op.epsilon), axes)
                mean, shift = channels(np.abs(real(op.mean)), axes), channels(np.abs(real(op.shift)), axes)
                size = gain * (m + mean) + shift
                return size, gain * e + self.gamma(8) * (size + gain * e)
            case Dense() | Conv() | Pool():
                terms = int(np.prod(op.kernel if isinstance(op, Pool) else op.weight.shape[1:]))
                size = _absolute(op, m)
                carried = _absolute(op, e, bias=False) if e.any() else np.zeros_like(size)
                return size, carried + self.gamma(terms + 2) * (size + carried)
            case _:
                raise InternalError(f"{op} is no linear op")

    def population(
        self, op: Neuron | Readout, arriving: list[tuple[Array, Array]], recorded: Trace, name: str
    ) -> Array:
        """The bound of a population's potentials."""
        v = np.abs(recorded.potentials[name])
        m, e = self.add(arriving) if arriving else (np.zeros_like(v), np.zeros_like(v))
        neuron = isinstance(op, Neuron)
        gain = np.abs(real(op.gain)) if isinstance(op, Neuron) else 1.0
        kept_u = np.abs(1 - real(op.alpha)) if isinstance(op, Neuron) else 0.0
        kept_v = np.abs(1 - real(op.beta)) if isinstance(op, Neuron) else op.decay
        extra = np.abs(real(op.bias)) + (np.abs(real(op.rest)) * 2 if isinstance(op, Neuron) else 0.0)
        u_size, u_error = np.zeros_like(v[:, 0]), np.zeros_like(v[:, 0])
        w_size = u_size + (np.abs(real(op.initial)) if isinstance(op, Neuron) else 0.0)
        w_error = np.zeros_like(u_size)
        bound = np.empty_like(v)
        for step in range(v.shape[1]):
            u_size = kept_u * u_size + gain * m[:, step]
            u_error = kept_u * u_error + gain * e[:, step] + self.gamma(3) * u_size
            size = kept_v * w_size + u_size + extra
            bound[:, step] = kept_v * w_error + u_error + self.gamma(6) * (size + u_error + w_error)
            w_size, w_error = v[:, step] + bound[:, step], bound[:, step]
            if neuron and isinstance(op, Neuron):
                fired = recorded.spikes[name][:, step]
                hard = isinstance(op.reset, To)
                amount = np.abs(real(op.reset.value if isinstance(op.reset, To) else op.reset.amount))
                w_size = np.where(fired, amount if hard else w_size + amount, w_size)
                w_error = np.where(fired, 0.0 if hard else w_error + self.gamma(1) * w_size, w_error)
        return bound


def _absolute(op: Dense | Conv | Pool, values: Array, *, bias: bool = True) -> Array:
    """The op with absolute weights (and bias) on [samples, steps, *shape]."""
    flat = values.reshape(-1, *values.shape[2:])
    match op:
        case Dense():
            y = linear.dense(flat, np.abs(real(op.weight)))
            y = y + np.abs(real(op.bias)) if bias and op.bias is not None else y
        case Conv():
            y = linear.conv(flat, np.abs(real(op.weight)), op.stride, op.padding, op.dilation, op.groups, op.spread)
            y = y + channels(np.abs(real(op.bias)), y.ndim - 2) if bias and op.bias is not None else y
        case Pool():
            y = linear.pool(flat, op.kind, op.kernel, op.stride, op.padding)
    return np.asarray(y).reshape(*values.shape[:2], *y.shape[1:])

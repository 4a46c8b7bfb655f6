"""The meaning of a graph in integers: int64, the sheet's rounding, wrap and saturation. With ``reference`` the
definition.

The equations are those of Lava's fixed-point LIF (``lava-nc/lava`` 0.10.0, ``src/lava/proc/lif/models.py``), with the
sheet's numbers in place of constants; ``F`` are the potential's fraction bits, ``D`` the bits of a decay::

    u[t] = wrap(decay(u[t-1], alpha) + (x[t] << F))
    v[t] = saturate(decay(w[t-1], beta) + u[t] + bias)
    s[t] = v[t] > threshold << F
    a[t] = saturate(decay(a[t-1], 1 - decay of the read-out) + (x[t] << F) + bias)
    decay(z, a) = z (2^D - a 2^D) / 2^D, rounded as the sheet says

``SigmaDelta`` counts in weights times messages, without the shift by F; ``Resonator`` turns with D bits, rounds toward
zero and saturates as a potential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError, InternalError
from snncompile.fixed import FixedPoint, as_fixed, decay, overflow, saturate, shift_toward_zero
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Neuron,
    Norm,
    Param,
    Pool,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    Stateful,
    To,
)
from snncompile.run import linear, resonance
from snncompile.run.steps import Arithmetic, Fired, State, Watch, drive
from snncompile.run.trace import Trace
from snncompile.target import Target

Array = NDArray[Any]


def run(
    graph: Graph,
    stimulus: Mapping[str, Array],
    target: Target,
    *,
    stream: bool = False,
    forced: Mapping[str, Array] | None = None,
    watch: Watch | None = None,
) -> Trace:
    """Run a graph in a target's integers. Potentials are in units of ``2**-fraction_bits`` weight units.
    ``stream``, ``forced`` and ``watch`` as in ``steps.drive``.

    Any level: parameters that are not ``FixedPoint`` yet are taken where they lie on the machine's grid, and refused
    with ``GraphError`` naming the node where they do not (a Norm never does).
    """
    for name, values in stimulus.items():
        if values.dtype.kind == "f" and np.any(values != np.rint(values)):
            raise GraphError(f"its stimulus is no integer of {target.name}", where=name, remedy="encode it first")
    machine = IntegerGraph(graph, target)
    return drive(
        graph,
        stimulus,
        Arithmetic(
            np.int64,
            machine.linear,
            machine.fire,
            machine.settle,
            machine.emit,
            machine.integrate,
            machine.tell,
            machine.rest,
        ),
        stream=stream,
        forced=forced,
        watch=watch,
    )


class IntegerGraph:
    """A graph's parameters on a target's grid, and the steps computed with them."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.fraction = target.potential.fraction_bits
        self.neurons = {name: self._neuron(name) for name in graph.names(Neuron)}
        self.readouts = {name: self._readout(name) for name in graph.names(Readout)}
        self.forgets = {name: self._forgets(name) for name in graph.names(Readout)}
        self.neurons |= {name: self._other(name) for name in graph.names(SigmaDelta, Resonator)}
        self.weights = {name: self._weight(name) for name in graph.names(Dense, Conv, Scale)}
        self._largest: dict[str, float] = {}

    def _grid(self, name: str, what: str, value: Param, fraction: int) -> Array:
        """A parameter in units of ``2**-fraction``."""
        try:
            fixed = value if isinstance(value, FixedPoint) else as_fixed(value, -fraction)
        except ValueError as error:
            raise GraphError(
                f"its {what} is no integer of {self.target.name}",
                where=self.graph.label(name),
                why=str(error),
                remedy="quantise the graph first, or run it in reals",
            ) from error
        return fixed.on_grid(fraction)

    def _weight(self, name: str) -> Array:
        op = self.graph.nodes[name]
        assert isinstance(op, Dense | Conv | Scale)
        if not isinstance(op, Scale) and op.bias is not None:
            if not isinstance(op.bias, FixedPoint) and not op.bias.any():
                pass  # a bias of zeros says nothing
            else:
                raise GraphError("biases of synapses are not on the machine", where=self.graph.label(name))
        return self._grid(name, "weight", op.factor if isinstance(op, Scale) else op.weight, 0)

    def _neuron(self, name: str) -> dict[str, Any]:
        op, bits = self.graph.nodes[name], self.target.decay.bits
        assert isinstance(op, Neuron)
        if float(np.max(np.abs(_plain(op.gain) - 1))) or op.amplitude != 1.0 or np.any(_plain(op.rest)):
            raise GraphError("gain, amplitude and rest must be folded first", where=self.graph.label(name))
        value = op.reset.value if isinstance(op.reset, To) else op.reset.amount
        return {
            "alpha": self._grid(name, "alpha", op.alpha, bits),
            "beta": self._grid(name, "beta", op.beta, bits),
            "bias": self._grid(name, "bias", op.bias, self.fraction),
            "threshold": self._grid(name, "threshold", op.threshold, self.fraction),
            "reset": self._grid(name, "reset", value, self.fraction),
            "initial": self._grid(name, "initial potential", op.initial, self.fraction),
        }

    def _other(self, name: str) -> dict[str, Any]:
        """Parameters of neurons that are not LIF; changes are counted in weights times messages."""
        op = self.graph.nodes[name]
        if isinstance(op, SigmaDelta):
            return {what: self._grid(name, what, getattr(op, what), 0) for what in ("threshold", "bias")}
        assert isinstance(op, Resonator)
        bits = self.target.decay.bits
        return {
            "cosine": self._grid(name, "cosine", op.cosine, bits),
            "sine": self._grid(name, "sine", op.sine, bits),
            "threshold": self._grid(name, "threshold", op.threshold, self.fraction),
        }

    def _readout(self, name: str) -> Array:
        op = self.graph.nodes[name]
        assert isinstance(op, Readout)
        return self._grid(name, "bias", op.bias, self.fraction)

    def _forgets(self, name: str) -> Array:
        """What a read-out loses at every step, 1 - decay, in units of the sheet's decay."""
        op, bits = self.graph.nodes[name], self.target.decay.bits
        assert isinstance(op, Readout)
        return self._grid(name, "decay", np.asarray(1.0 - op.decay), bits)

    def linear(self, name: str, x: Array) -> Array:
        """An op without state on integers [batch, *shape]."""
        op = self.graph.nodes[name]
        match op:
            case Dense():
                return linear.dense(x, self.weights[name], self._most(name))
            case Conv():
                size = op.stride, op.padding, op.dilation
                return linear.conv(x, self.weights[name], *size, op.groups, op.spread, self._most(name))
            case Scale():
                return np.asarray(x * self.weights[name])
            case Pool(kind="sum" | "max"):
                return linear.pool(x, op.kind, op.kernel, op.stride, op.padding)
            case Flatten():
                return x.reshape(len(x), *(op.shape or (-1,)))
            case Norm() | Pool():
                raise GraphError("has no integer form", where=self.graph.label(name), remedy="fold it first")
            case _:
                raise InternalError(f"{self.graph.label(name)} is no linear op")

    def _most(self, name: str) -> float:
        """The largest sum of magnitudes of a row of weights, which says in which type sums are exact."""
        if name not in self._largest:
            self._largest[name] = linear.largest_sum(self.weights[name])
        return self._largest[name]

    def fire(self, name: str, x: Array, state: State) -> Fired:
        """One step of a population up to the reset."""
        own, sheet = self.neurons[name], self.target
        match self.graph.nodes[name]:
            case SigmaDelta() as other:
                return resonance.change(other, x, state, own["threshold"], own["bias"])
            case Resonator() as other:
                return self._resonate(other, x << self.fraction, state, own)
            case _:
                pass
        bits, rounding = sheet.decay.bits, sheet.decay.rounding
        drive_ = decay(state.u, own["alpha"], bits, rounding) + (x << self.fraction)
        state.u = overflow(drive_, sheet.current.bits, sheet.current.overflow)
        raw = decay(state.w, own["beta"], bits, rounding) + state.u + own["bias"]
        v = overflow(raw, sheet.potential.bits, sheet.potential.overflow)
        op = self.graph.nodes[name]
        assert isinstance(op, Neuron)
        return Fired(v, v > own["threshold"] if op.fires == ">" else v >= own["threshold"])

    def _resonate(self, op: Resonator, x: Array, state: State, own: Mapping[str, Array]) -> Fired:
        bits, most = self.target.decay.bits, self.target.potential.bits
        return resonance.resonate(
            op,
            x,
            state,
            (own["cosine"], own["sine"]),
            own["threshold"],
            lambda part, factor: shift_toward_zero(part * factor, bits),
            lambda values: saturate(values, most),
        )

    def settle(self, name: str, fired: Fired, s: Array, state: State) -> None:
        """The reset."""
        op = self.graph.nodes[name]
        match op:
            case SigmaDelta():
                state.w = state.w + fired.v * s
            case Resonator():
                resonance.settle(op, s, state, self.neurons[name]["threshold"] - 1)
            case Neuron(reset=By()):
                state.w = fired.v - s * self.neurons[name]["reset"]
            case _:
                state.w = np.where(s, self.neurons[name]["reset"], fired.v)

    def emit(self, name: str, fired: Fired, s: Array) -> Array:
        """A spike is 1; a change is sent without the bits that it shifts out."""
        op = self.graph.nodes[name]
        return fired.v * s >> op.shift if isinstance(op, SigmaDelta) else s.astype(np.int64)

    def integrate(self, name: str, x: Array, state: State) -> Array:
        """One step of a read-out: a population that never fires."""
        if isinstance(self.graph.nodes[name], SigmaDelta):
            return np.asarray(state.w + x)
        sheet = self.target
        kept = decay(state.w, self.forgets[name], sheet.decay.bits, sheet.decay.rounding)
        total = kept + overflow(x << self.fraction, sheet.current.bits, sheet.current.overflow)
        return saturate(total + self.readouts[name], sheet.potential.bits)

    def tell(self, name: str, total: Array) -> Array:
        """A partial sum is sent in units of a weight, in which it is whole."""
        op = self.graph.nodes[name]
        return total >> self.fraction if isinstance(op, Readout) and op.kind == "partial" else total

    def rest(self, name: str, batch: int) -> State:
        """The state at the start of a sample."""
        op = self.graph.nodes[name]
        assert isinstance(op, Stateful)
        w = np.zeros((batch, *op.shape), dtype=np.int64)
        return State(np.zeros_like(w), w + self.neurons[name]["initial"] if isinstance(op, Neuron) else w)


def _plain(value: Param) -> Array:
    return value.real if isinstance(value, FixedPoint) else value

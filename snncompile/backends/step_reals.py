"""One step in float32: the operations of ``run/reference``, rounded where float32 rounds."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.backends.step_graph import Range, Value, Writer
from snncompile.backends.step_integers import padding_floor
from snncompile.errors import NotRepresentable
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Neuron,
    Norm,
    Op,
    Param,
    Pool,
    Readout,
    Scale,
    To,
    real,
)
from snncompile.ir.shapes import shape_of

Array = NDArray[Any]


class Reals:
    """Writes the ops of a graph of any level in float32. Spikes are bool."""

    state = "float32"

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.write = Writer()

    def carried(self, op: Op) -> tuple[str, Range]:
        """The type of what a node sends, as delayed edges keep it."""
        return ("bool" if isinstance(op, Neuron) and op.amplitude == 1.0 else "float32"), None

    def sum(self, values: list[Value], wish: str) -> Value:
        """What arrives: edges into a node add."""
        first, *rest = (self.write.cast(value, "float32") for value in values)
        for value in rest:
            first = Value(self.write.add("Add", [first.name, value.name], f"{wish}.sum"), "float32", first.shape)
        return first

    def initial(self, name: str) -> tuple[Array | None, Array]:
        """``u`` (None where there is no synaptic current) and ``w`` at the start of a sample."""
        op = self.graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        nothing = np.zeros(op.shape, dtype=np.float32)
        if isinstance(op, Readout):
            return None, nothing
        kept = np.any(real(op.alpha) != 1.0)
        return (nothing if kept else None), nothing + real(op.initial).astype(np.float32)

    def neuron(self, name: str, op: Neuron, x: Value, u: str | None, w: str) -> tuple[str, str, str, str]:
        """``u`` and ``w`` behind a step, ``v`` and ``s``."""
        u_next = self._times(x.name, real(op.gain), f"{name}.x")
        if u is not None:
            kept = self._times(u, 1.0 - real(op.alpha), f"{name}.u.kept")
            u_next = self.write.add("Add", [kept, u_next], f"{name}.u.next")
        left = self._plus(w, -real(op.rest), f"{name}.w.above")
        left = self._times(left, 1.0 - real(op.beta), f"{name}.w.kept")
        raw = self._plus(left, real(op.rest), f"{name}.w.left")
        v = self._plus(self.write.add("Add", [raw, u_next], f"{name}.driven"), real(op.bias), f"{name}.v")
        kind = "Greater" if op.fires == ">" else "GreaterOrEqual"
        threshold = self.write.constant(rounded(real(op.threshold), up=op.fires == ">="))
        s = self.write.add(kind, [v, threshold], f"{name}.s")
        match op.reset:
            case By(amount):
                taken = self.write.add("Where", [s, self._constant(amount), self._constant(0.0)], f"{name}.amount")
                return u_next, self.write.add("Sub", [v, taken], f"{name}.w.next"), v, s
            case To(value):
                return u_next, self.write.add("Where", [s, self._constant(value), v], f"{name}.w.next"), v, s

    def sent(self, name: str, op: Neuron, s: str) -> Value:
        """What a neuron sends."""
        if op.amplitude == 1.0:
            return Value(s, "bool", op.shape)
        spikes = self.write.cast(Value(s, "bool", op.shape), "float32")
        return Value(self._times(spikes.name, np.float64(op.amplitude), f"{name}.y"), "float32", op.shape)

    def readout(self, name: str, op: Readout, x: Value, w: str) -> str:
        """The next sum of a read-out."""
        kept = self._times(w, np.float64(op.decay), f"{name}.kept")
        total = self.write.add("Add", [kept, x.name], f"{name}.total")
        return self._plus(total, real(op.bias), f"{name}.v")

    def linear(self, name: str, op: Op, x: Value) -> Value:
        """An op without state."""
        x, add = self.write.cast(x, "float32"), self.write.add
        shape = shape_of(name, op, x.shape)
        match op:
            case Dense():
                flat = self.write.reshape(x, (prod(x.shape),))
                weight = self._constant(real(op.weight).T, f"{name}.weight")
                self.write.graph.weights[name] = weight, 1
                y = add("MatMul", [flat.name, weight], f"{name}.y")
                y = y if op.bias is None else self._plus(y, real(op.bias), f"{name}.biased")
            case Conv():
                weights = [self._constant(op.weight, f"{name}.weight")]
                self.write.graph.weights[name] = weights[0], 1
                weights += [] if op.bias is None else [self._constant(op.bias, f"{name}.bias")]
                sizes = {"strides": op.stride, "pads": op.padding * 2, "dilations": op.dilation, "group": op.groups}
                y = add("Conv", [self.write.spread(x, op.spread).name, *weights], f"{name}.y", **sizes)
            case Norm():
                scale = real(op.gain) / np.sqrt(real(op.variance) + op.epsilon)
                ones = (1,) * (len(x.shape) - 1)
                moved = self._plus(x.name, -real(op.mean).reshape(-1, *ones), f"{name}.centred")
                y = self._times(moved, scale.reshape(-1, *ones), f"{name}.scaled")
                y = self._plus(y, real(op.shift).reshape(-1, *ones), name)
            case Pool():
                y = self._pool(name, op, x)
            case Scale():
                y = self._times(x.name, real(op.factor), name)
            case Flatten():
                return self.write.reshape(x, shape)
            case _:
                raise NotRepresentable("has no step in standard operations", where=self.graph.label(name))
        return Value(y, "float32", shape)

    def _pool(self, name: str, op: Pool, x: Value) -> str:
        pads = op.padding * 2
        if op.kind == "max":
            if any(p >= k for p, k in zip(op.padding, op.kernel, strict=True)):
                raise NotRepresentable("has windows that hold nothing but padding", where=self.graph.label(name))
            pooled = self.write.add("MaxPool", [x.name], name, kernel_shape=op.kernel, strides=op.stride, pads=pads)
            floor = padding_floor(op, x.shape, float(np.finfo(np.float32).min))
            if not any(pads):
                return pooled
            return self.write.add("Max", [pooled, self._constant(floor)], f"{name}.padded")
        ones = self._constant(np.ones((x.shape[0], 1, *op.kernel)), f"{name}.ones")
        total = self.write.add("Conv", [x.name, ones], f"{name}.sum", strides=op.stride, pads=pads, group=x.shape[0])
        return total if op.kind == "sum" else self._times(total, np.float64(1 / prod(op.kernel)), name)

    def _constant(self, values: Param | float, wish: str = "constant") -> str:
        reals = np.asarray(values) if isinstance(values, float) else real(values)
        return self.write.constant(reals.astype(np.float32), wish)

    def _times(self, name: str, factor: Array | np.float64, wish: str) -> str:
        if np.all(factor == 1.0):
            return name
        return self.write.add("Mul", [name, self._constant(np.asarray(factor))], wish)

    def _plus(self, name: str, other: Array, wish: str) -> str:
        return self.write.add("Add", [name, self._constant(other)], wish) if np.any(other) else name


def rounded(values: Array, *, up: bool) -> Array:
    """float32 on one side of float64, so that a comparison with it decides alike for every float32 potential."""
    near = values.astype(np.float32)
    wrong = near < values if up else near > values
    return np.where(wrong, np.nextafter(near, np.float32(np.inf if up else -np.inf)), near).astype(np.float32)

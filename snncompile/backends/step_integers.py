"""One step in a machine's integers: the operations of ``run/integer``, exact on every processor."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.backends.step_graph import Range, Value, Writer
from snncompile.errors import NotRepresentable
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Op, Pool, Readout, Scale, Shape, Size
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Analog, grid
from snncompile.run import linear
from snncompile.run.integer import IntegerGraph
from snncompile.target import Target

Array = NDArray[Any]
FLOAT32 = 2**24  # integers up to here are float32 numbers
INT32 = 2**31


class Integers:
    """Writes the ops of a graph whose numbers are a target's integers. State is int64, spikes are bool."""

    state = "int64"

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.machine = IntegerGraph(graph, target)
        self.write = Writer()

    def carried(self, op: Op) -> tuple[str, Range]:
        """The type and range of what a node sends, as delayed edges keep it."""
        match op:
            case Input(signal=Analog()):
                return "int64", None
            case Input():
                _, least, most = grid(op.signal)
                if (least, most) == (0, 1):
                    return "bool", (0, 1)
                return ("int8", (-128, 127)) if least >= -128 and most <= 127 else ("int64", None)
            case Neuron():
                return "bool", (0, 1)
            case Readout():
                most = 2 ** (self.target.potential.bits - 1) - 1
                return "int64", (-most, most)
            case _:
                return "int64", None

    def sum(self, values: list[Value], wish: str) -> Value:
        """What arrives: edges into a node add."""
        first, *rest = values
        for value in rest:
            one, other = self.write.cast(first, "int64"), self.write.cast(value, "int64")
            both = None if one.range is None or other.range is None else _plus(one.range, other.range)
            first = Value(self.write.add("Add", [one.name, other.name], f"{wish}.sum"), "int64", one.shape, both)
        return first

    # Populations

    def initial(self, name: str) -> tuple[Array | None, Array]:
        """``u`` (None where there is no synaptic current) and ``w`` at the start of a sample."""
        op = self.graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        nothing = np.zeros(op.shape, dtype=np.int64)
        if isinstance(op, Readout):
            return None, nothing
        own = self.machine.neurons[name]
        kept = np.any(own["alpha"] != 1 << self.target.decay.bits)
        return (nothing if kept else None), nothing + own["initial"]

    def neuron(self, name: str, op: Neuron, x: Value, u: str | None, w: str) -> tuple[str, str, str, str]:
        """``u`` and ``w`` behind a step, ``v`` and ``s``."""
        own, sheet, add = self.machine.neurons[name], self.target, self.write.add
        drive = self._shifted(x, f"{name}.x")
        if u is not None:
            drive = add("Add", [self._decayed(u, own["alpha"]), drive], f"{name}.u.raw")
        u_next = self._overflow(drive, sheet.current.bits, sheet.current.overflow, f"{name}.u.next")
        raw = add("Add", [self._decayed(w, own["beta"]), u_next], f"{name}.v.raw")
        if np.any(own["bias"]):
            raw = add("Add", [raw, self._constant(own["bias"])], f"{name}.v.biased")
        v = self._overflow(raw, sheet.potential.bits, sheet.potential.overflow, f"{name}.v")
        kind = "Greater" if op.fires == ">" else "GreaterOrEqual"
        s = add(kind, [v, self._constant(own["threshold"])], f"{name}.s")
        if isinstance(op.reset, By):
            amount = add("Where", [s, self._constant(own["reset"]), self._constant(np.int64(0))], f"{name}.amount")
            return u_next, add("Sub", [v, amount], f"{name}.w.next"), v, s
        return u_next, add("Where", [s, self._constant(own["reset"]), v], f"{name}.w.next"), v, s

    def sent(self, name: str, op: Neuron, s: str) -> Value:
        """What a neuron sends: a spike is 1."""
        return Value(s, "bool", op.shape, (0, 1))

    def readout(self, name: str, op: Readout, x: Value, w: str) -> str:
        """The next sum of a read-out."""
        sheet, add = self.target, self.write.add
        came = self._overflow(
            self._shifted(x, f"{name}.x"), sheet.current.bits, sheet.current.overflow, f"{name}.current"
        )
        total = add("Add", [self._decayed(w, self.machine.forgets[name]), came], f"{name}.raw")
        if np.any(self.machine.readouts[name]):
            total = add("Add", [total, self._constant(self.machine.readouts[name])], f"{name}.biased")
        return self._overflow(total, sheet.potential.bits, "saturate", f"{name}.v")

    def _constant(self, values: Array | np.int64) -> str:
        return self.write.constant(np.asarray(values, dtype=np.int64))

    def _shifted(self, x: Value, wish: str) -> str:
        """What arrives, in units of the potential."""
        wide = self.write.cast(x, "int64")
        factor = 1 << self.target.potential.fraction_bits
        return self.write.add("Mul", [wide.name, self._constant(np.int64(factor))], wish)

    def _decayed(self, state: str, lost: Array) -> str:
        """``fixed.decay``: standard integer division drops the fraction on both sides of zero; floor needs Mod."""
        bits, add = self.target.decay.bits, self.write.add
        whole = self._constant(np.int64(1 << bits))
        if not np.any(lost):
            return state
        product = add("Mul", [state, self._constant((1 << bits) - lost)], f"{state}.times")
        if self.target.decay.rounding != "toward-zero":
            below = add("Mod", [product, whole], f"{state}.below")
            product = add("Sub", [product, below], f"{state}.floor")
        return add("Div", [product, whole], f"{state}.decayed")

    def _overflow(self, values: str, bits: int, rule: str, wish: str) -> str:
        """``fixed.overflow``."""
        add, top = self.write.add, 1 << (bits - 1)
        if rule != "wrap":
            return add("Clip", [values, self._constant(np.int64(1 - top)), self._constant(np.int64(top - 1))], wish)
        turn, zero = self._constant(np.int64(2 * top)), self._constant(np.int64(0))
        above = add("Greater", [values, self._constant(np.int64(top))], f"{wish}.above")
        below = add("LessOrEqual", [values, self._constant(np.int64(-top))], f"{wish}.below")
        less = add("Sub", [values, add("Where", [above, turn, zero], f"{wish}.less")], f"{wish}.down")
        return add("Add", [less, add("Where", [below, turn, zero], f"{wish}.more")], wish)

    # Ops without state

    def linear(self, name: str, op: Op, x: Value) -> Value:
        """An op without state."""
        shape = shape_of(name, op, x.shape)
        match op:
            case Dense():
                return self._dense(name, self.machine.weights[name], self.write.reshape(x, (prod(x.shape),)))
            case Conv():
                sizes = op.stride, op.padding, op.dilation
                return self._conv(name, self.machine.weights[name], x, shape, sizes, op.groups, op.spread)
            case Scale():
                factor = self.machine.weights[name]
                result = self.write.add("Mul", [self.write.cast(x, "int64").name, self._constant(factor)], name)
                return Value(result, "int64", shape, _product_range(factor.reshape(-1, 1), x.range))
            case Pool(kind="sum"):
                ones = np.ones((x.shape[0], 1, *op.kernel), dtype=np.int64)
                sizes = op.stride, op.padding, (1,) * len(op.kernel)
                return self._conv(name, ones, x, shape, sizes, x.shape[0])
            case Pool(kind="max"):
                return self._max(name, op, x, shape)
            case Flatten():
                return self.write.reshape(x, shape)
            case _:
                raise NotRepresentable("has no step in standard integer operations", where=self.graph.label(name))

    def _dense(self, name: str, weight: Array, x: Value) -> Value:
        how, small, factor = exact_product(weight, x.range)
        given = self.write.cast(x, how)
        matrix = self.write.constant(small.T.astype(how if how != "uint8" else "int8"), f"{name}.weight")
        self.write.graph.weights[name] = matrix, factor
        kind = "MatMulInteger" if how in ("uint8", "int8") else "MatMul"
        return self._scaled(self.write.add(kind, [given.name, matrix], f"{name}.y"), how, factor, name, weight, x)

    def _conv(
        self,
        name: str,
        weight: Array,
        x: Value,
        shape: Shape,
        sizes: tuple[Size, Size, Size],
        groups: int,
        spread: Size = (),
    ) -> Value:
        stride, padding, dilation = sizes
        how, small, factor = exact_product(weight, x.range)
        given = self.write.spread(self.write.cast(x, how), spread)
        if how == "int64":
            y = self._conv_of_patches(name, small, given, shape, sizes, groups)
        else:
            kernel = self.write.constant(small.astype(how if how != "uint8" else "int8"), f"{name}.weight")
            self.write.graph.weights[name] = kernel, factor
            sizes_ = {"strides": stride, "pads": padding * 2, "dilations": dilation, "group": groups}
            kind = "Conv" if how == "float32" else "ConvInteger"
            y = self.write.add(kind, [given.name, kernel], f"{name}.y", **sizes_)
        return self._scaled(y, how, factor, name, weight, Value(x.name, x.dtype, shape, x.range))

    def _scaled(self, y: str, how: str, factor: int, name: str, weight: Array, x: Value) -> Value:
        """A product as int64, times what all weights had in common; ``x``: the range that met the weights."""
        arithmetic = "float32" if how == "float32" else "int64" if how == "int64" else "int32"
        shape = x.shape if weight.ndim > 2 else weight.shape[:1]
        wide = self.write.cast(Value(y, arithmetic, shape), "int64")
        if factor != 1:
            wide = Value(
                self.write.add("Mul", [wide.name, self._constant(np.int64(factor))], f"{name}.scaled"), "int64", shape
            )
        return Value(wide.name, "int64", shape, _product_range(weight.reshape(len(weight), -1), x.range))

    def _conv_of_patches(
        self, name: str, weight: Array, x: Value, shape: Shape, sizes: tuple[Size, Size, Size], groups: int
    ) -> str:
        out, inward, *kernel = weight.shape
        patches = self._patches(name, x, shape[1:], tuple(kernel), sizes, groups)  # [n, groups, places, in * cells]
        rows = weight.reshape(groups, out // groups, inward * prod(kernel)).transpose(0, 2, 1)
        product = self.write.add("MatMul", [patches, self.write.constant(rows, f"{name}.weight")], f"{name}.product")
        turned = self.write.add("Transpose", [product], f"{name}.turned", perm=(0, 1, 3, 2))
        target = self.write.constant(np.array([-1, *shape], dtype=np.int64), "shape")
        return self.write.add("Reshape", [turned, target], f"{name}.y")

    def _patches(
        self, name: str, x: Value, place: Shape, kernel: Size, sizes: tuple[Size, Size, Size], groups: int
    ) -> str:
        """The values under every place of a kernel, [n, groups, places, channels of a group * cells]."""
        stride, padding, dilation = sizes
        padded = tuple(n + 2 * p for n, p in zip(x.shape[1:], padding, strict=True))
        channels, each = x.shape[0], x.shape[0] // groups
        cells = np.zeros((1, 1), dtype=np.int64)  # [places, cells of the kernel], numbered row by row
        for n, size, k, s, d in zip(place, padded, kernel, stride, dilation, strict=True):
            axis = s * np.arange(n)[:, None] + d * np.arange(k)
            cells = cells[:, None, :, None] * size + axis[None, :, None, :]
            cells = cells.reshape(cells.shape[0] * n, -1)
        start = (np.arange(channels) * prod(padded)).reshape(groups, 1, each, 1)
        index = (start + cells[None, :, None, :]).reshape(groups, len(cells), -1)
        whole = self._padded(name, x, padding)
        flat = self.write.reshape(Value(whole, x.dtype, (channels, *padded)), (channels * prod(padded),))
        return self.write.add("Gather", [flat.name, self._constant(index)], f"{name}.patches", axis=1)

    def _padded(self, name: str, x: Value, padding: Size) -> str:
        """Zeros around every map."""
        if not any(padding):
            return x.name
        edge = self._constant(np.array([0, 0, *padding] * 2))
        nothing = self.write.constant(np.zeros((), dtype=x.dtype))
        return self.write.add("Pad", [x.name, edge, nothing], f"{name}.padded")

    def _max(self, name: str, op: Pool, x: Value, shape: Shape) -> Value:
        least, most = x.range or (-INT32, INT32)
        how = "uint8" if least >= 0 and most < 256 else "int8" if least >= -128 and most < 128 else "int64"
        how = "int64" if any(p >= k for p, k in zip(op.padding, op.kernel, strict=True)) else how
        given = self.write.cast(x, how)
        if how == "int64":
            sizes = op.stride, op.padding, (1,) * len(op.kernel)
            patches = self._patches(name, given, shape[1:], op.kernel, sizes, x.shape[0])
            last = self._constant(np.array([-1]))
            most_of = self.write.add("ReduceMax", [patches, last], f"{name}.most", keepdims=0)
            target = self.write.constant(np.array([-1, *shape], dtype=np.int64), "shape")
            return Value(self.write.add("Reshape", [most_of, target], name), how, shape, x.range)
        sizes_ = {"kernel_shape": op.kernel, "strides": op.stride, "pads": op.padding * 2}
        pooled = Value(self.write.add("MaxPool", [given.name], name, **sizes_), how, shape, x.range)
        if least >= 0 or not any(op.padding):
            return pooled
        floor = self._constant(padding_floor(op, x.shape, -INT32).astype(np.int64))
        above = self.write.add("Max", [self.write.cast(pooled, "int64").name, floor], f"{name}.padded")
        return Value(above, "int64", shape, x.range)


def padding_floor(op: Pool, shape: Shape, least: float) -> Array:
    """What the maximum of each window is at least: 0 where it reaches the padding, ``least`` elsewhere.

    The padding of a standard MaxPool never wins. A Pad with zeros before it would say the same, but onnxruntime (1.31)
    fuses the two into one that forgets the zeros.
    """
    inside = linear.pool(np.ones((1, 1, *shape[1:])), "sum", op.kernel, op.stride, op.padding)[0]
    return np.where(inside < prod(op.kernel), 0, least)


def exact_product(weight: Array, met: Range) -> tuple[str, Array, int]:
    """How activations in the range ``met`` meet ``weight`` [out, ...] exactly: the type, the weights over a common
    power of two, that power.
    """
    together = int(np.bitwise_or.reduce(weight, axis=None)) if weight.size else 0
    factor = together & -together if together else 1
    small = weight // factor
    if met is None:
        return "int64", small, factor
    least, most = met
    rows = np.abs(small).reshape(len(small), -1).sum(axis=1)
    reach = int(rows.max(initial=0)) * max(-least, most)
    largest = int(np.abs(small).max(initial=0))
    if least >= 0 and most <= 127 and small.min(initial=0) >= -128 and small.max(initial=0) <= 127 and reach < INT32:
        return "uint8", small, factor
    if least >= -128 and most <= 127 and largest <= 64 and reach < INT32:
        return "int8", small, factor
    return ("float32" if reach < FLOAT32 else "int64"), small, factor


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _product_range(rows: Array, met: Range) -> Range:
    """The range of sums of weights ``rows`` [out, in] times activations in ``met``."""
    if met is None:
        return None
    least, most = met
    positive = np.maximum(rows, 0).sum(axis=1).astype(object)
    negative = np.maximum(-rows, 0).sum(axis=1).astype(object)
    highest = max([0, *(positive * most - negative * least)])
    return -max([0, *(negative * most - positive * least)]), highest

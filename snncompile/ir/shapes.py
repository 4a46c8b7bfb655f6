"""What flows where: the shape and the declared signal of every node's output."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeVar, assert_never

from snncompile.errors import GraphError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Op,
    Output,
    Pool,
    Readout,
    Resonator,
    Scale,
    Shape,
    SigmaDelta,
    Stateful,
    kind,
)
from snncompile.ir.signals import Analog, Count, Fixed, Signal, Signed, Spike

T = TypeVar("T")
MESSAGE_BITS = 24  # what a graded message of a machine may be wide, sign included


def shapes(graph: Graph) -> dict[str, Shape]:
    """The shape of every node's output, without batch and time. Raises ``GraphError`` naming the node."""

    def of(name: str, op: Op, arriving: list[Shape]) -> Shape:
        different = sorted(set(arriving))
        if len(different) > 1:
            shown = ", ".join(
                f"{edge.source} {list(shape)}" for edge, shape in zip(graph.into(name), arriving, strict=True)
            )
            raise GraphError(
                f"its incoming shapes differ: {shown}", where=graph.label(name), why="edges into a node add"
            )
        return shape_of(graph.label(name), op, different[0] if different else None)

    return _settle(graph, of, "shape")


def signals(graph: Graph) -> dict[str, Signal]:
    """The declared signal of every node's output."""
    return _settle(graph, lambda _, op, arriving: _signal_of(op, arriving), "signal")


def _settle(graph: Graph, of: Callable[[str, Op, list[T]], T], what: str) -> dict[str, T]:
    """Values that follow from the incoming ones; loops start at populations, which declare theirs."""
    known: dict[str, T] = {}
    waiting = list(graph.order)
    while waiting:
        left, declared = [], False
        for name in waiting:
            op = graph.nodes[name]
            edges = graph.into(name)
            arriving = [known[edge.source] for edge in edges if edge.source in known]
            if len(arriving) == len(edges):
                known[name] = of(name, op, arriving)
            elif isinstance(op, Stateful) and name not in known:
                known[name] = of(name, op, [])
                declared = True
                left.append(name)  # once more, when all that arrives is known
            else:
                left.append(name)
        if len(left) == len(waiting) and not declared:
            raise GraphError(
                f"its {what} depends on itself", where=graph.label(left[0]), remedy="a loop needs a population"
            )
        waiting = left
    return known


def shape_of(label: str, op: Op, arriving: Shape | None) -> Shape:
    """The output shape of an op that receives ``arriving`` (None: no edge). Raises ``GraphError``."""
    if arriving is None:
        if isinstance(op, Input | Neuron | Readout | SigmaDelta | Resonator):
            return op.shape
        raise GraphError("nothing arrives", where=label, remedy="connect it or remove it")
    match op:
        case Input():
            raise GraphError("an input has an incoming edge", where=label)
        case Output() | Norm() | Scale():
            if isinstance(op, Norm) and op.mean.shape not in ((), arriving[:1]):
                raise GraphError(f"normalises {list(op.mean.shape)} channels, gets {list(arriving)}", where=label)
            return arriving
        case Resonator():
            if arriving != (2, *op.shape):
                raise GraphError(f"takes complex {[2, *op.shape]}, gets {list(arriving)}", where=label)
            return op.shape
        case Neuron() | Readout() | SigmaDelta():
            if arriving != op.shape:
                raise GraphError(f"has shape {list(op.shape)}, gets {list(arriving)}", where=label)
            return op.shape
        case Dense():
            if len(op.weight.shape) != 2 or prod(arriving) != op.weight.shape[1]:
                raise GraphError(f"weights {list(op.weight.shape)} do not take {list(arriving)}", where=label)
            return (op.weight.shape[0],)
        case Flatten():
            if op.shape is not None and prod(op.shape) != prod(arriving):
                raise GraphError(f"cannot show {list(arriving)} as {list(op.shape)}", where=label)
            return (prod(arriving),) if op.shape is None else op.shape
        case Pool():
            if len(arriving) != len(op.kernel) + 1:
                raise GraphError(f"pools {len(op.kernel)} axes, gets {list(arriving)}", where=label)
            ones = (1,) * len(op.kernel)
            return (arriving[0], *_extent(label, arriving[1:], op.kernel, op.stride, op.padding, ones))
        case Conv():
            return _conv_shape(label, op, arriving)
        case _:
            assert_never(op)


def _conv_shape(label: str, op: Conv, arriving: Shape) -> Shape:
    if len(op.weight.shape) < 3 or op.groups < 1:
        raise GraphError(f"weights {list(op.weight.shape)} in {op.groups} groups are no convolution", where=label)
    out, inward, *kernel = op.weight.shape
    if len(arriving) != len(kernel) + 1 or arriving[0] != inward * op.groups or out % op.groups:
        shown = f"weights {list(op.weight.shape)} in {op.groups} groups"
        raise GraphError(f"{shown} do not take {list(arriving)}", where=label)
    spread = op.spread or (1,) * len(kernel)
    if len(spread) != len(kernel) or min(spread) < 1:
        raise GraphError(f"spread {list(op.spread)} needs one entry an axis, from 1", where=label)
    size = tuple(n * s for n, s in zip(arriving[1:], spread, strict=True))
    return (out, *_extent(label, size, tuple(kernel), op.stride, op.padding, op.dilation))


def _extent(label: str, size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    if len({len(size), len(kernel), len(stride), len(padding), len(dilation)}) != 1:
        raise GraphError("kernel, stride, padding and dilation need one entry an axis", where=label)
    if min((*kernel, *stride, *dilation), default=0) < 1 or min(padding) < 0:
        raise GraphError("kernel, stride and dilation start at 1, padding at 0", where=label)
    result = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(result) < 1:
        raise GraphError(f"kernel {list(kernel)} is larger than {list(size)}", where=label)
    return result


def add(arriving: list[Signal]) -> Signal:
    """The signal of a sum: spikes and counts of one amplitude add to a count, anything else to an analog value."""
    if len(arriving) == 1:
        return arriving[0]
    amplitudes = {signal.amplitude for signal in arriving if isinstance(signal, Spike | Count)}
    if arriving and len(amplitudes) == 1 and all(isinstance(signal, Spike | Count) for signal in arriving):
        most = sum(signal.most if isinstance(signal, Count) else 1 for signal in arriving)
        return Count(most, amplitudes.pop())
    return Analog()


def _signal_of(op: Op, arriving: list[Signal]) -> Signal:
    match op:
        case Input():
            return op.signal
        case Neuron():
            return Spike(op.amplitude)
        case Resonator():
            return Spike()
        case SigmaDelta():
            return Fixed(MESSAGE_BITS)
        case Output() | Flatten():
            return add(arriving)
        case Pool():
            return _pooled(op, add(arriving))
        case Dense() | Conv() | Norm() | Scale() | Readout():
            return Analog()
        case _:
            assert_never(op)


def _pooled(op: Pool, signal: Signal) -> Signal:
    cells = prod(op.kernel)
    match signal, op.kind:
        case _, "max":
            return signal
        case Spike() | Count(), _:
            most = signal.most if isinstance(signal, Count) else 1
            return Count(most * cells, signal.amplitude / cells if op.kind == "mean" else signal.amplitude)
        case Fixed(), "sum":
            return Fixed(signal.bits + (cells - 1).bit_length(), signal.unit, signal.signed)
        case ((Signed() | Analog() | Fixed()), _):
            return Analog()
        case _:
            raise AssertionError(kind(op))

"""Ops without state in the forms that NIR's readers share, each rewriting exact; maxima and transposed convolutions are
rewritten before (``nir_maxima.py``, ``nir_spread.py``).

    groups > 1           block-diagonal weights: what is added is a product with zero
    kernel 3 x 5         5 x 5 with rows of zeros, the padding grown by as many
    pool                 the convolution it is, where a reader has no such pool
    factor               Scale, or a diagonal of weights where a reader has no Scale

NIR's own type check counts the channels of a grouped convolution wrong and reads one side of a kernel, so that files
without the first two are read by nobody.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from snncompile.errors import GraphError, InternalError, NotRepresentable
from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Op, Output, Pool, Scale, Shape, real
from snncompile.ir.shapes import shape_of, shapes
from snncompile.passes.compose import as_conv, ungrouped

MOST_WEIGHTS = 1 << 26
"""The most numbers that are written for one op that a reader or NIR itself has no node for."""


def plain_linear(graph: Graph, nodes: frozenset[str]) -> Graph:
    """Every convolution, pool, flatten and dense op as a node of NIR among ``nodes``."""
    extent = shapes(graph)
    changed: dict[str, Op] = {}
    for name, op in graph.nodes.items():
        arriving = _arriving(graph, name, extent)
        match op:
            case Pool():
                changed[name] = _plain_pool(graph.label(name), op, arriving, nodes)
            case Conv():
                changed[name] = square(graph.label(name), op, arriving)
            case Scale() if "Scale" not in nodes:
                changed[name] = as_weights(graph.label(name), real(op.factor), arriving)
            case Flatten(shape=shape) if shape is not None and len(shape) > 1:
                raise NotRepresentable("gives a vector a form", where=graph.label(name), why="NIR's Flatten only joins")
            case _:
                pass
    return _flattened(graph.edit(changed))


def _arriving(graph: Graph, name: str, extent: dict[str, Shape]) -> Shape:
    edges = graph.into(name)
    return extent[edges[0].source] if edges else extent[name]


def _plain_pool(label: str, op: Pool, arriving: Shape, nodes: frozenset[str]) -> Op:
    if len(op.kernel) == 2 and {"sum": "SumPool2d", "mean": "AvgPool2d"}.get(op.kind) in nodes:
        return op
    return square(label, as_conv(op, arriving[0]), arriving)


def square(label: str, op: Conv, arriving: Shape) -> Conv:
    """The convolution without groups, its kernel as long on every axis. Raises ``NotRepresentable``."""
    if max(op.spread, default=1) > 1:
        raise InternalError(f"{label} is left")
    weight = ungrouped(op)
    kernel, longest = weight.shape[2:], max(weight.shape[2:])
    out = shape_of(label, op, arriving)
    # readers pad both sides of an axis alike: zeros of odd number fit where the stride leaves a place over
    for surplus in range(2):
        for early in range(2):
            before = [(longest + surplus - size + early) // 2 for size in kernel]
            padding = tuple(p + b * d for p, b, d in zip(op.padding, before, op.dilation, strict=True))
            whole = np.zeros((*weight.shape[:2], *(longest + surplus for _ in kernel)))
            inside = tuple(slice(first, first + size) for first, size in zip(before, kernel, strict=True))
            whole[(slice(None), slice(None), *inside)] = weight
            made = Conv(whole, op.bias, op.stride, padding, op.dilation, 1)
            if _out(made, arriving) == out:
                return made
    shown = " x ".join(map(str, kernel))
    raise NotRepresentable(
        f"its kernel {shown} cannot be made square",
        where=label,
        why="readers pad both sides of an axis alike, and an even and an odd side differ by an odd number of zeros",
        remedy="train it with sides that are both odd or both even",
    )


def _out(op: Conv, arriving: Shape) -> Shape | None:
    try:
        return shape_of("square", op, arriving)
    except GraphError:
        return None


def as_weights(label: str, factor: Reals, shape: Shape) -> Dense | Conv:
    """``factor x`` as weights: a diagonal. Raises ``NotRepresentable`` where it differs inside a channel."""
    if len(shape) == 1:
        _demand_small(label, shape[0])
        return Dense(np.diag(np.broadcast_to(factor, shape)))
    channels = np.broadcast_to(factor, shape).reshape(shape[0], -1)
    if np.any(channels != channels[:, :1]):
        raise NotRepresentable("its factors differ inside a channel", where=label, why="no reader of this has a Scale")
    _demand_small(label, shape[0])
    axes = len(shape) - 1
    weight = np.diag(channels[:, 0]).reshape(shape[0], shape[0], *(1,) * axes)
    return Conv(weight, None, (1,) * axes, (0,) * axes, (1,) * axes)


def _demand_small(label: str, size: int) -> None:
    if size * size > MOST_WEIGHTS:
        raise NotRepresentable(f"needs a diagonal of {size} weights a side", where=label, why="no reader has a Scale")


def _flattened(graph: Graph) -> Graph:
    """A ``Flatten`` in front of every dense op that reads an image."""
    for name in graph.names(Dense):
        extent = shapes(graph)
        if len(_arriving(graph, name, extent)) == 1:
            continue
        flat = graph.fresh(f"{name}_flat")
        edges = [Edge(edge.source, flat, edge.delay) if edge.target == name else edge for edge in graph.edges]
        graph = graph.edit({flat: Flatten()}, [*edges, Edge(flat, name)])
    return graph


def single_edges(graph: Graph) -> Graph:
    """An edge that stands k times becomes one through ``Scale(k)``: NIR 1.0.8 refuses duplicates."""
    for edge, times in Counter(graph.edges).items():
        if times > 1:
            name = graph.fresh(f"{edge.source}_{times}_times")
            kept = [other for other in graph.edges if other != edge]
            more = [Edge(edge.source, name, edge.delay), Edge(name, edge.target)]
            graph = graph.edit({name: Scale(np.asarray(float(times)))}, [*kept, *more])
    return graph


def single_output(graph: Graph) -> Graph:
    """One edge into every output: readers return several as a tuple instead of adding them."""
    for name in graph.names(Output):
        if len(graph.into(name)) > 1:
            graph = _through(graph, name, f"{name}_sum", Scale(np.asarray(1.0)))
    return graph


def _through(graph: Graph, target: str, wish: str, op: Op) -> Graph:
    """All that arrives at ``target`` passes ``op`` first."""
    name = graph.fresh(wish)
    edges = [Edge(edge.source, name, edge.delay) if edge.target == target else edge for edge in graph.edges]
    return graph.edit({name: op}, [*edges, Edge(name, target)])


def biased(graph: Graph, name: str, bias: Reals, shape: Shape) -> Graph:
    """``bias`` added to what arrives at a node at every step: into the weights in front, or an identity with a bias."""
    label = graph.label(name)
    rows = np.broadcast_to(bias, shape).reshape(shape[0], -1)
    if np.any(rows != rows[:, :1]):
        raise NotRepresentable("its bias differs inside a channel", where=label, why="NIR's biases are one a channel")
    for edge in graph.into(name):
        op = graph.nodes[edge.source]
        if isinstance(op, Dense | Conv) and not edge.delay and len(graph.out_of(edge.source)) == 1:
            own = 0.0 if op.bias is None else real(op.bias)
            return graph.edit({edge.source: replace(op, bias=own + rows[:, 0])})
    if not graph.into(name):
        raise NotRepresentable("nothing arrives", where=label, why="NIR makes an input of what nothing arrives at")
    return _through(graph, name, f"{name}_bias", replace(as_weights(label, np.asarray(1.0), shape), bias=rows[:, 0]))


def weights_in_float32(graph: Graph) -> Graph:
    """Weights and biases as the file will hold them, so that the graph is what the numbers say."""

    def rounded(values: Reals) -> Reals:
        return np.asarray(values, dtype=np.float32).astype(np.float64)

    changed: dict[str, Op] = {}
    for name, op in graph.nodes.items():
        if isinstance(op, Dense | Conv):
            bias = None if op.bias is None else rounded(real(op.bias))
            changed[name] = replace(op, weight=rounded(real(op.weight)), bias=bias)
        elif isinstance(op, Scale):
            changed[name] = Scale(rounded(real(op.factor)))
    return graph.edit(changed)

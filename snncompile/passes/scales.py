"""Factors on signals, moved into the weights beside them: what ``fuse_pool`` and ``canonical`` both do.

``W (f x) = (W f) x`` and ``f (W x) = (f W) x``; exact but for float64 rounding. A factor stays a ``Scale`` (one-to-one
synapses) where it has no weights beside it, or where those weights carry another signal as well.
"""

from __future__ import annotations

from dataclasses import replace

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Pool, Scale, Shape, real
from snncompile.ir.shapes import shapes
from snncompile.passes.compose import compose


def absorb_scales(graph: Graph) -> Graph:
    """Fold every ``Scale`` that can be folded, into what follows it or else into what comes before it."""
    while True:  # one that is folded may clear the way for the one before it
        before = graph
        for name in graph.names(Scale):
            graph = _forward(graph, name) or _backward(graph, name) or graph
        if graph is before:
            return graph


def _weights_after(graph: Graph, name: str) -> list[list[str]] | None:
    """The ways from a node through flattens and sums to weights that read nothing else; None where one ends
    elsewhere.
    """
    ways = []
    for edge in graph.out_of(name):
        way = []
        current = edge.target
        while _passes_factors(graph, current):
            way.append(current)
            current = graph.out_of(current)[0].target
        if not isinstance(graph.nodes[current], Dense | Conv) or len(graph.into(current)) != 1:
            return None
        ways.append([*way, current])
    return ways or None


def _passes_factors(graph: Graph, name: str) -> bool:
    """A node through which a factor of its only signal can be moved to its only reader."""
    op = graph.nodes[name]
    linear = isinstance(op, Flatten) or (isinstance(op, Pool) and op.kind != "max")
    return linear and len(graph.into(name)) == len(graph.out_of(name)) == 1


def _bypass(graph: Graph, name: str) -> list[Edge]:
    """The edges without a node: all that arrived at it goes on to all that read it, delays added."""
    passing = [
        Edge(before.source, after.target, before.delay + after.delay)
        for before in graph.into(name)
        for after in graph.out_of(name)
    ]
    return [edge for edge in graph.edges if name not in (edge.source, edge.target)] + passing


def _forward(graph: Graph, name: str) -> Graph | None:
    scale = graph.nodes[name]
    ways = _weights_after(graph, name)
    if ways is None or not isinstance(scale, Scale):
        return None
    extent = shapes(graph)
    changed = {}
    for way in ways:
        target = graph.nodes[way[-1]]
        assert isinstance(target, Dense | Conv)
        pools = [node for node in way if isinstance(graph.nodes[node], Pool)]
        if pools and not _one_a_channel(scale, extent[name]):
            return None
        folded = compose(scale, target, extent[pools[-1] if pools else name])
        if type(folded) is not type(target):
            return None  # the factor differs inside a channel: the weights would lose their form
        changed[way[-1]] = _with_bias(folded, target)
    return graph.edit({**changed, name: None}, _bypass(graph, name))


def _one_a_channel(scale: Scale, shape: Shape) -> bool:
    factor = real(scale.factor)
    return factor.ndim == 0 or factor.shape == (shape[0], *(1,) * (len(shape) - 1))


def _backward(graph: Graph, name: str) -> Graph | None:
    scale = graph.nodes[name]
    assert isinstance(scale, Scale)
    extent = shapes(graph)
    changed = {}
    for edge in graph.into(name):
        source = graph.nodes[edge.source]
        if not isinstance(source, Dense | Conv) or len(graph.out_of(edge.source)) != 1 or source.bias is not None:
            return None
        folded = compose(source, scale, extent[graph.into(edge.source)[0].source])
        if type(folded) is not type(source):
            return None
        changed[edge.source] = folded
    if not changed:
        return None
    return graph.edit({**changed, name: None}, _bypass(graph, name))


def _with_bias(folded: object, original: Dense | Conv) -> Dense | Conv:
    if isinstance(folded, Dense):
        return Dense(folded.weight, original.bias)
    assert isinstance(folded, Conv)
    return replace(folded, bias=original.bias)

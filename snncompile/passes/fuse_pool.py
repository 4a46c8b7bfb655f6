"""Mean pooling becomes sums of spikes, and linear neighbours compose where that is smaller.

``mean(x) = sum(x) / k^2``: the pool adds spikes (integers), the factor ``1/k^2`` goes into the weights that follow. A
convolution directly before a sum composes with it where the composed kernel has fewer taps to compute. Exact but for
float64 rounding. A maximum is left alone, and so is a factor that has no weights to go into (it stays as a ``Scale``).
"""

from __future__ import annotations

from math import prod

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Pool, Scale, number
from snncompile.ir.shapes import shape_of, shapes
from snncompile.passes import Passed
from snncompile.passes.compose import as_conv, compose, zeros_agree
from snncompile.passes.scales import absorb_scales


def fuse_pool(graph: Graph) -> Passed:
    """Rewrite every mean pool; compose what becomes smaller."""
    for name in graph.names(Pool):
        op = graph.nodes[name]
        assert isinstance(op, Pool)
        if op.kind == "mean":
            graph = _as_sum(graph, name, op)
    graph = absorb_scales(graph)
    notes = []
    for name in graph.names(Pool):
        smaller = _composed_with_conv(graph, name)
        if smaller is not None:
            notes.append(f"{name} (Pool) went into the convolution before it")
            graph = smaller
    return Passed(absorb_scales(graph), tuple(notes))


def _as_sum(graph: Graph, name: str, op: Pool) -> Graph:
    factor = graph.fresh(f"{name}_mean")
    edges = [Edge(factor, edge.target, edge.delay) if edge.source == name else edge for edge in graph.edges]
    return graph.edit(
        {name: Pool("sum", op.kernel, op.stride, op.padding), factor: Scale(number(1.0 / prod(op.kernel)))},
        [*edges, Edge(name, factor)],
    )


def _composed_with_conv(graph: Graph, name: str) -> Graph | None:
    """The graph with a pool inside the convolution before it, where that is possible and takes fewer taps."""
    pool = graph.nodes[name]
    assert isinstance(pool, Pool)
    arriving = graph.into(name)
    if pool.kind == "max" or len(arriving) != 1 or arriving[0].delay:
        return None
    before = arriving[0].source
    conv = graph.nodes[before]
    if (
        not isinstance(conv, Conv)
        or conv.bias is not None
        or len(graph.out_of(before)) != 1
        or len(graph.into(before)) != 1
    ):
        return None
    extent = shapes(graph)
    shape = extent[graph.into(before)[0].source]
    middle, after = extent[before], extent[name]
    if not zeros_agree(as_conv(conv, shape[0]), as_conv(pool, middle[0]), shape, middle):
        return None  # together they would be a matrix
    taps = prod(as_conv(conv, shape[0]).weight.shape) * prod(middle[1:])
    composed = compose(conv, pool, shape)
    if not isinstance(composed, Conv) or prod(composed.weight.shape) * prod(after[1:]) >= taps:
        return None
    assert shape_of(before, composed, shape) == after
    edges = [edge for edge in graph.edges if edge != arriving[0]]
    edges = [Edge(before, edge.target, edge.delay) if edge.source == name else edge for edge in edges]
    return graph.edit({before: composed, name: None}, edges)

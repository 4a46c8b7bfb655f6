"""Factors and sums that spread a signal out, as the transposed convolution that they were written for.

The form is that of ``backends/nir_spread.py``, to the last factor: n ways from the same nodes to one sum, of which the
j-th keeps place j of an axis, smears it over the whole axis, and keeps place s j of s n. Together they are the signal
with s - 1 zeros behind each value; the convolution that alone reads it takes the spread over. Exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from snncompile.frontends.nir_layers import window_sum
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Op, Scale, Shape, Size, real
from snncompile.ir.shapes import shapes


@dataclass(frozen=True)
class _Ways:
    """All ways into a sum, by their nodes, and the edges into the first ones: ``(source, delay)``."""

    before: tuple[str, ...]
    smeared: tuple[str, ...]
    after: tuple[str, ...]
    arriving: tuple[tuple[str, int], ...]


def transposed(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph with its transposed convolutions as such; which ones."""
    if not any(isinstance(op, Scale) for op in graph.nodes.values()):
        return graph, []
    extent, notes = shapes(graph), []
    nodes: dict[str, Op | None] = {}
    moved: list[Edge] = []
    for name in graph.names(Conv):
        op = graph.nodes[name]
        assert isinstance(op, Conv)
        spread = op.spread or (1,) * len(op.stride)
        arriving = tuple((edge.source, edge.delay) for edge in graph.into(name))
        readers: tuple[str, ...] = (name,)
        while found := _spread_by(graph, arriving, readers, extent):
            ways, by = found
            nodes |= dict.fromkeys([*ways.before, *ways.smeared, *ways.after, arriving[0][0]])
            spread = tuple(one * other for one, other in zip(spread, by, strict=True))
            arriving, readers = ways.arriving, ways.before
        if readers != (name,):
            nodes[name] = replace(op, spread=spread)
            moved += [Edge(source, name, delay) for source, delay in arriving]
            notes.append(f"{name}: reads a signal that is spread out, a transposed convolution")
    return (graph.edit(nodes, [*graph.edges, *moved]), notes) if notes else (graph, [])


def _spread_by(
    graph: Graph, arriving: tuple[tuple[str, int], ...], readers: tuple[str, ...], extent: Mapping[str, Shape]
) -> tuple[_Ways, Size] | None:
    """The ways into the one node that arrives, and what they spread by; None where it is no such sum, or where others
    than ``readers`` hear it.
    """
    if len(arriving) != 1 or arriving[0][1]:
        return None
    name = arriving[0][0]
    if sorted(edge.target for edge in graph.out_of(name)) != sorted(readers):
        return None
    ways = _ways(graph, name)
    by = ways and _by(graph, name, ways, extent)
    return (ways, by) if ways and by else None


def _ways(graph: Graph, name: str) -> _Ways | None:
    """Scale, sum over windows, Scale: on every edge into a node, and on no other."""
    op = graph.nodes[name]
    if not isinstance(op, Scale) or np.any(real(op.factor) != 1.0) or any(edge.delay for edge in graph.into(name)):
        return None
    stages = [tuple(edge.source for edge in graph.into(name))]
    for _ in range(2):
        found = [graph.into(one) for one in stages[-1]]
        if any(len(edges) != 1 or edges[0].delay for edges in found):
            return None
        stages.append(tuple(edges[0].source for edges in found))
    after, smeared, before = stages
    inside = (*after, *smeared, *before)
    if len(set(inside)) < len(inside) or any(len(graph.out_of(one)) != 1 for one in inside):
        return None
    given = {tuple(sorted((edge.source, edge.delay) for edge in graph.into(one))) for one in before}  # in any order
    scales = all(isinstance(graph.nodes[one], Scale) for one in (*after, *before))
    return _Ways(before, smeared, after, given.pop()) if scales and len(given) == 1 else None


def _by(graph: Graph, name: str, ways: _Ways, extent: Mapping[str, Shape]) -> Size:
    """What ways spread their signal by, axis by axis; nothing where they do something else."""
    coarse, fine = extent[ways.before[0]], extent[name]
    if len(coarse) != len(fine) or any(f % c for c, f in zip(coarse, fine, strict=True)):
        return ()
    by = tuple(f // c for c, f in zip(coarse[1:], fine[1:], strict=True))
    axes = [axis for axis, step in enumerate(by) if step > 1]
    if len(axes) != 1 or coarse[0] != fine[0]:
        return ()
    (axis,) = axes
    places, step = coarse[axis + 1], by[axis]
    seen = set()
    for before, smeared, after in zip(ways.before, ways.smeared, ways.after, strict=True):
        kept, shown = (_place(graph.nodes[one], shape, axis) for one, shape in ((before, coarse), (after, fine)))
        if kept is None or shown != kept * step or not _smears(graph.nodes[smeared], coarse, axis, (step - 1) * places):
            return ()
        seen.add(kept)
    return by if len(seen) == places == len(ways.before) else ()


def _place(op: Op, shape: Shape, axis: int) -> int | None:
    """The place of an axis that factors of 0 and 1 keep, alone and for all other axes."""
    assert isinstance(op, Scale)
    factor = real(op.factor)
    factor = factor.reshape((1,) * len(shape)) if not factor.ndim else factor
    rows = np.moveaxis(factor, axis + 1, 0).reshape(factor.shape[axis + 1], -1)
    line = rows[:, 0]
    if len(line) != shape[axis + 1] or np.any(rows != line[:, None]) or line.sum() != 1 or line.max() != 1:
        return None
    return int(line.argmax()) if np.count_nonzero(line) == 1 else None


def _smears(op: Op, shape: Shape, axis: int, pad: int) -> bool:
    """Whether an op is a sum over windows of ``pad + 1`` places of an axis, padded by ``pad``."""
    pool, axes = window_sum(op), len(shape) - 1
    kernel = tuple(pad + 1 if at == axis else 1 for at in range(axes))
    geometry = kernel, (1,) * axes, tuple(size - 1 for size in kernel)
    return pool is not None and (pool.kernel, pool.stride, pool.padding) == geometry

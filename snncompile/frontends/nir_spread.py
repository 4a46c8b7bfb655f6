"""Factors and sums that spread a signal out, as the transposed convolution that they were written for.

The form is that of ``backends/nir_spread.py``, to the last factor: n ways from the same nodes to one sum, of which the
j-th keeps place j of an axis, smears it over the whole axis, and keeps place s j of s n. Together they are a
convolution that copies, of a signal that is spread by s; a convolution behind it takes the spread over. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Op, Pool, Scale, Shape, real
from snncompile.ir.shapes import shapes


@dataclass(frozen=True)
class _Ways:
    """The ways into a sum: the nodes on them, and the edges into the first ones."""

    inside: tuple[str, ...]
    arriving: tuple[tuple[str, int], ...]
    before: tuple[str, ...]
    smeared: tuple[str, ...]
    after: tuple[str, ...]


def transposed(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph with its transposed convolutions as such; which ones."""
    copying: dict[str, tuple[int, ...]] = {}
    for name in graph.names(Scale):
        ways = _ways(graph, name)
        by = ways and _spread(graph, name, ways)
        if ways is None or not by:
            continue
        channels, axes = shapes(graph)[name][0], len(by)
        eye = np.eye(channels).reshape(channels, channels, *(1,) * axes)
        copies = Conv(eye, None, (1,) * axes, (0,) * axes, (1,) * axes, spread=by)
        edges = [edge for edge in graph.edges if edge.target != name]
        edges += [Edge(source, name, delay) for source, delay in ways.arriving]
        graph = graph.edit({**dict.fromkeys(ways.inside), name: copies}, edges)
        copying[name] = by
    found: dict[str, None] = {}
    for name, by in reversed(copying.items()):  # what follows first: its own reader is the convolution then
        graph, last = _taken_over(graph, name, by)
        found[last] = None
    return graph, [f"{name}: reads a signal that is spread out, a transposed convolution" for name in found]


def _ways(graph: Graph, name: str) -> _Ways | None:
    """Scale, sum over windows, Scale: on every edge into a node, and on no other."""
    op = graph.nodes[name]
    if not isinstance(op, Scale) or np.any(real(op.factor) != 1.0):
        return None
    stages: list[tuple[str, ...]] = [tuple(edge.source for edge in graph.into(name) if not edge.delay)]
    for _ in range(2):
        found = [graph.into(one) for one in stages[-1]]
        if any(len(edges) != 1 or edges[0].delay for edges in found):
            return None
        stages.append(tuple(edges[0].source for edges in found))
    after, smeared, before = stages
    inside = (*after, *smeared, *before)
    alone = len(set(inside)) == len(inside) and all(len(graph.out_of(one)) == 1 for one in inside)
    scales = all(isinstance(graph.nodes[one], Scale) for one in (*after, *before))
    given = {tuple((edge.source, edge.delay) for edge in graph.into(one)) for one in before}
    if not (alone and scales and len(given) == 1 and len(after) == len(graph.into(name))):
        return None
    return _Ways(inside, given.pop(), before, smeared, after)


def _spread(graph: Graph, name: str, ways: _Ways) -> tuple[int, ...]:
    """What ways spread their signal by, axis by axis; nothing where they do something else."""
    extent = shapes(graph)
    coarse, fine = extent[ways.before[0]], extent[name]
    by = tuple(f // c for c, f in zip(coarse[1:], fine[1:], strict=False))
    axes = [axis for axis, step in enumerate(by) if step > 1]
    if (
        len(coarse) != len(fine)
        or len(axes) != 1
        or any(c * s != f for c, s, f in zip(coarse[1:], by, fine[1:], strict=True))
    ):
        return ()
    (axis,) = axes
    places, step = coarse[axis + 1], by[axis]
    seen = set()
    for before, smeared, after in zip(ways.before, ways.smeared, ways.after, strict=True):
        kept, shown = _place(graph.nodes[before], coarse, axis), _place(graph.nodes[after], fine, axis)
        if kept is None or shown != kept * step or not _smears(graph.nodes[smeared], coarse, axis, (step - 1) * places):
            return ()
        seen.add(kept)
    return by if len(seen) == places == len(ways.before) else ()


def _place(op: Op, shape: Shape, axis: int) -> int | None:
    """The place of an axis that factors of 0 and 1 keep, alone and for all other axes."""
    assert isinstance(op, Scale)
    rows = np.moveaxis(np.broadcast_to(real(op.factor), shape), axis + 1, 0).reshape(shape[axis + 1], -1)
    line: Reals = rows[:, 0]
    if np.any(rows != line[:, None]) or np.any((line != 0) & (line != 1)) or line.sum() != 1:
        return None
    return int(line.argmax())


def _smears(op: Op, shape: Shape, axis: int, pad: int) -> bool:
    """Whether an op is a sum over windows of ``pad + 1`` places of an axis, padded by as many less one."""
    axes = len(shape) - 1
    kernel = tuple(pad + 1 if at == axis else 1 for at in range(axes))
    sizes = (1,) * axes, tuple(size - 1 for size in kernel)
    match op:
        case Pool(kind="sum"):
            return (op.kernel, op.stride, op.padding) == (kernel, *sizes)
        case Conv(bias=None, groups=1):  # where NIR has no pool of one axis
            ones = np.eye(shape[0]).reshape(shape[0], shape[0], *(1,) * axes) * np.ones(kernel)
            same = (op.stride, op.padding, op.dilation) == (*sizes, (1,) * axes) and max(op.spread, default=1) == 1
            return same and np.array_equal(real(op.weight), ones)
        case _:
            return False


def _taken_over(graph: Graph, name: str, by: tuple[int, ...]) -> tuple[Graph, str]:
    """The spread of a convolution that only copies moved into the convolution that alone reads it."""
    behind = graph.out_of(name)
    if len(behind) != 1 or behind[0].delay or len(graph.into(behind[0].target)) != 1:
        return graph, name
    target = behind[0].target
    op = graph.nodes[target]
    if not isinstance(op, Conv):
        return graph, name
    whole = tuple(one * other for one, other in zip(op.spread or (1,) * len(by), by, strict=True))
    edges = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    edges += [Edge(edge.source, target, edge.delay) for edge in graph.into(name)]
    return graph.edit({name: None, target: replace(op, spread=whole)}, edges), target

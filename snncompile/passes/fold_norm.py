"""Batch normalisation into the weights before it (TET, Eq. 6).

With ``a = sqrt(variance + epsilon)`` and the norm behind ``sum_i (W_i x_i + b_i)``::

    W_i <- W_i g / a,    b_i <- b_i g / a,    b_1 <- b_1 + shift - mean g / a

Preserves every value exactly but for float64 rounding. Declines, and says why, where the norm does not read dense or
convolution weights directly, or where those weights have another consumer (it would see scaled values).
Source: Deng et al., "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting", ICLR 2022.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Norm, real
from snncompile.passes import Passed


def fold_norm(graph: Graph) -> Passed:
    """Fold every norm that can be folded."""
    notes: list[str] = []
    for name in graph.names(Norm):
        reason = _declined(graph, name)
        if reason:
            notes.append(f"{name} (Norm) stays: {reason}")
        else:
            graph = _folded(graph, name)
    return Passed(graph, tuple(notes))


def _declined(graph: Graph, name: str) -> str:
    """Why a norm cannot be folded; empty where it can."""
    for edge in graph.into(name):
        source = graph.nodes[edge.source]
        if not isinstance(source, Dense | Conv):
            return f"it reads {graph.label(edge.source)}, which has no weights to fold into"
        if edge.delay:
            return f"the edge from {edge.source} has a delay, and the norm of nothing is not nothing"
        others = [other.target for other in graph.out_of(edge.source) if other.target != name]
        if others:
            return f"the weights of {edge.source} have another consumer, {', '.join(others)}"
        if len(graph.out_of(edge.source)) > 1:
            return f"{edge.source} arrives twice"
    return "" if graph.into(name) else "nothing arrives"


def _folded(graph: Graph, name: str) -> Graph:
    norm = graph.nodes[name]
    assert isinstance(norm, Norm)
    gain = real(norm.gain) / np.sqrt(real(norm.variance) + norm.epsilon)
    shift = real(norm.shift) - real(norm.mean) * gain
    sources = [edge.source for edge in graph.into(name)]
    nodes = {
        source: _scaled(graph.nodes[source], gain, shift if index == 0 else None)
        for index, source in enumerate(sources)
    }
    edges = []
    for edge in graph.edges:
        if edge.source == name:
            edges += [Edge(source, edge.target, edge.delay) for source in sources]
        elif edge.target != name:
            edges.append(edge)
    return graph.edit({**nodes, name: None}, edges)


def _scaled(op: object, gain: Reals, shift: Reals | None) -> Dense | Conv:
    assert isinstance(op, Dense | Conv)
    weight = real(op.weight)
    rows = np.broadcast_to(gain, weight.shape[:1]).reshape(-1, *(1,) * (weight.ndim - 1))
    bias = None if op.bias is None else real(op.bias) * gain
    if shift is not None:
        bias = np.broadcast_to(shift, weight.shape[:1]) if bias is None else bias + shift
    if isinstance(op, Dense):
        return Dense(weight * rows, bias)
    return replace(op, weight=weight * rows, bias=bias)

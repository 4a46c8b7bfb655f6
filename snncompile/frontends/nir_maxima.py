"""A sum of spikes that a Threshold compares with less than one of them is their maximum.

    [sum_k s[k] > t] = max_k s[k]   for spikes s of 0 or 1 and 0 <= t < 1 (>=: 0 < t <= 1)

Exact. It is what a maximum is written as (``backends/nir_maxima.py``), and what machines, counts and reports know a
maximum by.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snncompile.frontends.nir_layers import window_sum
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Neuron, Op, To, real
from snncompile.ir.spikes import spikes_into


def maxima(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph with a maximum for each such pair, under the name of its Threshold; what was taken for one."""
    nodes: dict[str, Op | None] = {}
    moved: list[Edge] = []
    behind: dict[str, str] = {}  # a maximum -> what it is over

    def population(name: str) -> str:
        """The population behind maxima of maxima; the ways to it are made short."""
        way = [name]
        while way[-1] in behind:
            way.append(behind[way[-1]])
        behind.update(dict.fromkeys(way[:-1], way[-1]))
        return way[-1]

    for name in graph.names(Neuron):
        op, into = graph.nodes[name], graph.into(name)
        if not isinstance(op, Neuron) or not _compares(op) or len(into) != 1:
            continue
        total = into[0].source
        pool = window_sum(graph.nodes[total])
        if pool is None or len(graph.out_of(total)) != 1:
            continue
        spikes = spikes_into(graph, total)
        if spikes is None or spikes.worth != 1.0 or population(spikes.source) == name:
            continue  # the last: a loop needs a population
        behind[name] = spikes.source
        (before,) = graph.into(total)
        nodes |= {total: None, name: replace(pool, kind="max")}
        moved.append(Edge(before.source, name, before.delay + into[0].delay))
    return graph.edit(nodes, [*graph.edges, *moved]), [
        f"{name}: a sum of spikes, compared with less than one, is their maximum" for name in behind
    ]


def _compares(op: Neuron) -> bool:
    """Whether a population keeps nothing and fires where at least one spike arrives."""
    threshold = real(op.threshold)
    one = (threshold >= 0) & (threshold < 1) if op.fires == ">" else (threshold > 0) & (threshold <= 1)
    same = all(np.all(real(value) == 1.0) for value in (op.alpha, op.beta, op.gain)) and op.amplitude == 1.0
    zero = isinstance(op.reset, To) and not any(np.any(real(v)) for v in (op.bias, op.rest, op.initial))
    return bool(np.all(one)) and same and zero

"""A maximum over spikes as a sum and a comparison: NIR has no maximum.

Of the cells of a window, each 0 or a, the maximum is a where any holds it, which is where their sum is above a/2::

    max_k a s[k] = a [sum_k s[k] > 1/2]

Sums are integers, so no sum lies at 1/2 and ``>`` and ``>=`` agree; padding is cells of 0. The comparison is a
Threshold. Readers that have none take a neuron that is reset to zero: whatever arrives makes it fire, so that it never
keeps anything. Exact. A maximum over anything else than the spikes of one population is no sum, and is refused.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from snncompile.backends.nir_neurons import plain_neuron
from snncompile.backends.nir_profiles import Profile
from snncompile.backends.nir_sketch import compared
from snncompile.errors import NotRepresentable
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Neuron, Op, Pool, Scale, number
from snncompile.ir.shapes import shapes
from snncompile.ir.spikes import Spikes, spikes_into


def without_maxima(graph: Graph, profile: Profile) -> Graph:
    """Every maximum as a sum, ``NAME_sum``, and the neuron ``NAME`` that fires where it is not zero.

    Raises ``NotRepresentable`` naming the maximum, and what it is over.
    """
    for name in graph.names(Pool):
        op = graph.nodes[name]
        if isinstance(op, Pool) and op.kind == "max":
            spikes = spikes_into(graph, name)
            if spikes is None:
                raise NotRepresentable(
                    "takes a maximum of anything but the spikes of one population",
                    where=graph.label(name),
                    why="NIR has no such node, and only where all that arrives is 0 or one value is it a sum",
                    remedy="pool spikes, or pool by the mean",
                )
            graph = _any_of(graph, name, op, spikes, profile)
    return graph


def _any_of(graph: Graph, name: str, op: Pool, spikes: Spikes, profile: Profile) -> Graph:
    shape, label = shapes(graph)[name], graph.label(name)
    threshold, sum_ = 0.5 * spikes.sent, replace(op, kind="sum")
    if "SumPool2d" not in profile.nodes and "AvgPool2d" in profile.nodes:
        threshold, sum_ = threshold / prod(op.kernel), replace(op, kind="mean")
    fires = compared(shape, threshold)
    if "Threshold" not in profile.nodes:
        if profile.reset == "subtract":
            why = f"the readers of profile {profile.name} read no Threshold, and subtract the threshold of a neuron"
            raise NotRepresentable("takes a maximum", where=label, why=why, remedy="another --nir-profile")
        fires = Neuron(shape, beta=number(0.5), threshold=number(threshold))
    total = graph.fresh(f"{name}_sum")
    nodes: dict[str, Op | None] = {name: fires, total: sum_}
    kept = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    after, behind = name, graph.out_of(name)
    if spikes.worth != 1.0 and behind:
        after = graph.fresh(f"{name}_worth")
        nodes[after] = Scale(number(spikes.worth))
        kept.append(Edge(name, after))
    into = [Edge(spikes.source, total, spikes.delay), Edge(total, name)]
    graph = graph.edit(nodes, [*kept, *into, *(Edge(after, edge.target, edge.delay) for edge in behind)])
    return plain_neuron(_without_ends(graph), name, profile, soft=False)


def _without_ends(graph: Graph) -> Graph:
    """Without factors that nothing reads any more."""
    while idle := [name for name in graph.names(Scale) if not graph.out_of(name)]:
        graph = graph.edit(dict.fromkeys(idle))
    return graph

"""Delays where a profile's readers put them.

NIR has a ``Delay`` node that no importer reads; a loop without one is run by each reader as its order of nodes has it:
what was not computed yet in a step is taken from the step before. Two orders are in use, and both are imitated here, so
that a file is written only where the reader's delays are the network's:

    names         nodes in the order of their names, each when what it reads is there; a node of a loop that reads more
                  than one signal does not wait for those that come back to it (nirtorch 2.6, ``nir_to_torch``)
    depth first   the order of a walk from the input, nothing waits (nirtorch 2.6, ``load``)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import networkx as nx
import numpy as np

from snncompile.backends.nir_profiles import Profile
from snncompile.errors import NotRepresentable
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Neuron, Pool, Scale

Pair = tuple[str, str]


def place_delays(graph: Graph, profile: Profile) -> Graph:
    """Every delay of one step at the edge that closes its loop; loops long enough for the readers.

    Raises ``NotRepresentable`` for delays that the readers do not have.
    """
    if profile.loops == "and Delay":
        return graph
    late = [edge for edge in graph.edges if edge.delay]
    for edge in late:
        label = f"{edge.source} -> {edge.target}"
        closes = nx.has_path(graph.network, edge.target, edge.source)
        if profile.loops == "none" or not closes or edge.delay > 1:
            what = f"has a delay of {edge.delay} steps" if not closes or edge.delay > 1 else "closes a loop"
            why = f"the readers of profile {profile.name} have " + (
                "no loops" if profile.loops == "none" else "a delay of one step, where a loop closes, and no other"
            )
            raise NotRepresentable(what, where=label, why=why, remedy="--nir-profile canonical says it")
    for edge in late:
        graph = _moved_to_the_end(graph, edge)
    return _longer(graph) if profile.long_loops else graph


def _moved_to_the_end(graph: Graph, edge: Edge) -> Graph:
    """A delay moved on through ops without bias that read nothing else, as far as the node where the loop closes."""
    while edge in graph.edges and _waits(graph, edge.target):
        behind = graph.out_of(edge.target)
        kept = [other for other in graph.edges if other != edge and other not in behind]
        moved = [Edge(other.source, other.target, other.delay + 1) for other in behind]
        graph = graph.edit({}, [*kept, Edge(edge.source, edge.target), *moved])
        if len(moved) != 1 or moved[0].delay > 1:
            for other in moved:
                graph = _moved_to_the_end(graph, other)
            return graph
        edge = moved[0]
    return graph


def _waits(graph: Graph, name: str) -> bool:
    """Whether a delay may stand behind a node as well as in front of it: it makes nothing of nothing."""
    op = graph.nodes[name]
    bare = isinstance(op, Dense | Conv) and op.bias is None
    return (bare or isinstance(op, Flatten | Scale | Pool)) and len(graph.into(name)) == 1


def _longer(graph: Graph) -> Graph:
    """A population and its recurrent weights as a loop of three nodes: an identity behind the weights."""
    for edge in [edge for edge in graph.edges if edge.delay]:
        op = graph.nodes[edge.source]
        shorter = [back for back in graph.into(edge.source) if back.source == edge.target]
        if shorter and isinstance(op, Dense) and isinstance(graph.nodes[edge.target], Neuron):
            name = graph.fresh(f"{edge.source}_pass")
            kept = [other for other in graph.edges if other != edge]
            more = [Edge(edge.source, name), Edge(name, edge.target, edge.delay)]
            graph = graph.edit({name: Dense(np.eye(op.weight.shape[0]))}, [*kept, *more])
    return graph


def implied(graph: Graph) -> frozenset[Edge]:
    """The delays that a loop of a single population has without being told: one step, where the loop comes back to it.

    A loop whose delays are not all of this kind holds ``Delay`` nodes.
    """
    found: set[Edge] = set()
    for part in nx.strongly_connected_components(graph.network):
        populations = [name for name in part if isinstance(graph.nodes[name], Neuron)]
        inside = [edge for edge in graph.edges if edge.source in part and edge.target in part]
        if len(populations) != 1 or not inside:
            continue
        back = [edge for edge in inside if edge.target == populations[0]]
        if all(edge.delay == (1 if edge in back else 0) for edge in inside):
            found |= set(back)
    return frozenset(found)


def as_read(names: Sequence[str], edges: Sequence[Pair], start: str, walk: str) -> frozenset[Pair] | None:
    """The edges that a reader takes from the step before; None where it cannot run the graph at all."""
    return _by_names(names, edges, start) if walk == "names" else _depth_first(edges, start)


def _by_names(names: Sequence[str], edges: Sequence[Pair], start: str) -> frozenset[Pair] | None:
    network: nx.DiGraph[str] = nx.DiGraph(list(edges))
    behind = {name: nx.descendants(network, name) | {name} if name in network else {name} for name in names}
    waiting, done = deque(sorted(names)), {start}
    late: set[Pair] = set()
    idle = 0
    while waiting and idle <= len(waiting):
        name = waiting.popleft()
        if name == start:
            continue
        into = [edge for edge in edges if edge[1] == name]
        missing = [edge for edge in into if edge[0] not in done]
        if any(edge[0] not in behind[name] or len(into) == 1 for edge in missing):
            waiting.append(name)
            idle += 1
            continue
        late |= set(missing)
        done.add(name)
        idle = 0
    return None if waiting else frozenset(late)


def _depth_first(edges: Sequence[Pair], start: str) -> frozenset[Pair]:
    order: list[str] = []
    stack = [start]
    while stack:
        name = stack.pop()
        if name not in order:
            order.append(name)
            stack += [target for source, target in reversed(edges) if source == name]
    place = {name: index for index, name in enumerate(order)}
    return frozenset(edge for edge in edges if place.get(edge[0], len(order)) >= place.get(edge[1], -1))

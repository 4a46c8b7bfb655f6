"""Loops that are too short for a machine on which every synapse takes time: spikes in them arrive later than trained.

Every synapse of such a loop gets the delay that it lacks, so that all populations of the loop step together. (Later
feedback alone would not do: what biases fire while the pipeline fills would reach the sample.)

Asked for, never by itself. A network of neurons that are reset by subtraction settles into the same equilibrium
whatever the delays inside it, so rates stay close; spikes do not. Such a mapping is *equilibrium-equivalent*, never
spike-exact, and the error of its rates is measured (``snncompile/verify.py``). A loop that cannot be made longer in
this sense is refused: one with a neuron that forgets its potential when it fires.

Source: Xiao, Meng, Zhang, Wang, Lin, NeurIPS 2021, for the equilibrium.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import networkx as nx

from snncompile.errors import NotRepresentable
from snncompile.ir.connections import Connection, connections, populations
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Neuron
from snncompile.passes import Passed
from snncompile.target import Target


def longer_loops(graph: Graph, target: Target, in_parts: Collection[str] = ()) -> Passed:
    """Add to the synapses of short loops in a legal graph the delay that they lack; a note for each that is later.

    ``in_parts``: synapses that ``divide`` cuts, which take a second hop.
    """
    notes: list[str] = []
    while loop := _short(graph, target, in_parts):
        _demand_soft_resets(graph, loop)
        hops = list(pairwise([*loop, loop[0]]))
        for one in connections(graph):
            missing = _takes(one, target, in_parts) - one.delay
            if (one.source, one.target) in hops and missing > 0:
                graph = _delayed(graph, one, missing)
                notes.append(
                    f"{one.synapse} arrives {missing} {'step' if missing == 1 else 'steps'} later than trained"
                )
    return Passed(graph, tuple(notes))


def _takes(connection: Connection, target: Target, in_parts: Collection[str]) -> int:
    """Steps from one population to the next."""
    return target.synapse_latency * (2 if connection.synapse in in_parts else 1)


def _short(graph: Graph, target: Target, in_parts: Collection[str]) -> list[str]:
    """The populations of a loop whose delay is less than its synapses take, in their order; none: no loop is."""
    flow: nx.DiGraph[str] = nx.DiGraph()
    flow.add_nodes_from(populations(graph))
    for one in connections(graph):
        spare = one.delay - _takes(one, target, in_parts)
        known = flow.get_edge_data(one.source, one.target)
        if known is None or spare < known["weight"]:
            flow.add_edge(one.source, one.target, weight=spare)
    for name, _, spare in nx.selfloop_edges(flow, data="weight"):  # on which find_negative_cycle fails
        if spare < 0:
            return [name]
    for component in nx.strongly_connected_components(flow):
        part = nx.DiGraph(flow.subgraph(component))
        if nx.negative_edge_cycle(part):
            return list(nx.find_negative_cycle(part, min(component))[:-1])
    return []


def _demand_soft_resets(graph: Graph, loop: list[str]) -> None:
    for name in loop:
        op = graph.nodes[name]
        if isinstance(op, Neuron) and not isinstance(op.reset, By):
            raise NotRepresentable(
                "is in a loop that is too short, and forgets its potential when it fires",
                where=graph.label(name),
                why="rates settle whatever the delay only where a reset subtracts",
                remedy='train it with feedback that arrives later, or with reset = "subtract"',
            )


def _delayed(graph: Graph, connection: Connection, steps: int) -> Graph:
    first = connection.edges[0]
    later = Edge(first.source, first.target, first.delay + steps)
    return graph.edit({}, [later if edge == first else edge for edge in graph.edges])

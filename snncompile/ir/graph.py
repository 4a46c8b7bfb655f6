"""The graph: immutable nodes and edges; networkx serves the algorithms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import networkx as nx

from snncompile.errors import GraphError
from snncompile.ir.ops import Op, kind


@dataclass(frozen=True)
class Edge:
    """Delivers the value that ``source`` had ``delay`` steps ago to ``target``; zero before the first step."""

    source: str
    target: str
    delay: int = 0


class Graph:
    """Nodes by name and the edges between them. Edges into a node add.

    Raises ``GraphError`` for an edge without an end or with a negative delay. Everything else that makes a graph
    wrong is the grammar of its level (``ir/check.py``).
    """

    def __init__(self, nodes: Mapping[str, Op], edges: Iterable[Edge]) -> None:
        self.nodes: Mapping[str, Op] = MappingProxyType(dict(nodes))
        self.edges: tuple[Edge, ...] = tuple(edges)
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in self.nodes:
                    raise GraphError(f"no node {end!r}", where=f"edge {edge.source} -> {edge.target}")
            if edge.delay < 0:
                raise GraphError(f"negative delay {edge.delay}", where=f"edge {edge.source} -> {edge.target}")

    def __reduce__(self) -> tuple[type[Graph], tuple[dict[str, Op], tuple[Edge, ...]]]:
        """As it was made, for other processes: the view of the nodes does not travel."""
        return Graph, (dict(self.nodes), self.edges)

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges)"

    @cached_property
    def _ends(self) -> tuple[dict[str, list[Edge]], dict[str, list[Edge]]]:
        into: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        out_of: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            into[edge.target].append(edge)
            out_of[edge.source].append(edge)
        return into, out_of

    def into(self, name: str) -> list[Edge]:
        """The edges that end in a node, in the order of the graph."""
        return self._ends[0][name]

    def out_of(self, name: str) -> list[Edge]:
        """The edges that start at a node, in the order of the graph."""
        return self._ends[1][name]

    def label(self, name: str) -> str:
        """``conv2 (Conv)``: how messages name a node."""
        return f"{name} ({kind(self.nodes[name])})"

    def names(self, *ops: type[Op]) -> list[str]:
        """The nodes of the given kinds, in the order of computation."""
        return [name for name in self.order if isinstance(self.nodes[name], ops)]

    @cached_property
    def network(self) -> nx.MultiDiGraph[str]:
        """The graph for networkx, each edge with its ``delay``."""
        network: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        network.add_nodes_from(self.nodes)
        network.add_edges_from((edge.source, edge.target, {"delay": edge.delay}) for edge in self.edges)
        return network

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The order of computation inside one step: every node after what it reads without delay.

        Ties go by the order of the nodes in the graph, so the order is a function of the graph alone. Raises
        ``GraphError`` naming a loop without delay.
        """
        instant: nx.DiGraph[str] = nx.DiGraph()
        instant.add_nodes_from(self.nodes)
        instant.add_edges_from((edge.source, edge.target) for edge in self.edges if edge.delay == 0)
        rank = {name: index for index, name in enumerate(self.nodes)}
        try:
            return tuple(nx.lexicographical_topological_sort(instant, key=rank.__getitem__))
        except nx.NetworkXUnfeasible:
            loop = [source for source, _ in nx.find_cycle(instant)]
            raise GraphError(
                "the loop has no delay: " + " -> ".join([*loop, loop[0]]),
                where=loop[0],
                why="within a step a value cannot depend on itself",
                remedy="give one of its edges a delay of at least 1",
            ) from None

    def edit(
        self,
        nodes: Mapping[str, Op | None] | None = None,
        edges: Iterable[Edge] | None = None,
    ) -> Graph:
        """A new graph with some nodes replaced, added or (None) removed, and other edges where given.

        Edges of a removed node go with it. Order of the remaining nodes is kept; new nodes come last.
        """
        changed = dict(nodes or {})
        kept = {name: changed.get(name, op) for name, op in self.nodes.items()}
        kept |= {name: op for name, op in changed.items() if name not in kept}
        final = {name: op for name, op in kept.items() if op is not None}
        gone = {name for name, op in kept.items() if op is None}
        source = self.edges if edges is None else tuple(edges)
        return Graph(final, (edge for edge in source if edge.source not in gone and edge.target not in gone))

    def fresh(self, name: str) -> str:
        """``name``, or ``name_2``, ``name_3`` ... where it is taken."""
        if name not in self.nodes:
            return name
        index = 2
        while f"{name}_{index}" in self.nodes:
            index += 1
        return f"{name}_{index}"

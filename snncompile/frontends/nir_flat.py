"""Graphs in graphs, and nodes that only pass a signal on, taken out of a NIR graph.

An edge into a nested graph goes on to what its Input feeds, one out of it comes from what its Output reads; their nodes
are called ``outer.inner``. A node that passes a signal on, a step or more late or not at all, becomes edges: one from
each source to each target. Edges into a node add, so that is the same sum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from snncompile.errors import ReadError
from snncompile.frontends.nir_file import MOST_EDGES
from snncompile.frontends.nir_record import Net, Node
from snncompile.ir.graph import Edge


@dataclass
class Flat:
    """One level of nodes; ``notes``: what a reader of the file should know."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def into(self, name: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.target == name]

    def out_of(self, name: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.source == name]

    def pass_on(self, name: str, delay: int = 0) -> None:
        """Take out a node that passes its signal on, so many steps late."""
        arriving, leaving = self.into(name), self.out_of(name)
        if any(edge.source == name for edge in arriving):
            raise self.nodes[name].fail("feeds itself, and nothing else is in the loop")
        if len(self.edges) + len(arriving) * len(leaving) > MOST_EDGES:
            raise self.nodes[name].fail(f"joins {len(arriving):,} sources to {len(leaving):,} targets")
        kept = [edge for edge in self.edges if name not in (edge.source, edge.target)]
        self.edges = kept + [
            Edge(one.source, other.target, one.delay + delay + other.delay) for one in arriving for other in leaving
        ]
        del self.nodes[name]


def flatten(net: Net, where: str) -> Flat:
    """Raises ``ReadError`` for edges without ends, and for nested graphs whose edges do not say which port is meant."""
    flat = Flat()
    ports: list[str] = []
    _add(flat, net, "", where, ports)
    for name in ports:
        flat.pass_on(name)
    _complete(flat)
    return flat


def _add(flat: Flat, net: Net, prefix: str, where: str, ports: list[str]) -> None:
    names = {name: f"{prefix}{name}" for name in net.nodes}
    for name, node in net.nodes.items():
        if names[name] in flat.nodes:
            raise ReadError(f"two nodes are called {names[name]}", where=where)
        if isinstance(node, Net):
            _add(flat, node, f"{names[name]}.", f"{where}: {name}", ports)
        else:
            flat.nodes[names[name]] = node
            if prefix and node.kind in ("Input", "Output"):
                ports.append(names[name])
    _check_ends(net, where)
    for (source, target), times in Counter(net.edges).items():
        if times > 1:
            flat.notes.append(
                f"the edge {prefix}{source} -> {prefix}{target} stands {times} times and counts so often: NIR 1.0.8"
                " refuses such a file, versions before it added"
            )
    for source, target in net.edges:
        one, other = _port(net, source, "Output", where), _port(net, target, "Input", where)
        flat.edges.append(Edge(prefix + one, prefix + other))
    if len(flat.edges) > MOST_EDGES:
        raise ReadError(f"has more than {MOST_EDGES:,} edges", where=where)


def _check_ends(net: Net, where: str) -> None:
    for source, target in net.edges:
        for end in (source, target):
            if end not in net.nodes:
                raise ReadError(f"no node {end[:80]!r}", where=f"{where}: edge {source[:80]} -> {target[:80]}")


def _port(net: Net, name: str, kind: str, where: str) -> str:
    """The node that an end of an edge means: of a nested graph its only Input or Output."""
    node = net.nodes[name]
    if not isinstance(node, Net):
        return name
    found = [inner for inner, one in node.nodes.items() if isinstance(one, Node) and one.kind == kind]
    if len(found) != 1:
        why = "an edge of NIR names the graph and not its port"
        raise ReadError(f"the graph has {len(found)} nodes {kind}", where=f"{where}: {name}", why=why)
    return f"{name}.{found[0]}"


def _complete(flat: Flat) -> None:
    """Inputs and outputs that ``nir.read`` would add: at nodes that nothing feeds, and that feed nothing."""
    inputs = [name for name, node in flat.nodes.items() if node.kind == "Input"]
    for name in inputs:
        if flat.into(name):
            raise flat.nodes[name].fail("an Input that something feeds")
    for name in [name for name, node in flat.nodes.items() if node.kind == "Output"]:
        if flat.out_of(name):
            raise flat.nodes[name].fail("an Output that feeds something")
        if not flat.into(name):
            raise flat.nodes[name].fail("nothing arrives")
    fed, feeding = {edge.target for edge in flat.edges}, {edge.source for edge in flat.edges}
    for name, node in list(flat.nodes.items()):
        if node.kind != "Input" and name not in fed:
            _add_end(flat, name, node, "Input")
        if node.kind != "Output" and name not in feeding:
            if node.kind == "Input":
                raise node.fail("an Input that feeds nothing")
            _add_end(flat, name, node, "Output")


def _add_end(flat: Flat, name: str, node: Node, kind: str) -> None:
    end = f"{kind.lower()}_{name}"
    if end in flat.nodes:
        raise node.fail(f"nothing {'feeds it' if kind == 'Input' else 'reads it'}")
    flat.nodes[end] = Node(kind, {}, f"{node.where}, its {kind}")
    flat.edges.append(Edge(end, name) if kind == "Input" else Edge(name, end))
    flat.notes.append(f"{end} was added: nothing {'feeds' if kind == 'Input' else 'reads'} {name}")

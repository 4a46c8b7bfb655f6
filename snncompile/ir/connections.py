"""Populations and what connects them, in a graph whose linear ops are single synapses (after ``legalise``)."""

from __future__ import annotations

from dataclasses import dataclass

from snncompile.errors import InternalError
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Readout, Scale, Synapse


@dataclass(frozen=True)
class Connection:
    """``source`` population -> ``synapse`` -> ``target`` population; ``edges`` are all edges on the way, source
    first.
    """

    source: str
    synapse: str
    target: str
    edges: tuple[Edge, ...]

    @property
    def delay(self) -> int:
        """Steps from source to target, all edges together."""
        return sum(edge.delay for edge in self.edges)


def populations(graph: Graph) -> list[str]:
    """Inputs, neurons and read-outs in the order of computation."""
    return graph.names(Input, Neuron, Readout)


def answering(graph: Graph) -> list[str]:
    """The read-outs that somebody reads: all but partial sums."""
    return [name for name in graph.names(Readout) if not is_partial(graph.nodes[name])]


def is_partial(op: Op) -> bool:
    """Whether an op is a part of the sum of another population."""
    return isinstance(op, Readout) and op.kind == "partial"


def connections(graph: Graph) -> list[Connection]:
    """Every connection, in the order of the targets and of the edges into them."""
    return [
        connection
        for target in graph.names(Neuron, Readout)
        for edge in graph.into(target)
        for connection in [_traced(graph, edge)]
    ]


def synapse_of(graph: Graph, connection: Connection) -> Synapse:
    """The op that holds a connection's weights."""
    op = graph.nodes[connection.synapse]
    assert isinstance(op, Dense | Conv | Scale)
    return op


def _traced(graph: Graph, last: Edge) -> Connection:
    """Walk back from the edge into a population to the population it comes from."""
    edges, synapse = [last], ""
    while True:
        name = edges[0].source
        op = graph.nodes[name]
        if isinstance(op, Input | Neuron | Readout):
            break
        arriving = graph.into(name)
        if len(arriving) != 1 or len(graph.out_of(name)) != 1 or not isinstance(op, Dense | Conv | Scale | Flatten):
            raise InternalError(f"{graph.label(name)} is no single synapse: legalise has not run")
        if not isinstance(op, Flatten):
            if synapse:
                raise InternalError(f"{name} and {synapse} follow each other: legalise has not run")
            synapse = name
        edges.insert(0, arriving[0])
    if not synapse:
        raise InternalError(f"{edges[0].source} reaches {last.target} without weights: canonical has not run")
    return Connection(edges[0].source, synapse, last.target, tuple(edges))

"""From the flat nodes of a NIR graph to one of level ``read``: shapes, delays on edges, a step for every loop."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from math import prod

import networkx as nx
import numpy as np

from snncompile.errors import GraphError, ReadError
from snncompile.frontends.nir_current import currents
from snncompile.frontends.nir_flat import Flat
from snncompile.frontends.nir_layers import LINEAR, compact, layer, takes
from snncompile.frontends.nir_neurons import ANALOG, CURRENT, SPIKING, STATEFUL, Fired, leak_of, population, stateless
from snncompile.frontends.nir_neurons import readout as read_out
from snncompile.frontends.nir_record import MOST_NEURONS, Node
from snncompile.frontends.nir_time import Time
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Input, Neuron, Op, Output, Readout, Scale, Shape, Stateful
from snncompile.ir.shapes import shape_of, shapes
from snncompile.ir.signals import Analog

MOST_DELAYS = 64  # different ones in one Delay


def build(flat: Flat, time: Time, where: str) -> Graph:
    """Raises ``ReadError`` and ``UnsupportedNode``, each naming its node."""
    for name in [name for name, node in flat.nodes.items() if node.kind == "Delay"]:
        _delay(flat, name, time)
    builder = _Builder(flat, time, _fuse(flat, time))
    builder.run(where)
    edges = _step_in_loops(builder.nodes, builder.edges, time, where)
    order = Graph(builder.nodes, edges).order
    return Graph({name: builder.nodes[name] for name in order}, edges)


def _delay(flat: Flat, name: str, time: Time) -> None:
    """A Delay becomes the delay of edges; where neurons differ, one way for each delay."""
    node = flat.nodes[name]
    steps = time.steps(node)
    different = np.unique(steps)
    if different.size == 1:
        flat.pass_on(name, int(different[0]))
        return
    if different.size > MOST_DELAYS:
        raise node.fail(f"has {different.size} different delays", f"{MOST_DELAYS} are read")
    arriving, leaving = flat.into(name), flat.out_of(name)
    for late in map(int, different):
        way = f"{name}_after{late}"
        if way in flat.nodes:
            raise node.fail(f"another node is called {way}")
        flat.nodes[way] = Node("Scale", {"scale": (steps == late).astype(np.float64)}, node.where)
        flat.edges += [Edge(edge.source, way, edge.delay + late) for edge in arriving]
        flat.edges += [Edge(way, edge.target, edge.delay) for edge in leaving]
    flat.edges = [edge for edge in flat.edges if name not in (edge.source, edge.target)]
    del flat.nodes[name]


def _fuse(flat: Flat, time: Time) -> dict[str, Fired]:
    """Potentials that only a Threshold reads: it goes, and with it the Scale that makes it a soft reset."""
    into, out_of = _by_end(flat.edges)
    fired: dict[str, Fired] = {}
    renamed: dict[str, str] = {}
    gone: set[str] = set()
    for name, node in flat.nodes.items():
        if node.kind not in ANALOG or len(out_of[name]) != 1:
            continue
        first = out_of[name][0]
        if first.delay or into[first.target] != [first]:
            continue
        threshold = flat.nodes[first.target]
        if threshold.kind != "Threshold":
            continue
        back = None if node.kind in CURRENT else _back(flat, into, out_of, first.target, name)
        if back is not None and np.any(leak_of(node, time).beta >= 1.0):
            back = None
        fired[name] = Fired(threshold, None if back is None else flat.nodes[back])
        renamed[first.target] = name
        gone |= {first.target} | ({back} if back else set())
    flat.edges = [
        Edge(renamed.get(edge.source, edge.source), edge.target, edge.delay)
        for edge in flat.edges
        if edge.target not in gone and (edge.source not in gone or edge.source in renamed)
    ]
    for name in gone:
        del flat.nodes[name]
    return fired


def _back(
    flat: Flat, into: dict[str, list[Edge]], out_of: dict[str, list[Edge]], threshold: str, name: str
) -> str | None:
    """The Scale that leads from a Threshold, and nothing else, to the potential that it reads."""
    for edge in out_of[threshold]:
        back = edge.target
        leads = len(into[back]) == 1 and [one.target for one in out_of[back]] == [name]
        if flat.nodes[back].kind == "Scale" and leads and edge.delay + out_of[back][0].delay <= 1:
            return back
    return None


def _by_end(edges: list[Edge]) -> tuple[dict[str, list[Edge]], dict[str, list[Edge]]]:
    into: dict[str, list[Edge]] = defaultdict(list)
    out_of: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        into[edge.target].append(edge)
        out_of[edge.source].append(edge)
    return into, out_of


class _Builder:
    """Goes from the inputs along the edges; a node is built when the shape of one of its sources is known."""

    def __init__(self, flat: Flat, time: Time, fired: dict[str, Fired]) -> None:
        self.flat, self.time, self.fired = flat, time, fired
        self.into, self.out_of = _by_end(flat.edges)
        self.currents = currents(flat, self.into, self.out_of, fired, time)
        self.nodes: dict[str, Op] = {}
        self.edges: list[Edge] = []
        self.shapes: dict[str, Shape] = {}

    def run(self, where: str) -> None:
        waiting = deque(name for name, node in self.flat.nodes.items() if node.kind == "Input")
        for name in waiting:
            self._put(name, Input(self._given(name), self.time.options.input or Analog()), None)
        starts = deque(name for name, node in self.flat.nodes.items() if node.kind in STATEFUL and takes(node))
        while len(self.shapes) < len(self.flat.nodes):
            if not waiting:
                while starts and starts[0] in self.shapes:
                    starts.popleft()
                if not starts:
                    lost = next(name for name in self.flat.nodes if name not in self.shapes)
                    raise self.flat.nodes[lost].fail("its shape depends on itself", "a loop without a start")
                self._build(starts[0], takes(self.flat.nodes[starts[0]]) or ())
                waiting.append(starts[0])
            name = waiting.popleft()
            for edge in self.out_of[name]:
                if edge.target not in self.shapes:
                    self._build(edge.target, self.shapes[name])
                    waiting.append(edge.target)
        self._join()

    def _given(self, name: str) -> Shape:
        node = self.flat.nodes[name]
        if node.has("shape"):
            return node.shape()
        for edge in self.out_of[name]:
            if (shape := takes(self.flat.nodes[edge.target])) is not None:
                return shape
        raise node.fail("its shape is not known", remedy="an Input with a shape")

    def _put(self, name: str, op: Op, arriving: Shape | None) -> None:
        node = self.flat.nodes[name]
        try:
            shape = shape_of(name, op, arriving)
        except GraphError as error:
            raise node.fail(error.what, error.why) from error
        if prod(shape) > MOST_NEURONS:
            raise node.fail(f"gives {list(shape)}, {prod(shape):,} values", f"{MOST_NEURONS:,} are read")
        self.nodes[name], self.shapes[name] = op, shape

    def _build(self, name: str, arriving: Shape) -> None:
        node = self.flat.nodes[name]
        if node.kind == "Output":
            if node.has("shape") and _long(node.shape()) != _long(arriving):
                raise node.fail(f"says {list(node.shape())}, gets {list(arriving)}")
            self._put(name, Output(), arriving)
        elif node.kind in LINEAR:
            wanted = [shape for edge in self.out_of[name] if (shape := takes(self.flat.nodes[edge.target]))]
            self._put(name, layer(node, arriving, wanted, self.time.notes), arriving)
        elif node.kind in SPIKING or name in self.fired:
            op = population(node, arriving, self.time, self.fired.get(name))
            self._put(name, replace(op, alpha=self.currents.alpha.get(name, op.alpha)), arriving)
        elif name in self.currents.filters:
            gain = self.currents.filters[name].gain
            self._put(name, Scale(compact(gain.reshape(()) if gain.size == 1 else gain, arriving)), arriving)
            self.time.notes.append(f"{name} is the synaptic current of the neurons behind it")
        elif node.kind == "Threshold":
            self._put(name, stateless(node, arriving, self.time), arriving)
        else:
            self._read(name, node, arriving)

    def _read(self, name: str, node: Node, arriving: Shape) -> None:
        """A potential that is read as it is, by outputs or by what it goes on to."""
        op, gain = read_out(node, arriving, self.time)
        self._put(name, op, arriving)
        if np.any(gain != 1.0):
            self._between(name, {f"{name}_gain": (Scale(gain), 0)})

    def _between(self, name: str, ways: dict[str, tuple[Scale, int]]) -> None:
        """Put scales, each with its delay, between a population and all that feeds it."""
        for way, (scale, late) in ways.items():
            if way in self.nodes or way in self.flat.nodes:
                raise self.flat.nodes[name].fail(f"another node is called {way}")
            self.nodes[way] = scale
            self.edges += [Edge(edge.source, way, edge.delay + late) for edge in self.into[name]]
            self.edges.append(Edge(way, name))
        self.into[name] = []

    def _join(self) -> None:
        """The edges; what the discretisation of a synaptic current adds to them."""
        for name, node in self.flat.nodes.items():
            if node.kind in CURRENT and self.time.semantics == "exact":
                self._coupled(name, node)
            late = int(node.kind in CURRENT and self.time.options.current == "old")
            self.edges += [Edge(edge.source, name, edge.delay + late) for edge in self.into[name]]

    def _coupled(self, name: str, node: Node) -> None:
        now, before = self.time.coupled(node)
        self._between(name, {f"{name}_now": (Scale(now), 0), f"{name}_before": (Scale(before), 1)})


def read_over_time(graph: Graph, time: Time) -> Graph:
    """A read-out in front of every Output that reads what no population holds: what ``readout`` says is made of it.

    Once maxima are known: a Threshold that is one is no population.
    """
    kind = time.options.readout
    for name in graph.names(Output) if kind else ():
        into = graph.into(name)
        if kind is None or all(isinstance(graph.nodes[edge.source], Stateful) for edge in into):
            continue
        between = graph.fresh(f"{name}_readout")
        readout = Readout(shapes(graph)[name], kind=kind, decay=0.0 if kind == "last" else 1.0)
        edges = [replace(edge, target=between) if edge.target == name else edge for edge in graph.edges]
        graph = graph.edit({between: readout}, [*edges, Edge(between, name)])
        time.notes.append(f"{name} shows the {kind} of what arrives over time")
    return graph


def _long(shape: Shape) -> list[int]:
    """Without axes of one: some exporters give an Output the batch and the time as well."""
    return [size for size in shape if size > 1]


def _step_in_loops(nodes: dict[str, Op], edges: list[Edge], time: Time, where: str) -> list[Edge]:
    """Every loop takes a step: into the node that ``loop`` names, else into its only population."""
    chosen = time.options.loop
    for name in chosen:
        if name not in nodes:
            raise ReadError(f"no node {name!r}", where=where, why="loop=")
    found = False
    for loop in _loops(nodes, edges):
        found = True
        inside = set(loop)
        into = [name for name in chosen if name in inside]
        populations = [name for name in loop if isinstance(nodes[name], Neuron)]
        if not populations:
            raise ReadError("a loop without a neuron: " + " -> ".join([*loop, loop[0]]), where=where)
        if not into and len(populations) > 1:
            shown = ", ".join(sorted(populations))
            why = "a value cannot depend on itself within a step, and the place of the delay changes the spikes"
            raise ReadError(
                f"leaves open where the loop through {shown} takes its step",
                where=where,
                why=why,
                remedy=f"--nir loop={sorted(populations)[0]} (the node that hears the loop a step late; several: A+B)",
            )
        into = into or populations
        time.notes.append(f"the loop {' -> '.join([*loop, loop[0]])} reaches {', '.join(into)} one step late")
        edges = [
            Edge(edge.source, edge.target, 1)
            if edge.target in into and edge.source in inside and not edge.delay
            else edge
            for edge in edges
        ]
    if chosen and not found:
        raise ReadError("has no loop without a delay", where=where, why="loop=", remedy="leave it out")
    for loop in _loops(nodes, edges):
        raise ReadError(
            "a loop is left without a delay: " + " -> ".join([*loop, loop[0]]), where=where, remedy="--nir loop=A+B"
        )
    return edges


def _loops(nodes: dict[str, Op], edges: list[Edge]) -> list[list[str]]:
    """The sets of nodes that reach each other within a step, each in the order of one of its cycles where it is one."""
    instant: nx.DiGraph[str] = nx.DiGraph()
    instant.add_nodes_from(nodes)
    instant.add_edges_from((edge.source, edge.target) for edge in edges if not edge.delay)
    found = []
    for part in nx.strongly_connected_components(instant):
        inner = instant.subgraph(part)
        if len(part) > 1 or inner.number_of_edges():
            cycle = [source for source, _ in nx.find_cycle(inner, min(part))]
            found.append(cycle if set(cycle) == part else cycle + sorted(part - set(cycle)))
    return sorted(found)

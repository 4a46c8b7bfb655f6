"""Time on a pipelined machine: every population gets a phase, every connection the delay that makes it arrive in time.

A synapse takes ``L`` steps (the sheet's latency), so population k runs its logical step t at machine step t +
phase(k). For a connection with logical delay l, the total delay in machine steps and the part of it that is
programmed are ::

    D = phase(target) - phase(source) + l  >=  L,      d = D - L,    0 <= d <= the sheet's delay

a system of difference constraints (retiming: Leiserson and Saxe, "Retiming synchronous circuitry", Algorithmica
1991). The smallest phases are longest paths, found by Bellman and Ford's algorithm; a loop that cannot be satisfied
is the message. The graph keeps its meaning: an edge of delay D delivers the value of step t - D, and a population's
sample starts at its phase.

Where the machine has no delay on a connection, relay populations hold the spikes: LIF without memory that fires one
step after each spike. A connection from an input needs neither: the host gives the same value again later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np

from snncompile.errors import LoopTooShort, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.connections import Connection, connections, populations, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Input, Neuron, Op, Output, Readout, Scale, Shape, To
from snncompile.ir.shapes import shapes
from snncompile.passes import Passed
from snncompile.run import integer
from snncompile.run.steps import latency
from snncompile.target import Target


def balance(graph: Graph, target: Target, steps: int | None = None) -> Passed:
    """Write phases and delays; ``steps``: the length of a sample, where it is known already.

    Raises ``LoopTooShort`` naming the loop, ``NotRepresentable`` for a delay between steps that biases disturb (for
    some length of a sample, where ``steps`` does not say which).
    """
    every = connections(graph)
    phases = _phases(graph, every, target)
    timed = _relayed(graph, every, phases, target)
    notes = [f"{name}: relays hold what the machine cannot delay" for name in timed.nodes if name not in graph.nodes]
    if any(connection.delay for connection in every):
        _check_loops_stay_clean(timed, {c.synapse: c.delay for c in every}, target, steps)
        notes.append("signals cross from step to step: samples run one by one, each from a fresh state")
    return Passed(timed, tuple(notes))


def streams(graph: Graph) -> bool:
    """Whether samples may follow each other in one run: nothing crosses a step before ``balance``."""
    return not any(edge.delay for edge in graph.edges)


def _phases(graph: Graph, every: list[Connection], target: Target) -> dict[str, int]:
    """The smallest phases that satisfy every connection; inputs at 0."""
    constraints: nx.DiGraph[str] = nx.DiGraph()
    start = ""  # no node has an empty name
    constraints.add_weighted_edges_from((start, name, 0) for name in populations(graph))
    for connection in every:
        least = target.synapse_latency - connection.delay  # phase(target) >= phase(source) + least
        known = constraints.get_edge_data(connection.source, connection.target)
        if known is None or -least < known["weight"]:
            constraints.add_edge(connection.source, connection.target, weight=-least)
    try:
        longest = nx.single_source_bellman_ford_path_length(constraints, start)
    except nx.NetworkXUnbounded:
        raise _too_short(constraints, start, every, target) from None
    # an input reads nothing, so its phase is 0 already
    return {name: int(-longest[name]) for name in populations(graph)}


def _too_short(constraints: nx.DiGraph[str], start: str, every: list[Connection], target: Target) -> LoopTooShort:
    loop = nx.find_negative_cycle(constraints, start)
    hops = list(pairwise(loop))
    delay = sum(min(c.delay for c in every if (c.source, c.target) == hop) for hop in hops)
    needs = len(hops) * target.synapse_latency
    return LoopTooShort(
        f"the loop {' -> '.join(loop)} has a delay of {delay} {'step' if delay == 1 else 'steps'} and needs {needs}",
        where=loop[0],
        why=f"each of its {len(hops)} synapses takes {target.synapse_latency} ({target.cite('synapse.latency')})",
        remedy=f"train it with feedback that arrives {needs - delay} {'step' if needs - delay == 1 else 'steps'} later",
    )


def _most(op: Op, target: Target) -> int:
    """The largest programmable delay of a synapse op."""
    if isinstance(op, Conv):
        return target.delay.convolution
    return target.delay.one_to_one if isinstance(op, Scale) else target.delay.dense


def _relayed(graph: Graph, every: list[Connection], phases: Mapping[str, int], target: Target) -> Graph:
    """The graph with phases on its populations, total delays on its connections, and relays where needed."""
    extent = shapes(graph)
    latency_ = target.synapse_latency
    nodes: dict[str, Op] = {
        name: replace(op, phase=phases[name]) if isinstance(op, Neuron | Readout) else op
        for name, op in graph.nodes.items()
    }
    edges = [edge for edge in graph.edges if isinstance(graph.nodes[edge.target], Output)]
    relays: dict[tuple[str, int], str] = {}
    for connection in every:
        total = phases[connection.target] - phases[connection.source] + connection.delay
        source = connection.source
        most = _most(synapse_of(graph, connection), target)
        if not isinstance(graph.nodes[source], Input):
            while total - latency_ > most:
                hold = min(total - latency_, latency_ + target.delay.one_to_one if most else latency_)
                if (source, hold) not in relays:
                    relays[source, hold] = _relay(nodes, edges, source, extent[connection.source], hold, target)
                source = relays[source, hold]
                total -= hold
        first, *rest = connection.edges
        edges.append(Edge(source, first.target, total))
        edges += [Edge(edge.source, edge.target) for edge in rest]
    order = Graph(nodes, edges).order
    return Graph({name: nodes[name] for name in order}, edges)


def _relay(nodes: dict[str, Op], edges: list[Edge], source: str, shape: Shape, hold: int, target: Target) -> str:
    """A population that repeats ``source`` ``hold`` steps later; its name.

    Its neuron keeps nothing (both decays complete but for the last bit, which truncation drops) and a spike's weight
    of 2 (or the sheet's step, where that is more) exceeds its threshold of 1, so it fires exactly when a spike arrives.
    """
    name = f"{source}_relay{hold if hold > target.synapse_latency else ''}"
    while name in nodes or f"{name}_in" in nodes:
        name += "_"
    bits, before = target.decay.bits, nodes[source]
    assert isinstance(before, Neuron)
    nodes[name] = Neuron(
        shape,
        alpha=FixedPoint.number(2**bits, -bits),
        beta=FixedPoint.number(2**bits - 1, -bits),
        threshold=FixedPoint.number(1),
        bias=FixedPoint.number(0),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
        phase=before.phase + hold,
    )
    nodes[f"{name}_in"] = Scale(FixedPoint.number(max(2, target.weight.step)))
    edges += [Edge(source, f"{name}_in", hold), Edge(f"{name}_in", name)]
    return name


def _check_loops_stay_clean(timed: Graph, logical: Mapping[str, int], target: Target, steps: int | None) -> None:
    """Refuse a graph in which spikes from before a population's first step reach a later step.

    Before its phase a population already integrates its bias. What it fires then is cleared with its targets, unless it
    travels a connection with a logical delay l and left less than l steps before the phase. What happens before the
    phases depends on biases and resets alone, so a run without input shows all of it. A population whose phase is
    larger than a sample is cleared before it as well, which moves those spikes: each length of a sample is a case of
    its own, up to the latency (longer ones are all alike).
    """
    late = latency(timed)
    if not late:
        return
    for length in range(late, 0, -1) if steps is None else [min(steps, late)]:
        shown = _before_phases(timed, late, length, target)
        if length == late and not any(spikes.any() for spikes in shown.values()):
            return  # no bias fires from rest, so none does wherever it is put back to rest
        for connection in connections(timed):
            source, span = timed.nodes[connection.source], logical.get(connection.synapse, 0)
            if not isinstance(source, Neuron) or not span:
                continue
            if shown[connection.source][max(0, source.phase - span) : source.phase].any():
                raise NotRepresentable(
                    f"biases make it fire before its first step, and {connection.synapse} carries that into the sample",
                    where=timed.label(connection.source),
                    why="delays are not cleared on the machine",
                    remedy="train the loop without positive biases, or with a longer delay",
                )


def _before_phases(
    timed: Graph, late: int, length: int, target: Target
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Spikes [machine step, neuron] of the first ``late`` machine steps of samples of ``length`` when nothing is given.

    With phases moved down by whole samples to 0 or below, resets are where they were and every step is recorded.
    """
    moved = {
        name: replace(op, phase=-(-op.phase % length))
        for name, op in timed.nodes.items()
        if isinstance(op, Neuron | Readout)
    }
    samples = -(-late // length) + 1
    nothing = {
        name: np.zeros((samples, length, *op.shape), dtype=np.int64)
        for name, op in timed.nodes.items()
        if isinstance(op, Input)
    }
    trace = integer.run(timed.edit(moved), nothing, target, stream=True)
    return {
        name: spikes.reshape(samples * length, -1)[-moved[name].phase :][:late] for name, spikes in trace.spikes.items()
    }

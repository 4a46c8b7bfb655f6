"""Time on a pipelined machine: every population gets a phase, every connection the delay that makes it arrive in time.

A synapse takes ``L`` steps (the sheet's latency), so population k runs its logical step t at machine step t +
phase(k). For a connection with logical delay l, the total delay in machine steps and the part of it that is
programmed are ::

    D = phase(target) - phase(source) + l  >=  L,      d = D - L,    0 <= d <= the sheet's delay

a system of difference constraints (retiming: Leiserson and Saxe, "Retiming synchronous circuitry", Algorithmica
1991). The smallest phases are longest paths, found by Bellman and Ford's algorithm; a loop that cannot be satisfied
is the message. The graph keeps its meaning: an edge of delay D delivers the value of step t - D, and a population's
sample starts at its phase.

Where the machine has no delay on a connection, one of two things holds the spikes, whichever adds less, counted in
neurons and synaptic words: a relay population (LIF without memory that repeats each spike; what waits for the same
source as long shares it), or the convolution written out as the matrix it is, which has a delay. A connection from an
input needs neither: the host gives the same value again later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import ceil, prod

import networkx as nx
import numpy as np

from snncompile.errors import LoopTooShort, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.connections import Connection, connections, is_partial, populations, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Readout, Scale, Synapse, To
from snncompile.ir.shapes import shapes
from snncompile.passes import Passed
from snncompile.passes.compose import matrix
from snncompile.run import integer
from snncompile.run.steps import latency
from snncompile.target import Target

WEIGHT_BITS, INDEX_BITS = 8, 12  # of a synapse, as ``place`` counts them


def balance(graph: Graph, target: Target, steps: int | None = None) -> Passed:
    """Write phases and delays; ``steps``: the length of a sample, where it is known already.

    Raises ``LoopTooShort`` naming the loop, ``NotRepresentable`` for a delay between steps that biases disturb (for
    some length of a sample, where ``steps`` does not say which).
    """
    every = connections(graph)
    phases = _sent_in_time(graph, _phases(graph, every, target), every, target)
    timed, notes = _Holding(graph, phases, target).timed(every)
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


def _sent_in_time(graph: Graph, phases: dict[str, int], every: list[Connection], target: Target) -> dict[str, int]:
    """The phases with every partial sum as late as its synapse demands: one that is early waits in the delay of that
    synapse, and where this is too short its inputs, which are spikes, wait instead: no relay repeats integers.
    """
    longest = target.synapse_latency + target.delay.one_to_one
    found = dict(phases)
    for one in every:
        if is_partial(graph.nodes[one.source]):
            found[one.source] = max(phases[one.source], phases[one.target] + one.delay - longest)
    return found


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


class _Holding:
    """The graph with phases on its populations and total delays on its connections, and what holds spikes on the way
    where the machine's synapses cannot.
    """

    def __init__(self, graph: Graph, phases: Mapping[str, int], target: Target) -> None:
        self.graph, self.phases, self.target, self.extent = graph, phases, target, shapes(graph)
        self.nodes: dict[str, Op] = {
            name: replace(op, phase=phases[name]) if isinstance(op, Neuron | Readout) else op
            for name, op in graph.nodes.items()
        }
        self.edges = [edge for edge in graph.edges if isinstance(graph.nodes[edge.target], Output)]
        self.relays: dict[tuple[str, int], str] = {}
        self.notes: list[str] = []

    def timed(self, every: list[Connection]) -> tuple[Graph, list[str]]:
        """The graph, and which way was chosen where."""
        for connection in every:
            self._connect(connection)
        order = Graph(self.nodes, self.edges).order
        return Graph({name: self.nodes[name] for name in order}, self.edges), self.notes

    def _connect(self, connection: Connection) -> None:
        total = self.phases[connection.target] - self.phases[connection.source] + connection.delay
        source, op = connection.source, synapse_of(self.graph, connection)
        extra, most = total - self.target.synapse_latency, _most(op, self.target)
        rest = list(connection.edges[1:])
        if not isinstance(self.graph.nodes[source], Input) and extra > most:
            holds = self._holds(extra, most)
            relayed, unrolled = self._relays_add(source, holds), self._matrix_adds(op, connection)
            if isinstance(op, Conv) and extra <= self.target.delay.dense and unrolled < relayed:
                rest = self._unrolled(op, connection)
                told = f"written out as a matrix of {unrolled} words more, which delays; relays would add {relayed}"
            else:
                for hold in holds:
                    source = self._relay(source, hold)
                total -= sum(holds)
                span = f"{extra} {'step' if extra == 1 else 'steps'}"
                told = f"{source} holds for {span} what the machine cannot delay, for {relayed} neurons and words"
                told += f"; a matrix would add {unrolled}" if isinstance(op, Conv) else ""
            self.notes.append(f"{connection.synapse}: {told}")
        self.edges.append(Edge(source, connection.edges[0].target, total))  # the synapse, or a view in front of it
        self.edges += [Edge(edge.source, edge.target) for edge in rest]

    def _holds(self, extra: int, most: int) -> list[int]:
        """How long each of a chain of relays holds, so that the synapse behind them can delay the rest."""
        longest = self.target.synapse_latency + self.target.delay.one_to_one
        holds = []
        while extra > most:
            holds.append(min(extra, longest))
            extra -= holds[-1]
        return holds

    def _relays_add(self, source: str, holds: list[int]) -> int:
        """Neurons and synaptic words of a chain of relays, those that are there already not counted."""
        neurons, bits = prod(self.extent[source]), INDEX_BITS + WEIGHT_BITS
        each = neurons + ceil(neurons * bits / self.target.core.word_bits)
        at: str | None = source
        total = 0
        for hold in holds:
            at = self.relays.get((at, hold)) if at is not None else None
            total += 0 if at is not None else each
        return total

    def _matrix_adds(self, op: Synapse, connection: Connection) -> int:
        """Synaptic words of a convolution as a matrix over those of its kernel."""
        if not isinstance(op, Conv):
            return 0
        word = self.target.core.word_bits
        before, after = (prod(self.extent[name]) for name in (connection.source, connection.target))
        out, inward, *kernel = op.weight.shape
        shared = inward * op.groups * prod(kernel) * (ceil(out / op.groups * WEIGHT_BITS / word) + 1)
        return before * ceil(after * (INDEX_BITS + WEIGHT_BITS) / word) - shared

    def _unrolled(self, op: Conv, connection: Connection) -> list[Edge]:
        """The matrix in place of a convolution; the edges behind it."""
        shape, there = self.extent[connection.source], self.extent[connection.target]
        for edge in connection.edges[1:-1]:
            del self.nodes[edge.target]  # a view of the map, which the matrix does not give
        self.nodes[connection.synapse] = Dense(FixedPoint(matrix(op, shape).astype(np.int64)))
        if len(there) == 1:
            return [Edge(connection.synapse, connection.target)]
        view = self._fresh(f"{connection.synapse}_form")
        self.nodes[view] = Flatten(there)
        return [Edge(connection.synapse, view), Edge(view, connection.target)]

    def _fresh(self, name: str) -> str:
        while name in self.nodes or f"{name}_in" in self.nodes:
            name += "_"
        return name

    def _relay(self, source: str, hold: int) -> str:
        """A population that repeats ``source`` ``hold`` steps later; its name.

        Its neuron keeps nothing (both decays complete but for the last bit, which truncation drops) and a spike's
        weight of 2 (or the sheet's step, where that is more) exceeds its threshold of 1, so it fires exactly when a
        spike arrives. On a sheet without a weight of 2 it is the largest weight over a threshold of 0. Raises
        ``NotRepresentable`` where the sheet has no such pair.
        """
        if (source, hold) in self.relays:
            return self.relays[source, hold]
        name = self._fresh(f"{source}_relay{hold if hold > self.target.synapse_latency else ''}")
        bits, before = self.target.decay.bits, self.nodes[source]
        assert isinstance(before, Neuron)
        sheet = self.target.weight
        weight = min(max(2, sheet.step), sheet.most)
        threshold = min(1, weight - 1)
        if not self.target.threshold.least <= threshold:
            raise NotRepresentable(
                f"a relay behind it needs a threshold of {threshold}",
                where=f"{source} (Neuron)",
                why=f"{self.target.cite('threshold.least')}; {self.target.cite('weight.most')}",
                remedy="train the skip without a convolution",
            )
        self.nodes[name] = Neuron(
            before.shape,
            alpha=FixedPoint.number(2**bits, -bits),
            beta=FixedPoint.number(2**bits - 1, -bits),
            threshold=FixedPoint.number(threshold),
            bias=FixedPoint.number(0),
            reset=To(FixedPoint.number(0)),
            initial=FixedPoint.number(0),
            phase=before.phase + hold,
        )
        self.nodes[f"{name}_in"] = Scale(FixedPoint.number(weight))
        self.edges += [Edge(source, f"{name}_in", hold), Edge(f"{name}_in", name)]
        self.relays[source, hold] = name
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

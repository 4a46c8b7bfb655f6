"""Layer after layer on NumPy: what ``run/cpu`` runs on where the compiled engine was not built. Equal to ``integer``.

A population's inputs are known for all steps when its turn comes, because the graph has no loop. Weighted sums run in
float32 or float64 matrix products, which are exact where the worst sum of any order stays below 2^24 or 2^53 (every
partial sum is then an integer that the type holds); where the proof fails they run in int64. Logical delays are read
off the phases, so a timed graph costs what a fixed one does. Graphs with loops or pools, neurons that are not LIF,
read-outs that feed populations and inputs beyond what they declare run on ``integer`` itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from snncompile.errors import InternalError
from snncompile.ir.connections import Connection, connections, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import STATEFUL, Conv, Dense, Input, Neuron, Readout, Resonator, Scale, SigmaDelta, Synapse
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import grid
from snncompile.run import integer, linear
from snncompile.run.integer import IntegerGraph
from snncompile.run.operations import Operations
from snncompile.run.steps import State, check_stimulus, latency, phase_of
from snncompile.run.trace import Trace, joined
from snncompile.target import Target

Array = NDArray[Any]
BATCH_NUMBERS = 1 << 25  # values of the widest population, all steps, that one batch of samples may hold


@dataclass(frozen=True)
class _Line:
    """A connection ready to run: its weights in the type that holds every sum, and its logical delay."""

    connection: Connection
    synapse: Synapse
    weight: Array
    delay: int


class Layers:
    """Runs one fixed, timed or placed graph again and again: ``Layers(graph, target).run(stimulus) -> Trace``."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self._machine = IntegerGraph(graph, target)
        self._extent = shapes(graph)
        others = graph.names(SigmaDelta, Resonator)
        try:
            every = [] if others else connections(graph)
        except InternalError:  # its linear ops are no single synapses
            others, every = graph.names(*STATEFUL), []
        flow: nx.DiGraph[str] = nx.DiGraph()
        flow.add_nodes_from(graph.names(Input, Neuron, Readout))
        flow.add_edges_from((c.source, c.target) for c in every)
        read_out = any(isinstance(graph.nodes[c.source], Readout) for c in every)
        early = any(self._before_its_phase(connection) for connection in every)
        self._stepwise = bool(others) or read_out or early or not nx.is_directed_acyclic_graph(flow)
        self._order = [] if self._stepwise else list(nx.topological_sort(flow))
        self._fired: Counter[str] = Counter()
        self._operations = Operations.of(self._machine)
        self._lines: dict[str, list[_Line]] = {name: [] for name in flow}
        for connection in every if not self._stepwise else ():
            self._lines[connection.target].append(self._line(connection))

    def _before_its_phase(self, connection: Connection) -> bool:
        """Whether a connection may deliver what its source did before its first step."""
        begin = phase_of(self.graph, connection.source)
        late = connection.delay - phase_of(self.graph, connection.target) + begin
        return late < 0 or (late > 0 and begin > 0)

    def _line(self, connection: Connection) -> _Line:
        synapse = synapse_of(self.graph, connection)
        weight = self._machine.weights[connection.synapse]
        source = self.graph.nodes[connection.source]
        most = grid(source.signal)[2] if isinstance(source, Input) else 1
        axes = tuple(range(1, weight.ndim))
        worst = int(np.abs(weight).sum(axis=axes).max(initial=0)) * most
        dtype = np.float32 if worst < 2**24 else np.float64 if worst < 2**53 else np.int64
        early = phase_of(self.graph, connection.target) - phase_of(self.graph, connection.source)
        return _Line(connection, synapse, weight.astype(dtype), connection.delay - early)

    def run(self, stimulus: Mapping[str, Array], keep: Collection[str] | None = None) -> Trace:
        """The trace of ``keep`` (default: all populations); ``stimulus``: input name -> integers [samples, steps,
        *shape].

        ``meta`` counts spikes and operations as that of ``Simulator.run``. Memory grows with what is kept, not with
        the number of samples.
        """
        samples, steps = check_stimulus(self.graph, stimulus)
        kept = [name for name in self.graph.names(*STATEFUL) if keep is None or name in keep]
        if self._operations is not None:
            self._operations.start()
        if self._stepwise or not all(self._declared(name, values) for name, values in stimulus.items()):
            return self._by_steps(stimulus, kept, samples, steps)
        widest = max(int(np.prod(self._extent[name])) for name in self._order) * steps
        batch = max(1, BATCH_NUMBERS // widest)
        spikes: dict[str, list[Array]] = {name: [] for name in kept}
        potentials: dict[str, list[Array]] = {name: [] for name in kept}
        self._fired = Counter[str]()
        for first in range(0, samples, batch):
            part = {name: array[first : first + batch] for name, array in stimulus.items()}
            self._batch(part, kept, spikes, potentials)
        meta = {
            "steps": steps,
            "latency": latency(self.graph),
            "potential": "before reset",
            "spikes": {name: self._fired[name] for name in self.graph.names(Neuron)},
            **self._counted(),
        }
        return Trace(
            {name: np.concatenate(parts) for name, parts in spikes.items() if parts},
            {name: np.concatenate(parts) for name, parts in potentials.items() if parts},
            meta,
        )

    def _by_steps(self, stimulus: Mapping[str, Array], kept: Collection[str], samples: int, steps: int) -> Trace:
        """On ``integer`` itself, a batch of samples after the other."""
        numbers = sum(prod(self._extent[name]) for name in self.graph.nodes) * steps
        batch = max(1, BATCH_NUMBERS // max(1, numbers))
        watch = None if self._operations is None else partial(self._operations.step, steps)
        found = []
        for first in range(0, samples, batch):
            part = {name: array[first : first + batch] for name, array in stimulus.items()}
            whole = integer.run(self.graph, part, self.target, watch=watch)
            found.append(
                Trace(
                    {name: array for name, array in whole.spikes.items() if name in kept},
                    {name: array for name, array in whole.potentials.items() if name in kept},
                    {**whole.meta, "spikes": {name: int(array.sum()) for name, array in whole.spikes.items()}},
                )
            )
        trace = joined(found)
        return replace(trace, meta={**trace.meta, **self._counted()})

    def _counted(self) -> dict[str, dict[str, int]]:
        return {} if self._operations is None else {"operations": self._operations.totals}

    def _declared(self, name: str, values: Array) -> bool:
        """Whether an input carries the integers that its signal declares: the proof of exact sums rests on them."""
        op = self.graph.nodes[name]
        assert isinstance(op, Input)
        _, least, most = grid(op.signal)
        return values.dtype.kind in "biu" and bool(least <= values.min() and values.max() <= most)

    def _batch(
        self,
        stimulus: Mapping[str, Array],
        kept: Collection[str],
        spikes: dict[str, list[Array]],
        potentials: dict[str, list[Array]],
    ) -> None:
        sent: dict[str, Array] = dict(stimulus)
        readers = Counter(line.connection.source for lines in self._lines.values() for line in lines)
        samples, steps = next(iter(stimulus.values())).shape[:2]
        for name in self._order:
            if name in stimulus:
                continue
            if self._operations is not None:
                self._operations.layer(name, sent)
            x = np.zeros((samples, steps, *self._extent[name]), dtype=np.int64)
            for line in self._lines[name]:
                self._add(x, line, sent[line.connection.source])
                readers[line.connection.source] -= 1
                if not readers[line.connection.source]:
                    del sent[line.connection.source]
            fired, v = self._population(name, x, potential=name in kept)
            if fired is not None:
                self._fired[name] += int(np.count_nonzero(fired))
                if readers[name]:
                    sent[name] = fired
                if name in kept:
                    spikes[name].append(fired)
            if v is not None:
                potentials[name].append(v)

    def _add(self, x: Array, line: _Line, values: Array) -> None:
        """Add what a connection delivers, its logical delay included, to the currents ``x`` [samples, steps,
        *shape].
        """
        samples, steps = values.shape[:2]
        if line.delay >= steps:
            return
        given = values[:, : steps - line.delay]
        static = steps > 1 and values.dtype != np.bool_ and bool((values == values[:, :1]).all())
        if static:
            given = given[:, :1]  # the same at every step: once is enough
        flat = given.reshape(-1, *given.shape[2:]).astype(line.weight.dtype)
        match line.synapse:
            case Dense():
                y = linear.dense(flat, line.weight)
            case Conv() as op:
                y = linear.conv(flat, line.weight, op.stride, op.padding, op.dilation, op.groups, op.spread)
            case Scale():
                y = flat * line.weight
        x[:, line.delay :] += y.reshape(samples, given.shape[1], *x.shape[2:]).astype(np.int64)

    def _population(self, name: str, x: Array, *, potential: bool) -> tuple[Array | None, Array | None]:
        """Spikes and potentials of a population from its currents."""
        op = self.graph.nodes[name]
        state: State = self._machine.rest(name, len(x))
        if isinstance(op, Readout):
            for step in range(x.shape[1]):
                state.w = x[:, step] = self._machine.integrate(name, x[:, step], state)
            return None, x if potential else None
        assert isinstance(op, Neuron)
        fired = np.empty(x.shape, dtype=np.bool_)
        for step in range(x.shape[1]):
            result = self._machine.fire(name, x[:, step], state)
            self._machine.settle(name, result, result.s, state)
            fired[:, step] = result.s
            x[:, step] = result.v
        return fired, x if potential else None

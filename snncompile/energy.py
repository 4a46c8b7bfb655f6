"""Energy: exact counts of what recorded spikes cause, priced afterwards.

For a layer with weights, ``AC[sample, step] = sum over arriving events of the synapses that each one reaches``: one
accumulate for each unit event and synapse inside the borders. Where anything but events arrives, every synapse
multiplies at every step: MAC. The declared signal decides which, values only check it (TET counts likewise, from mean
rates; here every spike is followed). Counts are int64, per layer, sample and step; joules are derived from the report
(``energy_prices``). What is counted how stands in ``energy_conventions`` and goes into every report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_conventions import Column, Options
from snncompile.energy_counts import Plan, uncounted
from snncompile.energy_layers import Fired, Layer, Run
from snncompile.energy_sent import Sent
from snncompile.errors import GraphError
from snncompile.ir.fields import to_plain
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Output,
    Pool,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    kind,
)
from snncompile.run.partial import undivided
from snncompile.run.parts import merged, wholes
from snncompile.run.steps import check_stimulus
from snncompile.run.trace import Trace

Array = NDArray[Any]
INTEGERS = np.int8, np.int16, np.int32, np.int64
MANY = 1 << 12  # integers: fewer are read as they are as fast


class Ran:
    """A graph that was run, told from others by a digest, which is made when it is asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    @cached_property
    def digest(self) -> str:
        """``weights_digest`` of the graph."""
        return weights_digest(self._graph)


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of a run, layers and populations in the order of computation.

    ``ran``: the graph that left the spikes; ``stimulus``: a digest a sample.
    """

    layers: tuple[Layer, ...]
    samples: int
    steps: int
    ran: Ran
    stimulus: tuple[str, ...]
    options: Options = field(default_factory=Options)

    def total(self, column: Column) -> int:
        """The sum over layers, samples and steps."""
        return sum(layer.total(column) for layer in self.layers)

    @property
    def ann_mac(self) -> int:
        """MACs of the same topology as an artificial network, one pass."""
        return sum(layer.synapses for layer in self.layers)

    @property
    def weights(self) -> str:
        """The digest of what ran."""
        return self.ran.digest

    @cached_property
    def stimulus_digest(self) -> str:
        """One digest for all samples in their order, however they were batched."""
        return hashlib.sha256("".join(self.stimulus).encode()).hexdigest()


class Counter:
    """Counts runs of one network, batch by batch (``concatenate`` puts them together).

    ``machine``: the graph that left the traces, where that is the network lowered to a machine. What is counted are the
    synapses of the network, whatever kernels the machine has for them: so counts are the same wherever the spikes are.
    What only the machine has (relays, maxima made of neurons) is counted beside, in the role ``relay``.
    """

    def __init__(self, graph: Graph, options: Options | None = None, machine: Graph | None = None) -> None:
        self._plan, self._options = Plan(graph), options or Options()
        machine = machine and undivided(machine)  # sums in parts are the same synapses
        self._machine = machine
        self._added = () if machine is None else added(graph, machine)
        self._beside = None
        if machine is not None and self._added:
            self._beside = Plan(machine.edit({name: graph.nodes[name] for name in graph.names(Input)}))
        self._ran = Ran(graph if machine is None else machine)

    def count(self, stimulus: Mapping[str, Array], trace: Trace) -> Counts:
        """What the spikes of a run cause; ``stimulus`` [samples, steps, *shape] and the ``trace`` it left.

        The stimulus is the network's, also where a machine ran it in integers. Raises ``GraphError`` where an input
        carries what it does not declare, where the trace lacks a population, or where an op cannot be counted.
        """
        graph = self._plan.graph
        samples, steps = check_stimulus(graph, stimulus)
        whole = trace if self._machine is None else merged(self._machine, trace)
        run = Run(self._plan, Sent(graph, stimulus, whole), self._options)
        layers = {layer.name: layer for name in graph.order if (layer := _counted(run, name)) is not None}
        if self._beside is not None:
            beside = Run(self._beside, Sent(self._beside.graph, stimulus, trace), self._options)
            found = [_counted(beside, name) for name in self._added]
            layers |= {layer.name: replace(layer, role="relay") for layer in found if layer is not None}
        return Counts(tuple(layers.values()), samples, steps, self._ran, run.sent.digests(), self._options)


def count(
    graph: Graph,
    stimulus: Mapping[str, Array],
    trace: Trace,
    options: Options | None = None,
    machine: Graph | None = None,
) -> Counts:
    """``Counter(graph, options, machine).count(stimulus, trace)``: one run of one network."""
    return Counter(graph, options, machine).count(stimulus, trace)


def _counted(run: Run, name: str) -> Layer | None:
    """The counts of one node; None where it computes nothing, or is folded and events are followed through it."""
    match run.plan.graph.nodes[name]:
        case Dense() | Conv():
            return run.weights(name)
        case Norm():
            return run.norm(name) if name in run.plan.standing else None
        case Pool() as op:
            return run.pool(name, op)
        case Neuron() | Readout() as op:
            return run.population(name, op)
        case Input() | Output() | Flatten() | Scale():
            return None
        case SigmaDelta() | Resonator():
            raise uncounted(run.plan.graph, name)
        case _ as never:
            assert_never(never)


def added(network: Graph, machine: Graph) -> tuple[str, ...]:
    """Populations that only the machine has, and the weights that feed nothing else.

    Raises ``GraphError`` where the machine lacks a population of the network: it is no lowered form of it.
    """
    held, own = wholes(machine), {name: op.shape for name, op in network.nodes.items() if isinstance(op, Neuron)}
    for name, shape in own.items():
        if held.get(name) != shape:
            raise GraphError("is no population of the machine's graph", where=network.label(name))
    more = {
        name
        for name, op in machine.nodes.items()
        if isinstance(op, Neuron) and (op.part.of if op.part else name) not in own
    }

    def feeds(name: str) -> set[str]:
        ends: set[str] = set()
        for edge in machine.out_of(name):
            passes = isinstance(machine.nodes[edge.target], Flatten | Scale)
            ends |= feeds(edge.target) if passes else {edge.target}
        return ends

    more |= {name for name in machine.names(Dense, Conv) if feeds(name) <= more}
    return tuple(name for name in machine.order if name in more)


def dense_layers(graph: Graph) -> list[dict[str, Any]]:
    """A network's weighted layers as an artificial network runs them: once, every input present."""
    plan, found = Plan(graph), []
    for name in graph.names(Dense, Conv):
        size, _, parameters, _ = plan.sizes[name]
        outside = all(isinstance(graph.nodes[source], Input) for source in plan.sources[name])
        entry = {"name": name, "mac": plan.synapses[name], "sites": plan.sites[name]}
        entry |= {"size": size, "parameters": parameters}
        found.append({**entry, "reads_input": outside})
    return found


def dense_macs(graph: Graph) -> int:
    """MACs of a network's weighted layers, each run once with every input present: the artificial network's price."""
    plan = Plan(graph)
    return sum(plan.synapses[name] for name in graph.names(Dense, Conv))


def concatenate(parts: Sequence[Counts]) -> Counts:
    """The counts of all samples from counts of batches of them, which must be of one graph and number of steps."""
    first, *more = parts
    if not more:
        return first
    for part in parts:
        same = part.ran is first.ran or part.weights == first.weights
        if not same or (part.steps, part.options) != (first.steps, first.options):
            raise GraphError("counts of different networks, steps or conventions do not add", where="energy")
    layers = tuple(
        replace(
            layer,
            columns={key: np.concatenate([part.layers[index].columns[key] for part in parts]) for key in layer.columns},
            fired=_joined([part.layers[index].fired for part in parts]),
        )
        for index, layer in enumerate(first.layers)
    )
    stimulus = tuple(digest for part in parts for digest in part.stimulus)
    return replace(first, layers=layers, samples=sum(part.samples for part in parts), stimulus=stimulus)


def _joined(parts: Sequence[Fired | None]) -> Fired | None:
    known = [part for part in parts if part is not None]
    return reduce(Fired.joined, known) if known else None


def weights_digest(graph: Graph) -> str:
    """SHA-256 of the nodes, the edges and every array of a graph; integers, where many, as narrow as they are."""
    content = hashlib.sha256()

    def read(path: str, array: Array) -> str:
        if array.dtype == np.int64 and array.size > MANY:
            bits = max(int(array.max()), ~int(array.min())).bit_length()
            array = array.astype(next(kind for kind in INTEGERS if bits < 8 * kind().itemsize))
        content.update(f"{path} {array.dtype.str} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
        return path

    nodes = {name: [kind(op), to_plain(op, read)] for name, op in graph.nodes.items()}
    edges = [[edge.source, edge.target, edge.delay] for edge in graph.edges]
    content.update(json.dumps([nodes, edges]).encode())
    return content.hexdigest()

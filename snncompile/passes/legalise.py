"""What the machine lacks is rewritten, or refused by name with the reason.

Rewritten:

* A chain of linear ops between two populations becomes one synapse, and every pair of populations gets synapses of its
  own: a machine has no synapse that feeds another synapse, and shares none between populations.
* A population whose parameters differ from channel to channel becomes one population for each group of channels that
  agree (``split``).
* A reset to another value than zero becomes one to zero, of a potential counted from that value::

      v' = v - r,  threshold' = threshold - r,  bias' = bias - beta r,  initial' = initial - r

* A maximum over spikes becomes a population without memory that fires when any of its inputs does.

Exact but for float64 rounding. Refused, all at once: what the sheet says the machine's neurons, spikes and read-outs
cannot do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from snncompile.errors import InternalError, NotRepresentable
from snncompile.ir.connections import connections, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Op,
    Output,
    Pool,
    Readout,
    Resonator,
    Scale,
    Shape,
    SigmaDelta,
    Stateful,
    Synapse,
    To,
    number,
    real,
)
from snncompile.ir.shapes import shape_of, shapes
from snncompile.ir.signals import Spike
from snncompile.ir.spikes import spikes_into
from snncompile.passes import Passed
from snncompile.passes.compose import Linear, as_conv, compose
from snncompile.passes.split import by_parameters, by_range, split
from snncompile.target import Target

WIDEST = 256


def legalise(graph: Graph, target: Target, *, per_channel: bool = False) -> Passed:
    """Rewrite or refuse. Raises ``NotRepresentable`` with every fault found.

    ``per_channel`` also splits populations by the range of their channels' weights, so that ``quantise`` can give each
    a scale of its own: exact as well, and finer integers for more populations.
    """
    graph, notes = _reset_to_zero(graph, target)
    faults = [f"{graph.label(name)}: {fault}" for name in graph.order for fault in _faults(graph, name, target)]
    if faults:
        raise NotRepresentable(
            "\n  ".join(["cannot be carried:", *faults]) if len(faults) > 1 else faults[0],
            where=target.name,
            remedy="train the network without it, or choose another target (`snncompile targets`)",
        )
    for name in graph.names(Pool):
        graph = _any_of(graph, name, target)
    legal = _single_synapses(graph)
    groups = {name: by_parameters(op) or () for name, op in legal.nodes.items() if isinstance(op, Neuron)}
    notes += [
        f"{name}: {len(each)} populations, one for each group of channels with equal parameters"
        for name, each in groups.items()
        if len(each) > 1
    ]
    legal = split(legal, groups)
    if per_channel:
        ranges = by_range(legal)
        more = split(legal, ranges)
        counts = [len(one.names(Neuron)) for one in (legal, more)]
        wires = [len(connections(one)) for one in (legal, more)]
        notes.append(
            f"a scale for each range of channels: {counts[1]} populations instead of {counts[0]},"
            f" {wires[1]} connections instead of {wires[0]}"
        )
        legal = more
    return Passed(legal, (*notes, *_not_stock(legal), *_wide(legal)))


def _reset_to_zero(graph: Graph, target: Target) -> tuple[Graph, list[str]]:
    """Potentials counted from the value that they are reset to, where the machine resets to zero."""
    changed: dict[str, Op | None] = {}
    for name, op in graph.nodes.items():
        if isinstance(op, Neuron) and isinstance(op.reset, To) and np.any(real(op.reset.value)):
            to = real(op.reset.value)
            changed[name] = replace(
                op,
                reset=To(number(0.0)),
                threshold=real(op.threshold) - to,
                bias=real(op.bias) - real(op.beta) * to,
                initial=real(op.initial) - to,
            )
    if target.neuron.reset != "zero" or not changed:
        return graph, []
    return graph.edit(changed), [f"{name}: its potential is counted from the value it is reset to" for name in changed]


def _not_stock(graph: Graph) -> list[str]:
    """Neurons that only a process of our own holds: the sheet admits them, no chip does."""
    found = []
    for name in graph.names(Neuron):
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        if isinstance(op.reset, By) or np.any(real(op.reset.value)) or np.any(real(op.initial)):
            found.append(f"{name}: no stock neuron of the chip, runs on the simulator only (its reset or its start)")
    return found


def _wide(graph: Graph) -> list[str]:
    """Convolutions of which a compiler of the chip says that their results may be inexact.

    Source: compile log in ``lava-nc/lava-dl``, ``tutorials/lava/lib/dl/netx/yolo_kp/run.ipynb``.
    """
    extent = shapes(graph)
    return [
        f"{one.synapse}: its input is {max(extent[one.source][1:])} wide; Intel's compiler warns that the chip may drop"
        f" spikes beyond {WIDEST}, which no model of it shows"
        for one in connections(graph)
        if isinstance(synapse_of(graph, one), Conv) and max(extent[one.source][1:]) > WIDEST
    ]


def _faults(graph: Graph, name: str, target: Target) -> list[str]:
    op = graph.nodes[name]
    match op:
        case Neuron():
            return _neuron_faults(op, target)
        case SigmaDelta():
            return ["sends changes of a sum, the machine's stock neurons are LIF"]
        case Resonator():
            return ["resonates, the machine's stock neurons are LIF"]
        case Norm():
            return ["a norm that is not folded has no weights of its own"]
        case Pool(kind="max") if spikes_into(graph, name) is None:
            return ["a maximum of anything but the spikes of one population is no sum of synapses"]
        case Readout(kind="last"):
            return [
                "the read-out 'last' needs an accumulator that forgets all at once, which the machine does not have"
            ]
        case Readout(kind="partial"):
            return ["a partial sum is made where a machine needs one, a network has none"]
        case Readout() if on := _goes_on(graph, name):
            return [f"its potential goes on to {on}, the machine's populations send spikes"]
        case Dense() | Conv() if op.bias is not None:
            return ["its bias is not constant in the population it reaches"]
        case Input() if not isinstance(op.signal, Spike) and not target.spike.graded:
            return [
                f"the input is {type(op.signal).__name__.lower()}, the machine receives binary spikes"
                f" ({target.cite('spike.graded')})"
            ]
        case Output() if any(not isinstance(graph.nodes[edge.source], Stateful) for edge in graph.into(name)):
            return ["reads a signal that no population holds"]
        case _:
            return []


def _goes_on(graph: Graph, name: str) -> str:
    """The first node besides outputs that reads a population; empty where there is none."""
    return next((e.target for e in graph.out_of(name) if not isinstance(graph.nodes[e.target], Output)), "")


def _neuron_faults(op: Neuron, target: Target) -> list[str]:
    faults = []
    if isinstance(op.reset, By) and not target.neuron.soft_reset:
        faults.append(f"soft reset ({target.cite('neuron.soft_reset')} is false)")
    if np.any(real(op.initial)) and not target.neuron.initial_potential:
        faults.append(f"it starts from another potential than its reset ({target.cite('neuron.initial_potential')})")
    if op.fires != target.neuron.fires:
        faults.append(f"it fires at {op.fires}, the machine at {target.neuron.fires} ({target.cite('neuron.fires')})")
    if by_parameters(op) is None:
        faults.append(f"its threshold, decay or reset differs inside a channel ({target.cite('neuron.per')})")
    if np.any(real(op.threshold) < target.threshold.least):
        least = f"{target.threshold.least} ({target.cite('threshold.least')})"
        faults.append(f"its threshold {np.min(real(op.threshold)):g} lies below {least}")
    if np.any(real(op.alpha) <= 0) or np.any(real(op.alpha) > 1):
        faults.append("alpha must lie in (0, 1]")
    if np.any(real(op.beta) < 0) or np.any(real(op.beta) > 1):
        faults.append("beta must lie in [0, 1]")
    return faults


def _any_of(graph: Graph, name: str, target: Target) -> Graph:
    """A maximum over spikes as a population that fires when any of its inputs does, and keeps nothing.

    A spike through a weight of 1 exceeds the threshold of 1/2 and the reset takes the potential back to zero, so there
    is never anything to keep: the largest decay that the machine has is as good as a complete one.
    """
    op = graph.nodes[name]
    if not isinstance(op, Pool) or op.kind != "max":
        return graph
    spikes = spikes_into(graph, name)
    assert spikes is not None
    extent = shapes(graph)
    ones = as_conv(Pool("sum", op.kernel, op.stride, op.padding), extent[spikes.source][0])
    any_, behind = graph.fresh(f"{name}_any"), graph.fresh(f"{name}_worth")
    fires = Neuron(extent[name], beta=number(1.0 - 2.0**-target.decay.bits), threshold=number(0.5 * spikes.sent))
    kept = [edge for edge in graph.edges if name not in (edge.source, edge.target)]
    after = [Edge(behind, edge.target, edge.delay) for edge in graph.out_of(name)]
    edges = [*kept, Edge(spikes.source, any_, spikes.delay), Edge(any_, name), Edge(name, behind), *after]
    return graph.edit({name: fires, any_: ones, behind: Scale(number(spikes.worth))}, edges)


@dataclass(frozen=True)
class _Way:
    """A way of linear ops from one population to another."""

    source: str
    target: str
    nodes: tuple[str, ...]
    delay: int


def _ways(graph: Graph, target: str) -> list[_Way]:
    """Every way that ends in a population, in the order of its edges."""
    found: list[_Way] = []
    waiting: list[tuple[str, tuple[str, ...], int]] = [
        (edge.source, (), edge.delay) for edge in reversed(graph.into(target))
    ]
    while waiting:
        name, nodes, delay = waiting.pop()
        if isinstance(graph.nodes[name], Input | Neuron):
            found.append(_Way(name, target, nodes, delay))
        else:
            waiting += [(e.source, (name, *nodes), delay + e.delay) for e in reversed(graph.into(name))]
    return found


def _single_synapses(graph: Graph) -> Graph:
    extent = shapes(graph)
    nodes: dict[str, Op] = {
        name: op for name, op in graph.nodes.items() if isinstance(op, Input | Neuron | Readout | Output)
    }
    edges = [edge for edge in graph.edges if isinstance(graph.nodes[edge.target], Output)]
    for target in graph.names(Neuron, Readout):
        for way in _ways(graph, target):
            op = _as_synapse(graph, way, extent)
            name = _name(graph, way, nodes)
            nodes[name] = op
            edges.append(Edge(way.source, name, way.delay))
            if shape_of(name, op, extent[way.source]) != extent[target]:
                view = f"{name}_flat"
                nodes[view] = Flatten() if len(extent[target]) == 1 else Flatten(extent[target])
                edges += [Edge(name, view), Edge(view, target)]
            else:
                edges.append(Edge(name, target))
    return _in_order(nodes, edges)


def _as_synapse(graph: Graph, way: _Way, extent: Mapping[str, Shape]) -> Synapse:
    """The ops of a way composed into one."""
    shape = extent[way.source]
    current: Linear = Flatten()
    for index, name in enumerate(way.nodes):
        op = graph.nodes[name]
        if not isinstance(op, Dense | Conv | Pool | Scale | Flatten):
            raise InternalError(f"{graph.label(name)} on a linear way")
        current = compose(current, op, shape, extent[way.nodes[index - 1]]) if index else op
    if isinstance(current, Pool):
        return as_conv(current, shape[0])
    return Scale(number(1.0)) if isinstance(current, Flatten) else current


def _name(graph: Graph, way: _Way, taken: dict[str, Op]) -> str:
    """The name of the last weights on the way; with the source or target where that is taken."""
    weights = [name for name in way.nodes if isinstance(graph.nodes[name], Dense | Conv)]
    base = (weights or list(way.nodes) or [f"{way.source}_to_{way.target}"])[-1]
    for name in (base, f"{base}_from_{way.source}", f"{base}_from_{way.source}_to_{way.target}"):
        if name not in taken:
            return name
    index = 2
    while f"{base}_{index}" in taken:
        index += 1
    return f"{base}_{index}"


def _in_order(nodes: dict[str, Op], edges: list[Edge]) -> Graph:
    """Nodes in the order of computation, which is how people read them."""
    order = Graph(nodes, edges).order
    return Graph({name: nodes[name] for name in order}, edges)

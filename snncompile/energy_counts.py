"""Where events meet synapses: what reaches an op, and through how many synapses each event goes. Exact, in int64.

The fan-out of an element is how many synapses it feeds (``energy_reach``), at the borders as well and for any stride,
dilation, group and kernel. Maps broadcast to ``[2, *shape]``: row 0 counts every synapse (structural), row 1 those
whose weight is not zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_conventions import Role
from snncompile.energy_events import FanOut
from snncompile.energy_reach import before, ones, synapses, total
from snncompile.errors import GraphError
from snncompile.fixed import Integers, Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Op,
    Pool,
    Readout,
    Resonator,
    Scale,
    Shape,
    SigmaDelta,
    real,
)
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import is_event
from snncompile.passes.fold_norm import standing
from snncompile.run.reference import apply_linear

Array = NDArray[Any]


@dataclass(frozen=True)
class Way:
    """A way from ``source``, of this ``shape``, to where counting began: ``fan_out``, its map, and the ``pool`` on it
    that is nearest to the end.
    """

    source: str
    shape: Shape
    fan_out: Integers
    pool: str | None

    @cached_property
    def reach(self) -> tuple[FanOut, FanOut]:
        """Both rows of the fan-out ready for counting; one object where they are the same."""
        return reach(self.fan_out, self.shape)


def reach(fan_out: Integers, shape: Shape) -> tuple[FanOut, FanOut]:
    """A map ready for counting."""
    every, present = fan_out[0], fan_out[-1]
    whole = FanOut(every, shape)
    return whole, whole if len(fan_out) == 1 or np.array_equal(every, present) else FanOut(present, shape)


def arriving_shape(graph: Graph, extent: Mapping[str, Shape], name: str) -> Shape:
    """The shape of what arrives at a node."""
    return extent[graph.into(name)[0].source]


def passes_events(op: Op) -> bool:
    """Whether an event that enters an op is followed to what comes behind it."""
    return isinstance(op, Flatten | Scale) or (isinstance(op, Pool) and op.kind != "max")


def ways(plan: Plan, name: str, fan_out: Integers, pool: str | None = None) -> Iterator[Way]:
    """Every way into a node, back to what sends: a population, a maximum, weights or a norm that stands alone."""
    for edge in plan.graph.into(name):
        op = plan.graph.nodes[edge.source]
        if isinstance(op, Flatten | Pool | Scale) and passes_events(op):
            passed = before(op, fan_out, arriving_shape(plan.graph, plan.extent, edge.source))
            nearest = pool or (edge.source if isinstance(op, Pool) else None)
            yield from ways(plan, edge.source, passed, nearest)
        elif isinstance(op, Norm) and edge.source not in plan.standing:
            yield from ways(plan, edge.source, fan_out, pool)  # it is in the weights before it
        else:
            yield Way(edge.source, plan.extent[edge.source], fan_out, pool)


def uncounted(graph: Graph, name: str) -> GraphError:
    """The refusal of an op that no convention counts."""
    return GraphError(
        "its operations are not counted",
        where=graph.label(name),
        why="conventions are published for integrate-and-fire neurons; a zero would be none",
        remedy="price the layers apart from it, or replace it by a LIF population",
    )


class Plan:
    """What counting needs to know of a graph, once for all runs: every way events can take, and their fan-outs.

    ``ways``: into weights (fan-outs over their synapses), norms that stand, pools and populations; ``synapses``: what
    weights or a pool read inside the borders; ``own``: of weights, the fan-out of what arrives at them; ``biased``:
    neurons with a bias; ``standing``: norms that no weights take over; ``roles``: of nodes that are not simply the
    network; ``sources``: of the ways, each once, and ``sites``, their elements; ``sizes``: as ``Layer`` has them, from
    ``size``.
    """

    def __init__(self, graph: Graph) -> None:
        for name in graph.names(SigmaDelta, Resonator):
            raise uncounted(graph, name)
        self.graph, self.extent = graph, shapes(graph)
        self.standing = standing(graph)
        self.biased = {name: total(mask, self.extent[name]) for name, mask in biases(graph, self.extent).items()}
        self.ways: dict[str, tuple[Way, ...]] = {}
        self.synapses: dict[str, int] = {}
        self.own: dict[str, Integers] = {}
        for name in graph.names(Dense, Conv, Norm, Pool, Neuron, Readout):
            if isinstance(graph.nodes[name], Norm) and name not in self.standing:
                continue
            match op := graph.nodes[name]:
                case Dense() | Conv():
                    reads = arriving_shape(graph, self.extent, name)
                    fan_out = synapses(op, reads, self.extent[name])
                    if (addends := self.addends(name)) > 1:  # only one of the neurons of a number reads each source
                        fan_out = np.stack([fan_out[0] // addends, fan_out[-1]])
                    self.own[name] = fan_out
                case Pool():
                    reads = arriving_shape(graph, self.extent, name)
                    fan_out = before(op, ones(self.extent[name]), reads)
                case _:
                    reads = self.extent[name]
                    fan_out = ones(reads)
            self.synapses[name] = total(fan_out[0], reads)
            self.ways[name] = tuple(ways(self, name, fan_out))
        self.sources = {name: tuple(dict.fromkeys(way.source for way in some)) for name, some in self.ways.items()}
        self.sites = {name: sum(prod(self.extent[one]) for one in some) for name, some in self.sources.items()}
        self.sizes = {name: self._sizes(name) for name in self.ways}
        self.roles = dict(_roles(self))

    def addends(self, name: str) -> int:
        """How many neurons a number has in the read-out behind weights; 1 elsewhere."""
        behind = [self.graph.nodes[edge.target] for edge in self.graph.out_of(name)]
        return max((op.addends for op in behind if isinstance(op, Readout)), default=1)

    def _sizes(self, name: str) -> tuple[int, int, int, bool]:
        """Elements that a node sends, its taps (synapses as if there were no borders), its stored parameters, and
        whether biases are among them.
        """
        op, size = self.graph.nodes[name], prod(self.extent[name])
        if not isinstance(op, Dense | Conv):
            return size, 0, 0, False
        biases = 0 if op.bias is None else real(op.bias).size
        stored, addends = prod(op.weight.shape), self.addends(name)
        return size, size * prod(op.weight.shape[1:]) // addends, stored // addends + biases, biases > 0

    def through(self, pool: str) -> Iterator[Way]:
        """The ways from a source over this pool to a population, without weights."""
        for target in self.graph.names(Neuron, Readout):
            yield from (way for way in self.ways[target] if way.pool == pool)


def _roles(plan: Plan) -> Iterator[tuple[str, Role]]:
    """Encoders, relays and read-outs, from what reaches what."""
    nodes = plan.graph.nodes

    def numbers(source: str) -> bool:
        op = nodes[source]
        return isinstance(op, Input) and not is_event(op.signal)

    encoders = {name for name in plan.graph.names(Dense, Conv) if any(numbers(way.source) for way in plan.ways[name])}
    for name in plan.graph.names(Dense, Conv, Neuron, Readout):
        sources = {way.source for way in plan.ways[name]}
        behind = {edge.target for edge in plan.graph.out_of(name)}
        if isinstance(nodes[name], Readout) or (behind and all(isinstance(nodes[one], Readout) for one in behind)):
            yield name, "readout"
        elif name in encoders or sources & encoders or (isinstance(nodes[name], Neuron) and any(map(numbers, sources))):
            yield name, "encoder"
        elif isinstance(nodes[name], Neuron) and sources and all(isinstance(nodes[one], Neuron) for one in sources):
            yield name, "network" if any(way.pool for way in plan.ways[name]) else "relay"


def biases(graph: Graph, extent: Mapping[str, Shape]) -> dict[str, NDArray[np.bool_]]:
    """Which neurons of each population have a bias: their own, or what linear ops send when nothing is sent. Masks that
    broadcast to the shapes of the populations.
    """
    known: dict[str, Reals | None] = {}

    def arriving(name: str) -> Reals | None:
        parts = [part for edge in graph.into(name) if (part := constant(edge.source)) is not None]
        return np.asarray(sum(parts[1:], parts[0])) if parts else None

    def constant(name: str) -> Reals | None:
        """What a node sends when nothing is sent, as far as it differs along [1, *shape]; None: zeros."""
        if name not in known:
            values = None if isinstance(graph.nodes[name], Input | Neuron | Readout) else arriving(name)
            if values is not None and not isinstance(graph.nodes[name], Norm | Scale):
                values = np.broadcast_to(values, (1, *arriving_shape(graph, extent, name)))
            known[name] = _constant(graph, name, extent[name]) if values is None else apply_linear(graph, name, values)
        return known[name]

    found = {}
    for name in graph.names(Neuron, Readout):
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        values = arriving(name)
        sent = 0.0 if values is None else (real(op.gain) if isinstance(op, Neuron) else 1.0) * values[0]
        found[name] = np.asarray(sent + real(op.bias) != 0)
    return found


def _constant(graph: Graph, name: str, extent: Shape) -> Reals | None:
    """What a node sends when nothing at all arrives: a number a channel, None where that is zeros."""
    op, axes = graph.nodes[name], (1,) * (len(extent) - 1)
    match op:
        case Input() | Neuron() | Readout() | Flatten() | Pool() | Scale():
            return None
        case Dense() | Conv():
            if op.bias is None:
                return None
            return real(op.bias).reshape(1, -1, *axes)
        case _:
            return apply_linear(graph, name, np.zeros((1, extent[0], *axes) if isinstance(op, Norm) else (1, *extent)))

"""The grammar of each level: a list of rules a level, each a function named as the rule it checks.

``read -> folded -> fixed -> timed -> placed``: a level is what its checker admits, and every level admits what the one
before it does unless a rule of its own says otherwise. All faults are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from math import prod
from typing import Literal

import numpy as np

from snncompile.errors import GraphError, InternalError
from snncompile.fixed import FixedPoint
from snncompile.ir.connections import connections, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Input,
    Neuron,
    Norm,
    Op,
    Output,
    Param,
    Pool,
    Readout,
    Scale,
    To,
    real,
)
from snncompile.ir.shapes import shapes
from snncompile.target import Target

Level = Literal["read", "folded", "fixed", "timed", "placed"]
LEVELS: tuple[Level, ...] = ("read", "folded", "fixed", "timed", "placed")
Rule = Callable[[Graph, Target | None], Iterator[str]]


def check(graph: Graph, level: Level, target: Target | None = None) -> None:
    """Raise ``GraphError`` with every fault of a graph at its level; fixed and later need the target's widths."""
    for stage in range(LEVELS.index(level) + 1):
        faults = [f"{fault} [{rule.__name__}]" for rule in RULES[LEVELS[stage]] for fault in rule(graph, target)]
        if faults:  # a later level's rules rely on those of the earlier ones
            text = faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} faults:", *faults])
            raise GraphError(text, where=f"level {level}")


def _params(op: Op) -> Iterator[tuple[str, Param]]:
    """The parameters of an op by name."""
    for item in fields(op):
        value = getattr(op, item.name)
        if isinstance(value, To | By):
            yield item.name, value.value if isinstance(value, To) else value.amount
        elif isinstance(value, np.ndarray | FixedPoint):
            yield item.name, value


def addends_make_numbers(graph: Graph, _: Target | None) -> Iterator[str]:
    """The neurons of a read-out are as many for each of its numbers."""
    for name, op in graph.nodes.items():
        if isinstance(op, Readout) and (op.addends < 1 or not op.shape or op.shape[0] % op.addends):
            yield f"{graph.label(name)}: {list(op.shape)} neurons are no {op.addends} for each number"


def it_has_ends(graph: Graph, _: Target | None) -> Iterator[str]:
    """There is an input or a population to start from, and an output to read."""
    if not graph.names(Input, Neuron):
        yield "the graph has no input"
    if not graph.names(Output):
        yield "the graph has no output"


def shapes_agree(graph: Graph, _: Target | None) -> Iterator[str]:
    """Every node takes the shape that arrives, and no loop is without delay."""
    try:
        shapes(graph)
    except GraphError as error:
        yield str(error)


def parameters_are_finite(graph: Graph, _: Target | None) -> Iterator[str]:
    """No parameter is infinite or not a number."""
    for name, op in graph.nodes.items():
        for what, value in _params(op):
            bad = int(np.sum(~np.isfinite(real(value))))
            if bad:
                yield f"{graph.label(name)}: {bad} of its {what} are not finite"


def norms_are_folded(graph: Graph, _: Target | None) -> Iterator[str]:
    """No batch normalisation is left."""
    for name in graph.names(Norm):
        yield f"{graph.label(name)} is left"


def means_are_sums(graph: Graph, _: Target | None) -> Iterator[str]:
    """No mean pooling is left."""
    for name, op in graph.nodes.items():
        if isinstance(op, Pool) and op.kind == "mean":
            yield f"{graph.label(name)} is a mean"


def neurons_are_canonical(graph: Graph, _: Target | None) -> Iterator[str]:
    """No neuron has a gain, an amplitude, a resting potential or the tie rule ``>=``."""
    for name, op in graph.nodes.items():
        if isinstance(op, Neuron):
            plain = not np.any(real(op.gain) != 1.0) and op.amplitude == 1.0 and not np.any(real(op.rest))
            if not plain or op.fires != ">":
                yield f"{graph.label(name)} is not in the canonical form"


def parameters_are_integers(graph: Graph, _: Target | None) -> Iterator[str]:
    """Every parameter is an integer with an exponent (but the ones that the canonical form fixes)."""
    for name, op in graph.nodes.items():
        for what, value in _params(op):
            if what not in ("gain", "rest") and not isinstance(value, FixedPoint):
                if isinstance(op, Readout) and not value.any():
                    continue
                yield f"{graph.label(name)}: its {what} is real"


def parts_make_wholes(graph: Graph, _: Target | None) -> Iterator[str]:
    """The parts of a population hold each of its channels once, and no node bears its name."""
    found: dict[str, list[int]] = {}
    for name, op in graph.nodes.items():
        if isinstance(op, Neuron) and op.part is not None:
            found.setdefault(op.part.of, []).extend(op.part.channels)
            if len(op.part.channels) != op.shape[0]:
                yield f"{graph.label(name)}: holds {op.shape[0]} channels, is said to hold {len(op.part.channels)}"
    for whole, channels in found.items():
        if sorted(channels) != list(range(len(channels))) or whole in graph.nodes:
            yield f"{whole}: its parts hold the channels {sorted(channels)}"


def synapses_are_single(graph: Graph, _: Target | None) -> Iterator[str]:
    """Between two populations stands one op with weights, of its own."""
    try:
        connections(graph)
    except InternalError as error:  # it says which node is in the way
        yield str(error)


def weights_fit(graph: Graph, target: Target | None) -> Iterator[str]:
    """Weights lie in the sheet's range and on its step; all but a convolution's may be halved behind the sum."""
    sheet = _sheet(target).weight
    for name, op in graph.nodes.items():
        if isinstance(op, Dense | Conv | Scale):
            weight = op.factor if isinstance(op, Scale) else op.weight
            if not isinstance(weight, FixedPoint):
                continue  # parameters_are_integers says so
            integers = weight.mantissa
            outside = (integers < sheet.least) | (integers > sheet.most) | (integers % sheet.step != 0)
            if outside.any() or weight.exponent not in ((0,) if isinstance(op, Conv) else (0, -1)):
                yield f"{graph.label(name)}: {int(outside.sum())} weights are none of the machine's"


def neurons_fit(graph: Graph, target: Target | None) -> Iterator[str]:
    """Thresholds, biases and decays lie in the sheet's ranges."""
    sheet = _sheet(target)
    for name, op in graph.nodes.items():
        if not isinstance(op, Neuron | Readout):
            continue
        bias = op.bias
        if isinstance(bias, FixedPoint):
            exponent = bias.exponent + sheet.potential.fraction_bits
            low, high = sheet.bias.mantissa_least, sheet.bias.mantissa_most
            if not 0 <= exponent <= sheet.bias.exponent_most or np.any((bias.mantissa < low) | (bias.mantissa > high)):
                yield f"{graph.label(name)}: its bias is outside the machine's range"
        if isinstance(op, Readout) and op.decay * 2**sheet.decay.bits != np.rint(op.decay * 2**sheet.decay.bits):
            yield f"{graph.label(name)}: its decay {op.decay} is no decay of {sheet.decay.bits} bits"
        if isinstance(op, Neuron):
            threshold = real(op.threshold)
            if np.any(threshold < sheet.threshold.least) or np.any(threshold > sheet.threshold.most):
                yield f"{graph.label(name)}: its threshold {threshold} is outside the machine's range"
            soft, started = isinstance(op.reset, By), bool(np.any(real(op.initial)))
            moved = isinstance(op.reset, To) and bool(np.any(real(op.reset.value))) and sheet.neuron.reset == "zero"
            if moved or (soft and not sheet.neuron.soft_reset) or (started and not sheet.neuron.initial_potential):
                yield f"{graph.label(name)}: its reset or its start is none of the machine's"
            for what, value in (("alpha", op.alpha), ("beta", op.beta)):
                steps = real(value) * 2**sheet.decay.bits
                if np.any(steps != np.rint(steps)):
                    yield f"{graph.label(name)}: its {what} is no decay of {sheet.decay.bits} bits"


def delays_fit(graph: Graph, target: Target | None) -> Iterator[str]:
    """Every connection takes at least the synapse's latency, and no more delay on top than the machine has."""
    sheet = _sheet(target)
    for connection in connections(graph):
        op = synapse_of(graph, connection)
        extra = connection.delay - sheet.synapse_latency
        most = (
            sheet.delay.convolution
            if isinstance(op, Conv)
            else sheet.delay.one_to_one
            if isinstance(op, Scale)
            else sheet.delay.dense
        )
        given_by_host = isinstance(graph.nodes[connection.source], Input)
        if extra < 0 or (extra > most and not given_by_host):
            yield f"{graph.label(connection.synapse)}: a delay of {extra} is not on the machine"


def phases_agree(graph: Graph, _: Target | None) -> Iterator[str]:
    """No connection delivers before its target's logical step: ``delay >= phase(target) - phase(source)``."""
    phase = {name: op.phase if isinstance(op, Neuron | Readout) else 0 for name, op in graph.nodes.items()}
    for connection in connections(graph):
        if connection.delay < phase[connection.target] - phase[connection.source]:
            yield f"{graph.label(connection.synapse)} delivers before its target's step"


def partial_sums_are_sent_on(graph: Graph, target: Target | None) -> Iterator[str]:
    """A partial sum keeps and adds nothing, and reaches one population through a weight of one."""
    for name, op in graph.nodes.items():
        if not isinstance(op, Readout) or op.kind != "partial":
            continue
        if not _sheet(target).spike.message_bits:
            yield f"{graph.label(name)}: sends integers, the machine's populations send spikes"
        if op.decay or real(op.bias).any() or op.addends > 1:
            yield f"{graph.label(name)}: is more than a sum"
        ways = [graph.nodes[edge.target] for edge in graph.out_of(name)]
        if len(ways) != 1 or not isinstance(ways[0], Scale) or np.any(real(ways[0].factor) != 1):
            yield f"{graph.label(name)}: does not reach one population through a weight of one"


def populations_have_cores(graph: Graph, target: Target | None) -> Iterator[str]:
    """The slices of a population hold each of its neurons once, on cores that the largest board has."""
    for name, op in graph.nodes.items():
        if isinstance(op, Neuron | Readout):
            position, block, held = 0, (0, 0), 0
            for slice_ in op.cores:
                if (slice_.channel, slice_.channels) != block:
                    if slice_.channel != sum(block):
                        yield f"{graph.label(name)}: slice {slice_} begins at the wrong channel"
                    position, block = 0, (slice_.channel, slice_.channels)
                if slice_.first != position or slice_.count < 1 or not 0 <= slice_.core < _sheet(target).most_cores:
                    yield f"{graph.label(name)}: slice {slice_} is out of place"
                position = slice_.first + slice_.count
                held += slice_.count
            if held != prod(op.shape):
                yield f"{graph.label(name)}: its cores hold {held} of {prod(op.shape)} neurons"


def _sheet(target: Target | None) -> Target:
    if target is None:
        raise GraphError("needs a target", where="check", remedy="levels from fixed on are checked against a sheet")
    return target


RULES: dict[Level, tuple[Rule, ...]] = {
    "read": (it_has_ends, shapes_agree, parameters_are_finite, addends_make_numbers),
    "folded": (norms_are_folded, means_are_sums, neurons_are_canonical),
    "fixed": (parameters_are_integers, parts_make_wholes, synapses_are_single, weights_fit, neurons_fit),
    "timed": (delays_fit, phases_agree, partial_sums_are_sent_on),
    "placed": (populations_have_cores,),
}

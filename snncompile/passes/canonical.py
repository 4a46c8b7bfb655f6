"""One form of neuron and one place for biases.

* ``gain`` goes into the incoming weights, ``amplitude`` into the outgoing ones, ``rest`` is shifted to zero::

      v' = v - rest,  threshold' = threshold - rest,  reset to' = to - rest,  initial' = initial - rest

* ``v >= threshold`` becomes ``v > threshold'`` with the next number below: the same spikes for every float64 potential.
* Biases of linear ops become the bias of the population that they reach: what arrives there when nothing is sent.
* A population that feeds another one without weights (an identity skip) does so through ``Scale(1)``: one-to-one
  synapses.

Exact but for float64 rounding. Declines a bias that is not constant in the potential it reaches, and says why: one that
passes a delay (it starts later than the others), a maximum (which does not add), a norm that could not be folded,
or a synaptic current (it builds up there, and a population's own bias does not).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Output,
    Pool,
    Readout,
    Reset,
    Scale,
    Shape,
    To,
    number,
    real,
)
from snncompile.ir.shapes import shapes
from snncompile.passes import Passed
from snncompile.passes.scales import absorb_scales
from snncompile.run.reference import apply_linear


def canonical(graph: Graph) -> Passed:
    """Bring every neuron into the canonical form."""
    for name in graph.names(Neuron):
        graph = _plain_neuron(graph, name)
    graph, notes = _move_biases(graph)
    graph = absorb_scales(graph)
    return Passed(_with_identities(graph), tuple(notes))


def _plain_neuron(graph: Graph, name: str) -> Graph:
    op = graph.nodes[name]
    assert isinstance(op, Neuron)
    if np.any(real(op.gain) != 1.0):
        graph = _scaled_before(graph, name, real(op.gain))
    if op.amplitude != 1.0:
        graph = _scaled_behind(graph, name, op.amplitude)
    rest = real(op.rest)
    threshold = real(op.threshold) - rest
    if op.fires == ">=":
        threshold = np.nextafter(threshold, -np.inf)
    reset: Reset = To(real(op.reset.value) - rest) if isinstance(op.reset, To) else By(op.reset.amount)
    changed = replace(
        op,
        threshold=threshold,
        fires=">",
        reset=reset,
        initial=real(op.initial) - rest,
        gain=number(1.0),
        amplitude=1.0,
        rest=number(0.0),
    )
    return graph.edit({name: changed})


def _scaled_before(graph: Graph, name: str, gain: Reals) -> Graph:
    factor = graph.fresh(f"{name}_gain")
    edges = [Edge(edge.source, factor, edge.delay) if edge.target == name else edge for edge in graph.edges]
    return graph.edit({factor: Scale(gain)}, [*edges, Edge(factor, name)]) if graph.into(name) else graph


def _scaled_behind(graph: Graph, name: str, amplitude: float) -> Graph:
    """Outputs keep the bare spikes: a trace holds spikes, whatever they are worth."""
    factor = graph.fresh(f"{name}_amplitude")
    moved = [edge for edge in graph.out_of(name) if not isinstance(graph.nodes[edge.target], Output)]
    if not moved:
        return graph
    edges = [Edge(factor, edge.target, edge.delay) if edge in moved else edge for edge in graph.edges]
    return graph.edit({factor: Scale(number(amplitude))}, [*edges, Edge(name, factor)])


def _move_biases(graph: Graph) -> tuple[Graph, list[str]]:
    """Biases of linear ops to the populations they reach, by computing what arrives there when nothing is sent."""
    biased = [name for name in graph.names(Dense, Conv) if _bias(graph, name) is not None]
    if not biased:
        return graph, []
    reasons = {name: _declined(graph, name) for name in biased}
    if any(reasons.values()):
        return graph, [f"the bias of {graph.label(name)} stays: {reason}" for name, reason in reasons.items() if reason]
    extent = shapes(graph)
    constant: dict[str, Reals] = {}
    changed: dict[str, Neuron | Readout | Dense | Conv] = {}
    for name in graph.order:
        op = graph.nodes[name]
        arriving = [edge for edge in graph.into(name) if edge.delay == 0]
        total = sum((constant[edge.source] for edge in arriving), np.zeros((1, *_incoming(graph, name, extent))))
        match op:
            case Input():
                constant[name] = np.zeros((1, *op.shape))
            case Neuron() | Readout():
                constant[name] = np.zeros((1, *op.shape))
                if np.any(total):
                    changed[name] = replace(op, bias=_compact(total[0] + real(op.bias)))
            case Output():
                constant[name] = total
            case Norm():
                constant[name] = np.zeros_like(total)  # no bias reaches it, and what it adds itself stays with it
            case _:
                constant[name] = apply_linear(graph, name, total)
                if isinstance(op, Dense | Conv) and op.bias is not None:
                    changed[name] = replace(op, bias=None)
    stranded = [name for name in graph.names(Output) if np.any(constant[name])]
    if stranded:
        return graph, [f"biases stay: one reaches {graph.label(stranded[0])} past every population"]
    return graph.edit(changed), []


def _incoming(graph: Graph, name: str, extent: dict[str, Shape]) -> Shape:
    edges = graph.into(name)
    return extent[edges[0].source] if edges else extent[name]


def _bias(graph: Graph, name: str) -> Reals | None:
    op = graph.nodes[name]
    return real(op.bias) if isinstance(op, Dense | Conv) and op.bias is not None else None


def _declined(graph: Graph, name: str) -> str:
    """Why the bias of a linear op cannot become that of a population; empty where it can."""
    for edge in _linear_edges_behind(graph, name):
        label = graph.label(edge.target)
        if edge.delay:
            return f"it passes the delay into {label}"
        match graph.nodes[edge.target]:
            case Pool(kind="max"):
                return f"it passes the maximum {label}"
            case Norm():
                return f"it passes {label}, which is not folded"
            case Neuron(alpha=alpha) if np.any(real(alpha) != 1.0):
                return f"it builds up in the synaptic current of {label}"
            case _:
                pass
    return ""


def _linear_edges_behind(graph: Graph, name: str) -> list[Edge]:
    """All edges between a linear op and the populations behind it."""
    found, waiting = [], [name]
    while waiting:
        for edge in graph.out_of(waiting.pop()):
            found.append(edge)
            if not isinstance(graph.nodes[edge.target], Neuron | Readout | Output):
                waiting.append(edge.target)
    return found


def _compact(bias: Reals) -> Reals:
    """One value a channel, or one for all, where that says the same."""
    if (bias == bias.flat[0]).all():
        return np.asarray(bias.flat[0])
    per_channel = bias.reshape(len(bias), -1)
    if bias.ndim > 1 and (per_channel == per_channel[:, :1]).all():
        return per_channel[:, 0].reshape(-1, *(1,) * (bias.ndim - 1))
    return bias


def _with_identities(graph: Graph) -> Graph:
    """``Scale(1)`` on every way from population to population that has no weights on it."""
    for edge in graph.edges:
        target = graph.nodes[edge.target]
        if not isinstance(target, Neuron | Readout) or _has_weights(graph, edge.source):
            continue
        name = graph.fresh(f"{edge.source}_to_{edge.target}")
        kept = list(graph.edges)
        kept.remove(edge)
        graph = graph.edit(
            {name: Scale(number(1.0))}, [*kept, Edge(edge.source, name, edge.delay), Edge(name, edge.target)]
        )
    return graph


def _has_weights(graph: Graph, name: str) -> bool:
    """Whether every way that leads here passes weights after its population."""
    op = graph.nodes[name]
    if isinstance(op, Dense | Conv | Scale | Norm):
        return True
    if isinstance(op, Flatten):
        return all(_has_weights(graph, edge.source) for edge in graph.into(name))
    return not isinstance(op, Input | Neuron)

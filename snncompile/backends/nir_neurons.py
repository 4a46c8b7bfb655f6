"""Neurons in the form that a profile's readers share, each rewriting exact; what they cannot say is refused by name.

gain, amplitude    Scale before and behind
rest               v' = v - rest where readers leave v_leak out: threshold, reset and start move with it
bias               into the weights in front
>= and >           the number next to the threshold, in the type that readers keep it in
beta = 0           IF, or LIF with tau = 2^60 dt: 1 - 2^-60 is 1 in every type
mean, sum, last    a plain output: what it does over time is its reader's
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snncompile.backends.nir_linear import biased
from snncompile.backends.nir_profiles import Profile
from snncompile.backends.nir_sketch import is_compared
from snncompile.errors import NotRepresentable
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Neuron, Output, Readout, Reset, Scale, To, number, real

FOREVER = 2.0**-60
"""A decay that rounds to none: ``1 - FOREVER`` is 1 in float32 and in float64."""


def plain_neuron(graph: Graph, name: str, profile: Profile, *, soft: bool) -> Graph:
    """One population in the form of the profile. Raises ``NotRepresentable``."""
    op = graph.nodes[name]
    assert isinstance(op, Neuron)
    label = graph.label(name)
    if is_compared(op) and "Threshold" in profile.nodes:
        return graph.edit({name: _next_to(op, profile)})
    graph, op = _unscaled(graph, name, op)
    op = _decays(label, op, profile)
    op = _at_rest(label, op, profile)
    _check_reset(label, op, profile, soft=soft)
    op = _next_to(_with_unit_gain(op, profile), profile)
    _check_alike(label, op, profile)
    if np.any(real(op.bias)):
        graph, op = _without_bias(graph, name, op, profile)
    return graph.edit({name: op})


def _unscaled(graph: Graph, name: str, op: Neuron) -> tuple[Graph, Neuron]:
    """Gain and amplitude as nodes of their own."""
    if np.any(real(op.gain) != 1.0) and graph.into(name):
        before = graph.fresh(f"{name}_gain")
        edges = [Edge(edge.source, before, edge.delay) if edge.target == name else edge for edge in graph.edges]
        graph = graph.edit({before: Scale(real(op.gain))}, [*edges, Edge(before, name)])
    if op.amplitude != 1.0 and graph.out_of(name):
        behind = graph.fresh(f"{name}_amplitude")
        edges = [Edge(behind, edge.target, edge.delay) if edge.source == name else edge for edge in graph.edges]
        graph = graph.edit({behind: Scale(number(op.amplitude))}, [*edges, Edge(name, behind)])
    return graph, replace(op, gain=number(1.0), amplitude=1.0)


def _decays(label: str, op: Neuron, profile: Profile) -> Neuron:
    alpha, beta = real(op.alpha), real(op.beta)
    for what, decay in (("alpha", alpha), ("beta", beta)):
        if np.any(decay < 0) or np.any(decay > 1):
            raise NotRepresentable(f"its {what} is outside 0 .. 1", where=label, why="a time constant is positive")
    if np.any(alpha != 1.0):
        if "CubaLIF" not in profile.nodes:
            raise NotRepresentable("has a synaptic current", where=label, why=_readers(profile) + " read no CubaLIF")
        beta, alpha = np.where(beta == 0, FOREVER, beta), np.where(alpha == 0, FOREVER, alpha)
    if np.any(beta) and not beta.all():
        beta = np.where(beta == 0, FOREVER, beta)
    if not np.any(beta) and ("IF" not in profile.nodes or np.any(alpha != 1.0)):
        beta = np.where(beta == 0, FOREVER, beta)
    if profile.memory and np.any(beta == 1.0):
        raise NotRepresentable("forgets within a step", where=label, why=_readers(profile) + " take no tau of one step")
    if profile.vectors and np.any(beta) and len(op.shape) > 1:
        why = _readers(profile) + " fail on a leaky neuron of more than one axis"
        raise NotRepresentable(f"is a leaky population of shape {list(op.shape)}", where=label, why=why)
    return replace(op, alpha=alpha, beta=beta)


def _at_rest(label: str, op: Neuron, profile: Profile) -> Neuron:
    """Shifts the resting potential to zero where readers leave it out, or where the start is at it."""
    rest, initial = real(op.rest), real(op.initial)
    if np.any(rest) or np.any(initial):
        rest = np.where(real(op.beta) <= FOREVER, initial, rest)  # what does not leak may be counted from anywhere
        op = replace(op, rest=rest)
    if np.any(rest) and (not profile.leak or np.any(initial)):
        reset: Reset = To(real(op.reset.value) - rest) if isinstance(op.reset, To) else op.reset
        threshold = real(op.threshold) - rest
        op = replace(op, threshold=threshold, reset=reset, initial=initial - rest, rest=number(0.0))
    if np.any(real(op.initial)):
        raise NotRepresentable(
            "starts at another potential than it rests at",
            where=label,
            why="NIR has no initial potentials, and the numbers alone would be another network",
        )
    return op


def _check_reset(label: str, op: Neuron, profile: Profile, *, soft: bool) -> None:
    if isinstance(op.reset, To):
        if profile.reset == "subtract":
            why = _readers(profile) + " subtract the threshold"
            raise NotRepresentable("is reset to a value", where=label, why=why, remedy="another --nir-profile")
        if np.any(real(op.reset.value)) and profile.reset == "zero":
            value = f"{real(op.reset.value).flat[0]:g}"
            why = _readers(profile) + " leave v_reset out, or start at it"
            raise NotRepresentable(f"is reset to {value}", where=label, why=why, remedy="--nir-profile canonical")
        return
    if profile.reset == "subtract":
        if np.any(real(op.reset.amount) != real(op.threshold)):
            why = _readers(profile) + " subtract the threshold"
            raise NotRepresentable("is reset by another amount than its threshold", where=label, why=why)
        return
    if not {"LI", "Threshold", "Scale"} <= profile.nodes:
        why = f"NIR's neurons are reset to a value, and {_readers(profile)} read no Threshold"
        remedy = "--nir-profile canonical --soft-reset graph, or --nir-profile sinabs"
        raise NotRepresentable("is reset by subtraction", where=label, why=why, remedy=remedy)
    if np.any(real(op.alpha) != 1.0):
        why = "NIR has nothing that reaches the potential behind a synaptic current"
        raise NotRepresentable("is reset by subtraction and has a synaptic current", where=label, why=why)
    if not soft:
        why = "NIR's neurons are reset to a value; the exact form is a loop LI -> Threshold -> Scale"
        raise NotRepresentable("is reset by subtraction", where=label, why=why, remedy="--soft-reset graph writes it")


def _next_to(op: Neuron, profile: Profile) -> Neuron:
    """The threshold that fires at the same potentials under the readers' comparison, in the type they keep it in."""
    threshold = real(op.threshold)
    kind = np.float32 if profile.dtype == "float32" else np.float64
    near = threshold.astype(kind)
    wide = near.astype(np.float64)
    below = np.where(wide > threshold, np.nextafter(near, kind(-np.inf)), near)  # the largest that is not above it
    above = np.where(wide < threshold, np.nextafter(near, kind(np.inf)), near)
    if profile.ties == ">":
        # v >= t is v > the number before the smallest that is not below t
        found = below if op.fires == ">" else np.nextafter(above, kind(-np.inf))
    else:
        found = above if op.fires == ">=" else np.nextafter(below, kind(np.inf))
    return replace(op, threshold=np.asarray(found, dtype=np.float64), fires=profile.ties)


def _with_unit_gain(op: Neuron, profile: Profile) -> Neuron:
    """A neuron whose r is 1, in units in which an input counts beta: ``v' = beta v``, threshold and reset with it."""
    beta = real(op.beta)
    if profile.gain != "1" or profile.decay != "euler" or not np.any(beta) or np.any(real(op.alpha) != 1.0):
        return op
    reset: Reset = To(beta * real(op.reset.value)) if isinstance(op.reset, To) else By(beta * real(op.reset.amount))
    # a bias arrives with the inputs, in front of the gain
    return replace(op, gain=beta, reset=reset, threshold=beta * real(op.threshold), rest=beta * real(op.rest))


def _check_alike(label: str, op: Neuron, profile: Profile) -> None:
    """Raise where a parameter differs from neuron to neuron and readers take one number a population."""
    values = {"tau": (op.alpha, op.beta), "v_threshold": (op.threshold,), "v_leak": (op.rest,)}
    if isinstance(op.reset, To):
        values["v_reset"] = (op.reset.value,)
    for what, params in values.items():
        for param in params:
            array = real(param)
            if what not in profile.free and array.size and np.any(array != array.flat[0]):
                why = f"{_readers(profile)} take one {what} a population"
                raise NotRepresentable(f"its {what} differs from neuron to neuron", where=label, why=why)


def _without_bias(graph: Graph, name: str, op: Neuron, profile: Profile) -> tuple[Graph, Neuron]:
    if np.any(real(op.alpha) != 1.0):
        if not profile.leak or np.any(real(op.beta) <= FOREVER):
            why = "a bias in the weights would build up in its synaptic current"
            raise NotRepresentable("has a bias and a synaptic current", where=graph.label(name), why=why)
        return graph, replace(op, rest=real(op.rest) + real(op.bias) / real(op.beta), bias=number(0.0))
    return biased(graph, name, real(op.bias), op.shape), replace(op, bias=number(0.0))


def plain_readout(graph: Graph, name: str, profile: Profile) -> Graph:
    """A read-out as an output of what arrives at each step, its bias in the weights in front; a weighted one, and one
    whose potential goes on, stays where the readers have such an integrator.
    """
    op = graph.nodes[name]
    assert isinstance(op, Readout)
    if np.any(real(op.bias)):
        graph = biased(graph, name, real(op.bias), op.shape).edit({name: replace(op, bias=number(0.0))})
    others = [edge.target for edge in graph.out_of(name) if not isinstance(graph.nodes[edge.target], Output)]
    if op.kind == "weighted" or others:
        integrator = "I" if op.decay == 1 else "LI"
        if integrator not in profile.nodes or profile.gain != "tau/dt" or not 0 <= op.decay <= 1:
            what = f"feeds {others[0]}" if others else "is a weighted read-out"
            why = _readers(profile) + " have no leaky integrator of this gain"
            raise NotRepresentable(what, where=graph.label(name), why=why)
        return graph
    passing = [
        Edge(before.source, after.target, before.delay + after.delay)
        for before in graph.into(name)
        for after in graph.out_of(name)
    ]
    return graph.edit({name: None}, [*graph.edges, *passing])


def _readers(profile: Profile) -> str:
    return f"the readers of profile {profile.name}"

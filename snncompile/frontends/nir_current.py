"""A leaky integrator in front of neurons as their synaptic current.

An LI without a resting potential is a filter, ``y[t] = (1 - alpha) y[t-1] + gain x[t]``, and the same for every neuron
where its decay is. Weights without a bias may then change places with it: what an LI sends through them into an IF or
LIF is the synaptic current ``u[t] = (1 - alpha) u[t-1] + W gain x[t]`` of that neuron, if nothing else arrives there.
Everything else that goes on from an LI is an analog value, which no population sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from snncompile.fixed import Reals
from snncompile.frontends.nir_flat import Flat
from snncompile.frontends.nir_layers import LINEAR
from snncompile.frontends.nir_neurons import Fired
from snncompile.frontends.nir_record import Node
from snncompile.frontends.nir_time import Leak, Time
from snncompile.ir.graph import Edge


@dataclass
class Currents:
    """``filters``: LI that become a scale; ``alpha``: of the neurons whose current they are."""

    filters: dict[str, Leak] = field(default_factory=dict)
    alpha: dict[str, Reals] = field(default_factory=dict)


def currents(
    flat: Flat,
    into: Mapping[str, list[Edge]],
    out_of: Mapping[str, list[Edge]],
    fired: Mapping[str, Fired],
    time: Time,
) -> Currents:
    """The LI of a network that are the current of neurons; those that are not are left as they are."""
    found = {name: leak for name, node in flat.nodes.items() if (leak := _filter(node, time)) and name not in fired}
    while True:
        reached = {name: _ends(flat, out_of, name, forward=True) for name in found}
        kept = {
            name: leak
            for name, leak in found.items()
            if reached[name] and all(_is_current(flat, into, end, fired, found, leak) for end in reached[name])
        }
        if len(kept) == len(found):
            break
        found = kept
    alpha = {end: leak.beta.reshape(-1)[0] for name, leak in found.items() for end in reached[name]}
    return Currents(found, {end: np.asarray(value) for end, value in alpha.items()})


def _filter(node: Node, time: Time) -> Leak | None:
    """What an LI does to its input, where that is the same for every neuron but for the gain."""
    if node.kind != "LI" or np.any(node.reals("v_leak")):
        return None
    leak = time.leak(node, "tau")
    return leak if np.all(leak.beta == leak.beta.flat[0]) else None


def _is_current(
    flat: Flat,
    into: Mapping[str, list[Edge]],
    name: str,
    fired: Mapping[str, Fired],
    filters: Mapping[str, Leak],
    leak: Leak,
) -> bool:
    """Whether all that arrives at a neuron has passed a filter of this decay."""
    if flat.nodes[name].kind not in ("IF", "LIF") and not (name in fired and flat.nodes[name].kind in ("I", "LI")):
        return False
    sources = _ends(flat, into, name, forward=False)
    return all(one in filters and filters[one].beta.flat[0] == leak.beta.flat[0] for one in sources)


def _ends(flat: Flat, edges: Mapping[str, list[Edge]], name: str, *, forward: bool) -> set[str]:
    """The first nodes on every way from here that are more than weights."""
    found: set[str] = set()
    waiting, seen = [name], {name}
    while waiting:
        for edge in edges[waiting.pop()]:
            other = edge.target if forward else edge.source
            node = flat.nodes[other]
            if node.kind not in LINEAR or (node.has("bias") and np.any(node.reals("bias"))):
                found.add(other)
            elif other not in seen:
                seen.add(other)
                waiting.append(other)
    return found

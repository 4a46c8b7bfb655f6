"""A network in a machine's integers as reals: rewritten with the primitives of NIR, and whether reals are the same.

NIR's neurons compute in reals. A machine's are the same as long as nothing is rounded and nothing leaves a register: a
decay of all or nothing, and worst sums over a sample inside the range. Everything else is said: ``reasons`` names each
population whose reals are others. Populations without a primitive of NIR are drawn with those that it has
(``nir_graded.py``, ``nir_resonance.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from snncompile.backends.nir_graded import graded
from snncompile.backends.nir_profiles import Profile
from snncompile.backends.nir_ranges import Ranges, lasting, ranges, registers
from snncompile.backends.nir_resonance import resonance
from snncompile.errors import NotRepresentable
from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Neuron, Op, Readout, Resonator, Scale, SigmaDelta, kind, real
from snncompile.run.bounds import FLOAT64
from snncompile.run.trace import Trace
from snncompile.target import Target

DRAWN_WITH = frozenset({"I", "LI", "Threshold", "Scale", "Delay"})


@dataclass(frozen=True)
class InReals:
    """``graph``: of LIF neurons, thresholds and integrators, for the interpreter in reals. ``spikes``: population ->
    the node of its spikes; ``shown``: population -> the node whose value traces of it show, where that is another one;
    ``drawn``: populations that have no primitive; ``reasons``: why the reals are not the integers, empty where they
    are; ``limits``: how far a potential of reals may be from the machine's, given what arrives, in weight units.
    """

    graph: Graph
    spikes: Mapping[str, str]
    shown: Mapping[str, str] = field(default_factory=dict)
    drawn: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether every spike of every sample of so many steps is the machine's."""
        return not self.reasons

    @property
    def digits(self) -> frozenset[str]:
        """The populations that were drawn in the machine's integers, exactly."""
        return frozenset(self.drawn) - self.shown.keys()

    def populations(self, trace: Trace, graph: Graph) -> Trace:
        """A trace of this ``graph`` by the populations of the network that it was made of: their spikes, and the
        potentials of those that have one number for it.
        """
        one = [name for name in graph.nodes if name in self.shown or name not in self.digits & self.spikes.keys()]
        potentials = {name: trace.potentials.get(self.shown.get(name, name)) for name in one}
        return Trace(
            {name: trace.spikes[node] for name, node in self.spikes.items()},
            {name: array for name, array in potentials.items() if array is not None},
            trace.meta,
        )


def in_reals(graph: Graph, target: Target, steps: int, profile: Profile) -> InReals:
    """The reals of a graph in the integers of a machine, for samples of ``steps`` steps.

    Raises ``NotRepresentable`` for what they cannot say: see ``nir_graded.py`` and ``nir_resonance.py``, and profiles
    whose readers miss a primitive.
    """
    graph = _without_ones(graph)
    known = ranges(graph, steps)
    reasons: list[str] = []
    limits: dict[str, float] = {}
    for name in graph.names(Neuron, Readout, Resonator):
        op = graph.nodes[name]
        beyond = _beyond(op, known, name, target, steps)
        reasons += [f"{graph.label(name)}: {reason}" for reason in (*_rounded(op, target), *beyond)]
        if not beyond:
            limits[name] = _limit(op, target, steps)
    spikes = {name: name for name in graph.names(Neuron, Resonator)}
    shown: dict[str, str] = {}
    others = graph.names(SigmaDelta, Resonator)
    for name in others:
        op = graph.nodes[name]
        _check_profile(graph, name, profile)
        if isinstance(op, SigmaDelta):
            graph, told = graded(graph, name, known, steps)
            spikes |= {} if told is None else {name: told}
        else:
            graph, node = resonance(graph, name, known, target, steps)
            shown |= {} if node is None else {name: node}
    return InReals(graph, spikes, shown, tuple(others), tuple(reasons), limits)


def _without_ones(graph: Graph) -> Graph:
    """Without factors of 1, which only machines need: readers of NIR know few nodes."""
    for name in graph.names(Scale):
        op = graph.nodes[name]
        if isinstance(op, Scale) and np.all(real(op.factor) == 1.0):
            ways = [
                Edge(one.source, other.target, one.delay + other.delay)
                for one in graph.into(name)
                for other in graph.out_of(name)
            ]
            graph = graph.edit({name: None}, [*graph.edges, *ways])
    return graph


def _check_profile(graph: Graph, name: str, profile: Profile) -> None:
    whole = profile.gain == "tau/dt" and profile.dtype == "float64" and profile.loops == "and Delay"
    if not whole or not profile.nodes >= DRAWN_WITH:
        raise NotRepresentable(
            f"is no primitive of NIR (a {kind(graph.nodes[name])})",
            where=graph.label(name),
            why=f"it takes {', '.join(sorted(DRAWN_WITH))} and float64; readers of profile {profile.name} lack some",
            remedy="--nir-profile canonical",
        )


@dataclass(frozen=True)
class _Kept:
    """Of a state, in a step: the largest share that is kept, and one that is rounded (None: all or nothing is kept)."""

    most: float
    rounded: float | None


def _decays(op: Op) -> dict[str, _Kept]:
    """What a population keeps of its states, by name."""
    match op:
        case Neuron():
            return {"current": _kept(1.0 - real(op.alpha)), "potential": _kept(1.0 - real(op.beta))}
        case Readout():
            return {"sum": _kept(np.asarray(op.decay))}
        case Resonator(kind="phase"):
            turn = np.abs(np.concatenate([real(op.cosine).ravel(), real(op.sine).ravel()]))
            length = float(np.hypot(real(op.cosine), real(op.sine)).max())
            return {"state": _Kept(length, None if _kept(turn).rounded is None else length)}
        case _:
            return {}


def _kept(share: Reals) -> _Kept:
    parts = [float(value) for value in np.unique(share)]
    return _Kept(max(parts, default=0.0), next((part for part in parts if part not in (0.0, 1.0)), None))


def _rounded(op: Op, target: Target) -> list[str]:
    """The states that are rounded at every step."""
    return [
        f"its {what} keeps {kept.rounded:g} of itself, which {target.name} rounds "
        f"({target.decay.rounding}) at every step; NIR's neurons are reals"
        for what, kept in _decays(op).items()
        if kept.rounded is not None
    ]


def _beyond(op: Op, known: Ranges, name: str, target: Target, steps: int) -> list[str]:
    """The registers that may overflow."""
    return [
        f"its {what} may reach {worst:,.0f} in {steps} steps; {target.name} holds {limit:,.0f}, and what lies beyond "
        "is no sum of reals"
        for what, (worst, limit) in registers(op, known.arrives[name], target, steps).items()
        if not worst <= limit
    ]


def _limit(op: Op, target: Target, steps: int) -> float:
    """How far rounding may move a potential in a sample: each product loses less than a unit, and each error decays.

    ``g(1 - beta) (g(1 - alpha) + 1)`` units, without the terms that are not rounded; ``2 sqrt 2 g(rho)`` units for a
    resonator, which rounds two products in each part. float64 rounds as well: 8 operations a step.
    """
    unit, room = 2.0**-target.potential.fraction_bits, 2.0**target.potential.bits
    kept = _decays(op)
    lasts = {what: lasting(one.most, steps) for what, one in kept.items()}
    rounds = {what: one.rounded is not None for what, one in kept.items()}
    match op:
        case Neuron():
            units = lasts["potential"] * (lasts["current"] * rounds["current"] + rounds["potential"])
        case Readout():
            units = lasts["sum"] * rounds["sum"]
        case Resonator(kind="phase"):
            units = lasts["state"] * rounds["state"] * 2.0 * float(np.sqrt(2.0))
        case _:
            return 0.0
    return unit * (units + 8 * steps * room * FLOAT64)

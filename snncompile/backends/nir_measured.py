"""How far the reals of a file are from the integers of the machine that a network was made for: measured, population
by population, on samples; nothing of it is estimated.

Twice: free, as readers of the file run it; and given the same inputs and resets, where what remains is what rounding
does within the population, which its limit (``nir_integers.py``) bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.backends.nir_integers import InReals
from snncompile.errors import Disagreement
from snncompile.ir.graph import Graph
from snncompile.ir.ops import SigmaDelta
from snncompile.run import reference
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target

Array = NDArray[Any]
HEADERS = ("population", "compared", "differ", "share", "first", "given equal inputs", "potential", "limit")


@dataclass(frozen=True)
class Measured:
    """One population: ``different`` of ``compared`` spikes (sums, where it is a read-out), ``first`` of them; ``given``
    differ where inputs and resets are the machine's, with potentials up to ``largest`` weight units apart; ``limit``:
    what rounding can do, None where a register may overflow.
    """

    population: str
    compared: int
    different: int
    first: str
    given: int | None = None
    largest: float | None = None
    limit: float | None = None

    def plain(self) -> dict[str, Any]:
        share = self.different / self.compared if self.compared else 0.0
        return asdict(self) | {"share": share}

    def cells(self) -> list[str]:
        """A row of the table."""
        share = f"{self.different / self.compared:.2%}" if self.compared else ""
        given = "" if self.given is None else f"{self.given:,}"
        largest = "" if self.largest is None else f"{self.largest:.3g}"
        limit = "none" if self.limit is None else f"{self.limit:.3g}"
        return [self.population, f"{self.compared:,}", f"{self.different:,}", share, self.first, given, largest, limit]


def measured(
    graph: Graph, made: InReals, stimulus: Mapping[str, Array], target: Target, machine: Trace
) -> tuple[Trace, tuple[Measured, ...]]:
    """What the reals do, and every population of ``graph``, whose integers did ``machine`` on ``stimulus`` (input ->
    [samples, steps, *shape]).

    Raises ``Disagreement`` where reals that are said to be the integers are not, or lie further off than their limit.
    """
    free = reference.run(made.graph, stimulus)
    forced = _forced(made, stimulus, machine) if not made.exact else None
    unit = 2.0**-target.potential.fraction_bits
    found = []
    for name in graph.order:
        op = graph.nodes[name]
        if name not in machine.potentials:
            continue
        if name in made.spikes:
            own, other = machine.spikes[name], free.spikes[made.spikes[name]]
            one = _compared(name, own, other, graph)
        else:
            scale = 1.0 if isinstance(op, SigmaDelta) else unit
            one = _compared(name, machine.potentials[name] * scale, free.potentials[name], graph)
        if forced is not None and name not in made.digits:
            one = _given(one, made, machine, forced, name, unit)
        found.append(one)
    _demand(made, found)
    return free, tuple(found)


def _compared(name: str, own: Array, other: Array, graph: Graph) -> Measured:
    different = int(np.sum(own != other))
    what = "spikes" if own.dtype == bool else "potentials"
    traces = [Trace({name: a} if what == "spikes" else {}, {} if what == "spikes" else {name: a}) for a in (own, other)]
    first = str(first_divergence(traces[0], traces[1], [name]) or "")
    return Measured(name, own.size, different, first)


def _forced(made: InReals, stimulus: Mapping[str, Array], machine: Trace) -> Trace:
    """The reals where every population hears what the machine's sent, and is reset when they were."""
    own = {node: machine.spikes[name] for name, node in made.spikes.items() if name not in made.digits}
    return reference.run(made.graph, stimulus, forced=own)


def _given(one: Measured, made: InReals, machine: Trace, forced: Trace, name: str, unit: float) -> Measured:
    node = made.shown.get(name, name)
    largest = float(np.max(np.abs(forced.potentials[node] - machine.potentials[name] * unit), initial=0.0))
    given = int(np.sum(forced.spikes[made.spikes[name]] != machine.spikes[name])) if name in made.spikes else None
    limit = made.limits.get(name)
    return Measured(one.population, one.compared, one.different, one.first, given, largest, limit)


def _demand(made: InReals, found: list[Measured]) -> None:
    for one in found:
        if made.exact and one.different:
            raise Disagreement(f"is said to be exact; {one.first}", where=one.population, why="export --target nir")
        if one.limit is not None and one.largest is not None and one.largest > one.limit:
            why = f"rounding explains {one.limit:.6g} weight units, {one.largest:.6g} were found"
            raise Disagreement("its reals are further from the machine than rounding", where=one.population, why=why)

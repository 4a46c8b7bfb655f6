"""What a comparison finds: records of the ladder's rungs, and how a difference is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from snncompile.errors import Disagreement
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Neuron, Readout, real
from snncompile.run import parts
from snncompile.run.trace import Array, Divergence, Trace


@dataclass(frozen=True)
class Flip:
    """One spike that differs, with all that decides whether it may."""

    population: str
    sample: int
    step: int
    neuron: tuple[int, ...]
    above: float  # potential on the rung above
    below: float
    threshold: float
    bound: float

    @property
    def margin(self) -> float:
        """How far the potential is from the threshold."""
        return abs(self.below - self.threshold)

    @property
    def explained(self) -> bool:
        """Whether rounding alone can make this difference."""
        return self.margin <= self.bound

    def __str__(self) -> str:
        index = ",".join(map(str, self.neuron))
        return (
            f"{self.population}[{index}], step {self.step}, sample {self.sample}: potential {self.above:.9g} above, "
            f"{self.below:.9g} here, threshold {self.threshold:.9g}, margin {self.margin:.3g}, "
            f"rounding bound {self.bound:.3g}"
        )


@dataclass(frozen=True)
class Drift:
    """A potential that lies farther from the one above than rounding can bring it."""

    population: str
    sample: int
    step: int
    neuron: tuple[int, ...]
    above: float
    below: float
    bound: float

    def __str__(self) -> str:
        index = ",".join(map(str, self.neuron))
        return (
            f"{self.population}[{index}], step {self.step}, sample {self.sample}: potential {self.above:.9g} above, "
            f"{self.below:.9g} here, apart by {abs(self.above - self.below):.3g}, rounding bound {self.bound:.3g}"
        )


@dataclass(frozen=True)
class Rung:
    """One comparison. ``verdict``: recorded, same, explained, measured, bit-equal, left out, or DIFFERENT."""

    number: int
    level: str
    run_by: str
    against: str
    verdict: str
    compared: int = 0
    different: int = 0
    note: str = ""
    flips: tuple[Flip, ...] = ()
    distance: Mapping[str, float] | None = None
    rate_error: Mapping[str, float] | None = None

    @property
    def holds(self) -> bool:
        return self.verdict != "DIFFERENT"

    def demand(self) -> None:
        """Raise ``Disagreement`` where the rung does not hold."""
        if not self.holds:
            raise Disagreement(
                f"{self.different} of {self.compared} values differ; first {self.note}",
                where=f"rung {self.number}, {self.level} ({self.run_by} against {self.against})",
                remedy="please report this with `snncompile show` of the checkpoint: a level must not change a spike",
            )


def differing(graph: Graph, above: Trace, here: Trace, limit: Mapping[str, Array]) -> list[Flip]:
    """Every spike that differs between two teacher-forced runs, earliest step first."""
    flips = []
    for name in graph.names(Neuron):
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        threshold = np.broadcast_to(real(op.threshold), op.shape)
        for place in np.argwhere(above.spikes[name] != here.spikes[name]):
            sample, step, *neuron = index = tuple(int(number) for number in place)
            one, other = (float(trace.potentials[name][index]) for trace in (above, here))
            level, bound = float(threshold[tuple(neuron)]), float(limit[name][index])
            flips.append(Flip(name, sample, step, tuple(neuron), one, other, level, bound))
    order = {name: index for index, name in enumerate(graph.order)}
    return sorted(flips, key=lambda flip: (flip.step, order[flip.population], flip.sample, flip.neuron))


def drifted_apart(
    graph: Graph, above: Mapping[str, Array], here: Mapping[str, Array], limit: Mapping[str, Array]
) -> tuple[list[Drift], int]:
    """The first potential of every population that is farther from the one above than its bound, and how many are.

    A potential that is no number is farther than any bound.
    """
    drifts, count = [], 0
    for name in graph.names(Neuron, Readout):
        outside = ~(np.abs(above[name] - here[name]) <= limit[name])
        count += int(outside.sum())
        if outside.any():
            step = int(np.argmax(outside.reshape(*outside.shape[:2], -1).any(axis=(0, 2))))
            sample, *neuron = (int(number) for number in np.argwhere(outside[:, step])[0])
            place = (sample, step, *neuron)
            values = (float(array[name][place]) for array in (above, here, limit))
            drifts.append(Drift(name, sample, step, tuple(neuron), *values))
    return sorted(drifts, key=lambda drift: drift.step), count


def from_rest(graph: Graph, trace: Trace) -> dict[str, Array]:
    """Potentials of a ``read`` or ``folded`` graph counted from the resting potential, which folding shifts to zero."""
    found: dict[str, Array] = {}
    for name in graph.names(Neuron, Readout):
        op = graph.nodes[name]
        found[name] = trace.potentials[name] - (real(op.rest) if isinstance(op, Neuron) else 0.0)
    return found


def explain(graph: Graph, fraction_bits: int, found: Divergence, above: Trace, here: Trace) -> str:
    """``lif2[3,1,4], step 2, sample 0: spikes True and False (potentials 6401 and 6399, threshold 6400, margin 1)``.

    A potential after the reset says how far a neuron was from its threshold only where it did not fire.
    """
    place = (found.sample, found.step, *found.neuron)
    thresholds = parts.thresholds(graph, found.population)
    traces = [trace for trace in (above, here) if found.population in trace.potentials]
    if len(traces) != 2 or thresholds is None:
        return str(found)
    values = [trace.potentials[found.population][place].item() for trace in traces]
    grid = float(thresholds[found.neuron])
    if all(isinstance(value, int) for value in values):
        grid *= 2**fraction_bits
    shown, margins = [], []
    for trace, value in zip(traces, values, strict=True):
        reset = trace.meta.get("potential") == "after reset" and bool(trace.spikes[found.population][place])
        shown.append(f"{value:.9g} after the reset" if reset else f"{value:.9g}")
        margins += [] if reset else [abs(value - grid)]
    margin = f", margin {min(margins):.3g}" if margins else ""
    return f"{found} (potentials {shown[0]} and {shown[1]}, threshold {grid:.9g}{margin})"

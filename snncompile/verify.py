"""The ladder: every level of a network is run, and compared with the rung above it.

    0 checkpoint   torch        what was trained
    1 read         reference    the same spikes, or the potential is nearer to the threshold than the proven rounding
                                bound, and is listed; every potential, read-outs too, inside that bound
    2 folded       reference    likewise
    3 fixed        integer      the one lossy rung: spike distance, accuracy
    4 timed        integer      bit-equal after the latency shift
    5 placed       cpu          bit-equal
    6 device       Lava         bit-equal; or onnxruntime

Rungs 0 to 3 are teacher-forced: each population runs on the spikes recorded at rung 0 and is reset by them, so that
one tie does not drown what follows. The verdict is exact Hamming on (layer, step, neuron).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.backends import lava
from snncompile.compile import Compiled, encoded, shown
from snncompile.ir.check import Level
from snncompile.ir.connections import answering
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Readout
from snncompile.ir.signals import grid
from snncompile.ir.store import save
from snncompile.run import integer, parts, reference
from snncompile.run.bounds import FLOAT32, FLOAT64, bounds
from snncompile.run.cpu import Simulator
from snncompile.run.parts import after_reset
from snncompile.run.stimulus import Given
from snncompile.run.trace import Array, Trace, first_divergence
from snncompile.rungs import Rung, differing, drifted_apart, explain, from_rest

LISTED = 10  # explained differences that a rung names one by one


class Ladder:
    """The rungs of one compiled network on some data.

    ``trained`` is what torch recorded on the same data (None for a graph that has no torch behind it). ``x`` are
    images or frames as the network sees them, or a stimulus for each of several inputs; ``labels`` [samples] or None.
    """

    def __init__(
        self, compiled: Compiled, x: Given | Mapping[str, Array], labels: Array | None, trained: Trace | None
    ) -> None:
        self.compiled, self.labels, self.trained = compiled, labels, trained
        given = x if isinstance(x, Mapping) else shown(compiled.levels["read"], x, compiled.steps)
        self.stimulus = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
        self.integers = encoded(compiled.levels["fixed"], self.stimulus)

    def rungs(
        self, *, with_lava: bool, onnx: bool = False, log: Callable[[str], None] = lambda line: None, first: int = 0
    ) -> Iterator[Rung]:
        """The rungs from the top, one after the other; ``with_lava`` runs the device rung, ``onnx`` runs it on
        onnxruntime instead. ``first``: so many are left out, which were climbed before.
        """
        yield from (climb() for climb in self.climbs(with_lava, onnx, log)[first:])

    def climbs(
        self, with_lava: bool, onnx: bool, log: Callable[[str], None] = lambda line: None
    ) -> list[Callable[[], Rung]]:
        """What makes each of the ``rungs``; nothing is run before it is called."""
        found: list[Callable[[], Rung]] = []
        if (trained := self.trained) is not None:
            found.append(lambda: Rung(0, "checkpoint", "torch", "", "recorded", note=f"{trained.samples} samples"))
        if self.trained is None and self.in_integers:
            note = f"the network is in integers of {self.compiled.target.name}"
            found.append(lambda: Rung(3, "fixed", "integer", "", "recorded", note=note))
        else:
            found += [self.read, self.folded, self.fixed]
        found += [self.timed, self.fast]
        if onnx:
            return [*found, self.on_onnxruntime]
        absent = Rung(6, "device", "Lava", "timed", "left out", note="no Python 3.10 with Lava (`make lava`)")
        return [*found, (lambda: self.device(log)) if with_lava else (lambda: absent)]

    @property
    def in_integers(self) -> bool:
        """Whether the network was trained in the target's integers: then read, folded and fixed are one graph, run in
        integers, and nothing may differ from what torch did.
        """
        return self.compiled.levels["read"] is self.compiled.levels["fixed"]

    @cached_property
    def _top(self) -> Trace:
        """The spikes that force all the lossy and rounding rungs."""
        return self.trained or reference.run(self.compiled.levels["read"], self.stimulus)

    @cached_property
    def _read(self) -> Trace:
        return reference.run(self.compiled.levels["read"], self.stimulus, forced=self._top.spikes)

    @cached_property
    def _folded(self) -> Trace:
        return reference.run(self.compiled.levels["folded"], self.stimulus, forced=self._top.spikes)

    @cached_property
    def _fixed_parts(self) -> Trace:
        return integer.run(self.compiled.levels["fixed"], self.integers, self.compiled.target)

    @cached_property
    def _fixed_free(self) -> Trace:
        return self._merged(self._fixed_parts)

    def _merged(self, trace: Trace) -> Trace:
        """A trace of a level below ``folded``, populations that were split for the machine in one piece; every neuron
        of a read-out is compared, not the sums that they are the addends of.
        """
        return parts.merged(self.compiled.levels["placed"], trace, sums=False)

    def read(self) -> Rung:
        """Rung 1: the graph against torch."""
        graph = self.compiled.levels["read"]
        if self.trained is None:
            return Rung(1, "read", "reference", "", "recorded", note="the graph is where this network starts")
        if self.in_integers:
            return self._as_trained(1, "read", "")
        limit = self._bounds(graph, self._read, FLOAT32 + FLOAT64)
        return self._rounded(1, "read", self.trained, self._read, limit, "checkpoint")

    def folded(self) -> Rung:
        """Rung 2: norms, pools and biases folded, against the graph as read."""
        if self.in_integers:
            return self._as_trained(2, "folded", "was trained folded")
        # the rounding of both sides, and that of the passes: what folding cancels still has its roundings, so sizes
        # must be those before it; four units: a folded parameter is a root, a quotient and two products
        before = self._bounds(self.compiled.levels["read"], self._read, 4 * FLOAT64)
        behind = self._bounds(self.compiled.levels["folded"], self._folded, 4 * FLOAT64)
        limit = {name: before[name] + behind[name] for name in behind}
        return self._rounded(2, "folded", self._read, self._folded, limit, "read")

    def _bounds(self, graph: Graph, here: Trace, roundoff: float) -> dict[str, Array]:
        recorded = Trace({name: self._top.spikes[name] for name in here.spikes}, here.potentials)
        return bounds(graph, self.stimulus, recorded, roundoff)

    def _rounded(
        self, number: int, level: Level, above: Trace, here: Trace, limit: Mapping[str, Array], against: str
    ) -> Rung:
        """A rung that admits what rounding explains. What is above is the graph as read, or torch running it."""
        graph = self.compiled.levels[level]
        flips = differing(graph, above, here, limit)
        drifts, drifted = drifted_apart(
            graph, from_rest(self.compiled.levels["read"], above), from_rest(graph, here), limit
        )
        compared = sum(array.size for array in (*here.spikes.values(), *here.potentials.values()))
        wrong = [*(flip for flip in flips if not flip.explained), *drifts]
        if wrong:
            verdict, note = "DIFFERENT", str(wrong[0])
        elif flips:
            verdict, note = "explained", f"every difference is inside its rounding bound; first {flips[0]}"
        else:
            verdict, note = "same", ""
        return Rung(number, level, "reference", against, verdict, compared, len(flips) + drifted, note, tuple(flips))

    def fixed(self) -> Rung:
        """Rung 3: the target's integers against the folded reals. What quantisation cost, never a verdict of
        equality; but against torch, and of equality, where the network was trained in these integers.
        """
        if self.in_integers:
            right = ""
            if self.labels is not None and self._judged:
                right = f"; accuracy {self._accuracy(self._fixed_free):.2%}, n = {len(self.labels)}"
            return self._as_trained(3, "fixed", f"trained in the integers of {self.compiled.target.name}{right}")
        graph, target = self.compiled.levels["fixed"], self.compiled.target
        own = parts.divided(graph, self._top.spikes)
        forced = parts.merged(graph, integer.run(graph, self.integers, target, forced=own))
        above = self._folded.spikes  # what legalise adds (a population for a maximum) has nothing above it
        different = {name: int((above[name] != forced.spikes[name]).sum()) for name in above}
        sizes = {name: array.size for name, array in above.items()}
        distance = {name: different[name] / sizes[name] for name in different}
        note = f"{sum(different.values()) / max(1, sum(sizes.values())):.3%} of spikes differ layer by layer"
        clipped = sum(self._clipped(name) for name in self.stimulus)
        if clipped:
            note += f"; {clipped} input values lie outside what calibration saw and are clipped"
        rates = self.rate_errors() if self.compiled.later else None
        if rates is not None:
            told = ", ".join(f"{name} {error:.4f}" for name, error in rates.items())
            note += (
                f"; EQUILIBRIUM-EQUIVALENT, not spike-exact: {'; '.join(self.compiled.later)}; mean rate error {told}"
            )
        if self.labels is not None and self._judged:
            before = self._accuracy(reference.run(self.compiled.levels["folded"], self.stimulus))
            after = self._accuracy(self._fixed_free)
            note += f"; accuracy {before:.2%} before, {after:.2%} after, n = {len(self.labels)}"
        total, wrong = sum(sizes.values()), sum(different.values())
        return Rung(
            3, "fixed", "integer", "folded", "measured", total, wrong, note, distance=distance, rate_error=rates
        )

    def rate_errors(self) -> dict[str, float]:
        """The mean distance of the rates of the machine's integers from those of the trained network, by population:
        over all samples and neurons, each running on its own.
        """
        above = reference.run(self.compiled.levels["folded"], self.stimulus).spikes
        here = self._fixed_free.spikes
        return {
            name: float(np.abs(above[name].mean(axis=1) - here[name].mean(axis=1)).mean())
            for name in above
            if name in here
        }

    @property
    def _judged(self) -> bool:
        """Whether there is one read-out that answers."""
        return len(self.compiled.levels["read"].names(Readout)) == 1

    def _as_trained(self, number: int, level: Level, note: str) -> Rung:
        """A rung of a network of integers: what torch computed in training, spikes and potentials alike."""
        if self.trained is None:
            return Rung(number, level, "integer", "", "recorded", note=note)
        above, here = self._merged(self.trained), self._fixed_free
        return self._equal(number, level, "integer", "checkpoint", here, above, note)

    def _clipped(self, name: str) -> int:
        """How many values of an input the machine's integers cannot reach."""
        op = self.compiled.levels["fixed"].nodes[name]
        assert isinstance(op, Input)
        unit, least, most = grid(op.signal)
        coded = np.rint(self.stimulus[name] / unit)
        return int(np.sum((coded < least) | (coded > most)))

    def _accuracy(self, trace: Trace) -> float:
        assert self.labels is not None
        return float(np.mean(answers(self.compiled.levels["fixed"], trace) == self.labels))

    def timed(self) -> Rung:
        """Rung 4: phases and delays against logical time, as one stream of samples where the program allows streams."""
        graph, target = self.compiled.levels["timed"], self.compiled.target
        stream = self.compiled.program.stream
        here = integer.run(graph, self.integers, target, stream=stream)
        how = "one stream" if stream else "sample by sample"
        return self._equal(
            4,
            "timed",
            "integer",
            "fixed",
            self._merged(here),
            self._fixed_free,
            f"{how}, latency {here.meta['latency']}",
        )

    def fast(self) -> Rung:
        """Rung 5: the fast interpreter on the placed program."""
        here = Simulator(self.compiled.levels["placed"], self.compiled.target).run(self.integers)
        return self._equal(5, "placed", "cpu", "timed", self._merged(here), self._fixed_free, "")

    def device(self, log: Callable[[str], None] = lambda line: None) -> Rung:
        """Rung 6: real Lava."""
        here, meta = self.on_device(log)
        seen = self._merged(after_reset(self.compiled.levels["fixed"], self._fixed_parts))  # all that machines show
        versions = meta.get("versions", {})
        note = f"lava-nc {versions.get('lava', '?')}, {meta.get('machine_steps', '?')} machine steps"
        return self._equal(6, "device", "Lava", "timed", here, seen, note)

    def on_onnxruntime(self) -> Rung:
        """Rung 6 on onnxruntime: the step graph of the integers in logical time."""
        from snncompile.backends import onnx, onnxruntime

        program, target = self.compiled.logical, self.compiled.target
        versions = onnxruntime.demand()
        model = onnx.model(program, target)
        here = onnxruntime.trace(model, onnx.told_by(model), self.integers)
        note = f"onnxruntime {versions['onnxruntime']}, {len(model.graph.node)} operations a step"
        return self._equal(6, "device", "onnxruntime", "fixed", self._merged(here), self._fixed_free, note)

    def on_device(self, log: Callable[[str], None] = lambda line: None) -> tuple[Trace, Mapping[str, Any]]:
        """The program on real Lava, and what Lava said of the run."""
        with tempfile.TemporaryDirectory(prefix="snncompile-") as name:
            save(self.compiled.program, Path(name))
            trace, meta = run_on_lava(Path(name), self.integers, log)
        return self._merged(trace), meta

    def _equal(self, number: int, level: str, run_by: str, against: str, here: Trace, above: Trace, note: str) -> Rung:
        """A rung that admits no difference at all, in spikes and potentials."""
        graph, target = self.compiled.levels["fixed"], self.compiled.target
        missing = (set(above.spikes) - set(here.spikes)) | (set(above.potentials) - set(here.potentials))
        if missing:
            return Rung(number, level, run_by, against, "DIFFERENT", note=f"nothing was recorded of {sorted(missing)}")
        pairs = [(above.spikes[name], here.spikes[name]) for name in above.spikes]
        pairs += [(above.potentials[name], here.potentials[name]) for name in above.potentials]
        compared = sum(one.size for one, _ in pairs)
        found = first_divergence(above, here, parts.names(graph))
        if found is None:
            return Rung(number, level, run_by, against, "bit-equal", compared, 0, note)
        wrong = sum(int((one != other).sum()) for one, other in pairs)
        told = explain(graph, target.potential.fraction_bits, found, self._fixed_free, here)
        return Rung(number, level, run_by, against, "DIFFERENT", compared, wrong, told)


def answers(graph: Graph, trace: Trace) -> Array:
    """The class of every sample: the largest sum of the (only) read-out at its last step."""
    (found,) = all_answers(graph, trace).values()
    return found


def all_answers(graph: Graph, trace: Trace) -> dict[str, Array]:
    """``answers`` of every read-out, by its name."""
    found = {}
    for name in answering(graph):
        op = graph.nodes[name]
        assert isinstance(op, Readout)
        found[name] = np.asarray(op.summed(trace.potentials[name][:, -1]).reshape(trace.samples, -1).argmax(axis=1))
    return found


def run_on_lava(
    bundle: Path, stimulus: Mapping[str, Array], log: Callable[[str], None] = lambda line: None
) -> tuple[Trace, Mapping[str, Any]]:
    """A bundle on real Lava, as a trace with potentials after the reset."""
    result = lava.run(bundle, stimulus, potentials=True, log=log)
    spikes = {key[:-2]: array.astype(bool) for key, array in result.arrays.items() if key.endswith(".s")}
    potentials = {key[:-2]: array.astype(np.int64) for key, array in result.arrays.items() if key.endswith(".v")}
    return Trace(spikes, potentials, {**result.meta, "potential": "after reset"}), result.meta

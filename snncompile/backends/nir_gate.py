"""The gate of a ``.nir``: the file is read again and run, by this package and by every importer that is installed.

Each reader runs free, sample by sample, and is held against the spikes of the training graph. Where it parts from them
first, a potential must be nearer to its threshold than rounding explains: on the side of the training graph, or on the
reader's (``run/bounds.py``; importers round parameters as well, so twice the roundoff of float32). Values at outputs
that do not spike must lie inside that bound as long as the spikes are the same. What follows in a sample after an
explained difference is another input, and is not compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.backends.nir_nodes import Written
from snncompile.backends.nir_profiles import Profile
from snncompile.errors import Disagreement, ToolError
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Input, Neuron, Output, Pool, Readout, real
from snncompile.ir.shapes import shapes
from snncompile.run import reference
from snncompile.run.bounds import FLOAT32, FLOAT64, bounds
from snncompile.run.trace import Trace

Array = NDArray[Any]
INTERPRETER = "SNNCOMPILE_NIR_PYTHON"
IMPORTERS = ("snntorch", "spikingjelly", "norse", "sinabs")
SAMPLES = 16
"""Importers run one sample and one step at a time: the gate takes this many."""
TIMEOUT = 600.0
ALONE = "snncompile, numbers alone"
RUNNER = Path(__file__).with_name("nir_runner.py")


@dataclass(frozen=True)
class Row:
    """What one reader made of the file. ``verdict``: same, explained, differs, unreadable, not installed, DIFFERENT."""

    reader: str
    version: str
    verdict: str
    compared: int = 0
    different: int = 0
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.verdict != "DIFFERENT"

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def demand(rows: list[Row], profile: Profile) -> None:
    """Raise ``Disagreement`` where a reader that the profile answers for is another network."""
    wrong = [row for row in rows if not row.holds]
    if wrong:
        raise Disagreement(
            f"{wrong[0].reader} {wrong[0].version} is another network: {wrong[0].note}",
            where=f"model.nir, profile {profile.name}",
            remedy="nothing was written; choose another --nir-profile",
        )


def interpreter() -> str:
    """The Python that has the importers: what ``SNNCOMPILE_NIR_PYTHON`` names, else this one."""
    return os.environ.get(INTERPRETER) or sys.executable


def installed() -> dict[str, str]:
    """The importers there, by version. Raises ``ToolError`` where the interpreter does not start."""
    done = _call([interpreter(), str(RUNNER), "versions"])
    try:
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        why = _last(done.stderr)
        raise ToolError("does not tell its importers", where=interpreter(), why=why, remedy=_REMEDY) from error
    return found


_REMEDY = f"name a Python that has numpy, torch and the importers with {INTERPRETER}"


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # nirtorch adds three signals in the order of a set
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError("cannot be run", where=words[0], why=str(error)[:200], remedy=_REMEDY) from error


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it said nothing"


def observed(graph: Graph) -> Graph:
    """The graph with what arrives at every output, and every maximum, as a read-out of its own: ``NAME.value``."""
    extent = shapes(graph)
    outputs, over = graph.names(Output), maxima(graph)
    nodes = {f"{name}.value": Readout(extent[name], kind="last", decay=0.0) for name in (*outputs, *over)}
    more = [Edge(edge.source, f"{name}.value", edge.delay) for name in outputs for edge in graph.into(name)]
    return graph.edit(dict(nodes), [*graph.edges, *more, *(Edge(name, f"{name}.value") for name in over)])


def maxima(graph: Graph) -> list[str]:
    """The maxima of a graph: populations in a file, whose spikes are compared as those of any other."""
    return [name for name in graph.order if isinstance(op := graph.nodes[name], Pool) and op.kind == "max"]


def fired(graph: Graph, trace: Trace) -> dict[str, Array]:
    """The spikes of an observed graph, by population and maximum."""
    return dict(trace.spikes) | {name: trace.potentials[f"{name}.value"] != 0 for name in maxima(graph)}


def alone(profile: Profile, made: Written) -> Options:
    """What must be said of a file to read its numbers without its metadata."""
    euler = "euler" if profile.decay == "euler" else "sinabs"
    return Options(
        dt=profile.dt if euler == "euler" else None,
        semantics=euler,
        start="zero",
        fires=("gt" if profile.ties == ">" else "ge") if euler == "euler" else None,
        metadata="ignore",
        r="step" if profile.gain == "1" and euler == "euler" else None,
        loop=tuple(sorted({target for _, target in made.late})),
    )


class Gate:
    """A written file and what it must equal.

    ``graph``: level ``read`` without norms; ``lowered``: what was written down; ``top``: recorded spikes (torch's where
    ``trained``) on ``stimulus`` (input -> [samples, steps, *shape]).
    """

    def __init__(
        self,
        path: Path,
        made: Written,
        profile: Profile,
        graphs: tuple[Graph, Graph],
        stimulus: Mapping[str, Array],
        top: Trace,
        *,
        trained: bool,
    ) -> None:
        self.path, self.made, self.profile, self.stimulus = path, made, profile, stimulus
        self.graph, self.lowered = observed(graphs[0]), observed(graphs[1])
        self.names = [name for name in self.lowered.order if isinstance(self.lowered.nodes[name], Neuron)]
        given = {name: np.asarray(top.spikes[name], dtype=bool) for name in self.names if name in top.spikes}
        over = fired(self.graph, reference.run(self.graph, stimulus, forced=given)) if maxima(self.graph) else {}
        self.top = given | {name: over[name] for name in maxima(self.graph)}
        self._above = self._margins(self.graph, FLOAT32 if trained else FLOAT64)
        self._reference = reference.run(self.lowered, stimulus, forced=self.top)

    def rows(
        self, log: Callable[[str], None] = lambda line: None, importers: Sequence[str] = IMPORTERS
    ) -> Iterator[Row]:
        """This package with and without the metadata, then the importers."""
        yield self._own("snncompile", Options(), {name: name for name in self.lowered.nodes})
        yield self._own(ALONE, alone(self.profile, self.made), self.made.names)
        versions = installed()
        for importer in importers:
            if importer not in versions:
                yield Row(importer, "", "not installed")
                continue
            log(f"gate: {importer} {versions[importer]}")
            yield self._foreign(importer, versions[importer])

    def _own(self, reader: str, options: Options, names: Mapping[str, str]) -> Row:
        from snncompile import __version__

        found = read(self.path, options)
        graph = observed(found.graph)
        inputs = {names[name]: array for name, array in self.stimulus.items()}
        trace = reference.run(graph, inputs)
        sent = fired(graph, trace)
        spikes = {name: sent[names[name]] for name in self.names}
        values = {name: trace.potentials[f"{names[name]}.value"] for name in self._plain_outputs() if name in names}
        if options.metadata == "use":  # the graph as it was, whose outputs need not be those of the file
            values = {}
        return self._judged(reader, __version__, spikes, values, 4 * FLOAT64, demanded=True)

    def _plain_outputs(self) -> dict[str, str]:
        """Outputs that do not spike, by the node that feeds them."""
        found = {}
        for name in self.lowered.names(Output):
            sources = [edge.source for edge in self.lowered.into(name)]
            if len(sources) == 1 and not isinstance(self.lowered.nodes[sources[0]], Neuron | Input | Readout):
                found[name] = sources[0]
        return found

    def _foreign(self, importer: str, version: str) -> Row:
        demanded = importer in self.profile.readers
        if len(self.stimulus) > 1:
            return self._unreadable(importer, version, "takes one input", demanded=demanded)
        outputs = self._plain_outputs()
        watched = [*self.made.spikes.values(), *(self.made.names[source] for source in outputs.values())]
        (x,) = self.stimulus.values()
        with tempfile.TemporaryDirectory(prefix="snncompile-") as name:
            stimulus, trace = Path(name) / "stimulus.npz", Path(name) / "trace.npz"
            np.savez(stimulus, allow_pickle=False, x=x)
            words = [interpreter(), str(RUNNER), importer, str(self.path), str(stimulus), str(trace)]
            done = _call([*words, "--dt", repr(self.profile.dt), "--nodes", ",".join(watched)])
            if done.returncode or not trace.is_file():
                return self._unreadable(importer, version, _last(done.stderr), demanded=demanded)
            with np.load(trace, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        if "error" in arrays:
            stage, kind, text = json.loads(str(arrays["error"]))
            note = f"{stage}: {kind}: {(text.splitlines() or [''])[0]}"[:160]
            return self._unreadable(importer, version, note, demanded=demanded)
        shape = {name: array.shape for name, array in self.top.items()}
        try:
            spikes = {name: arrays[f"node.{self.made.spikes[name]}"].reshape(shape[name]) for name in self.names}
            values = {
                name: arrays[f"node.{self.made.names[source]}"].reshape(self._value(name).shape)
                for name, source in outputs.items()
            }
        except ValueError as error:
            return self._unreadable(importer, version, f"gives other shapes: {error}", demanded=demanded)
        return self._judged(importer, version, spikes, values, 2 * FLOAT32, demanded=demanded)

    def _unreadable(self, importer: str, version: str, note: str, *, demanded: bool) -> Row:
        return Row(importer, version, "DIFFERENT" if demanded else "unreadable", note=note)

    def _value(self, output: str) -> Array:
        return self._reference.potentials[f"{output}.value"]

    def _margins(self, graph: Graph, roundoff: float) -> dict[str, tuple[Array, Array]]:
        """Distance of every potential from its threshold, and how much rounding may move it, on the recorded spikes."""
        trace = reference.run(graph, self.stimulus, forced=self.top)
        limit = bounds(graph, self.stimulus, Trace(self.top, trace.potentials), roundoff)
        found = {}
        for name in self.names:
            op = graph.nodes[name]
            if not isinstance(op, Neuron):  # a maximum, which has no potential that rounding could move
                found[name] = np.full(self.top[name].shape, np.inf), np.zeros(self.top[name].shape)
                continue
            found[name] = np.abs(trace.potentials[name] - np.broadcast_to(real(op.threshold), op.shape)), limit[name]
        return found

    def _judged(
        self,
        reader: str,
        version: str,
        spikes: Mapping[str, Array],
        values: Mapping[str, Array],
        roundoff: float,
        *,
        demanded: bool,
    ) -> Row:
        below = self._margins(self.lowered, roundoff)
        until, compared, different, unexplained, first = self._parted(spikes, below)
        limit = bounds(self.lowered, self.stimulus, Trace(self.top, self._reference.potentials), roundoff)
        for name, array in values.items():
            outside = ~(np.abs(array - self._value(name)) <= limit[f"{name}.value"])
            alike = np.arange(outside.shape[1])[None] < until[:, None]
            outside &= alike.reshape(*alike.shape, *(1,) * (outside.ndim - 2))
            compared += int(until.sum()) * int(np.prod(outside.shape[2:]))
            different += int(outside.sum())
            if outside.any():
                sample, step, *neuron = (int(index) for index in np.argwhere(outside)[0])
                place = (sample, step, *neuron)
                unexplained = unexplained or (
                    f"{name}{neuron}, step {step}, sample {sample}: {self._value(name)[place]:.9g} here, "
                    f"{array[place]:.9g} there, rounding bound {limit[f'{name}.value'][place]:.3g}"
                )
        if not different:
            return Row(reader, version, "same", compared, 0)
        if not unexplained:
            note = f"every difference begins inside its rounding bound; first {first}"
            return Row(reader, version, "explained", compared, different, note)
        if demanded:
            return Row(reader, version, "DIFFERENT", compared, different, unexplained)
        reason = self.profile.foreign.get(reader, "not its reader")
        return Row(reader, version, "differs", compared, different, f"declared: {reason}; first {unexplained}")

    def _parted(
        self, spikes: Mapping[str, Array], below: Mapping[str, tuple[Array, Array]]
    ) -> tuple[Array, int, int, str, str]:
        """For every sample the step in which it parts from the recorded spikes (or the number of steps); values
        compared, spikes that differ there, the first that rounding does not explain, the first of all.
        """
        samples, steps = next(iter(self.top.values())).shape[:2]
        wrong = {name: spikes[name] != self.top[name].astype(spikes[name].dtype) for name in self.names}
        until = np.full(samples, steps)
        for array in wrong.values():
            apart = array.reshape(samples, steps, -1).any(axis=2)
            until = np.minimum(until, np.where(apart.any(axis=1), apart.argmax(axis=1), steps))
        compared = different = 0
        found: list[tuple[int, int, int, str, bool]] = []
        for sample in range(samples):
            for order, name in enumerate(self.names):
                compared += int(until[sample]) * int(np.prod(wrong[name].shape[2:]))
                if until[sample] == steps or any(entry[1] == sample for entry in found):
                    continue
                now = wrong[name][sample, until[sample]]
                compared += now.size
                if not now.any():
                    continue
                different += int(now.sum())
                for neuron in np.argwhere(now):
                    place = (sample, int(until[sample]), *map(int, neuron))
                    found.append((int(until[sample]), sample, order, *self._told(name, place, spikes, below)))
        found.sort(key=lambda entry: entry[:3])
        unexplained = next((text for *_, text, explained in found if not explained), "")
        return until, compared, different, unexplained, found[0][3] if found else ""

    def _told(
        self, name: str, place: tuple[int, ...], spikes: Mapping[str, Array], below: Mapping[str, tuple[Array, Array]]
    ) -> tuple[str, bool]:
        sides = [(float(margin[place]), float(limit[place])) for margin, limit in (self._above[name], below[name])]
        sample, step, *neuron = place
        given, found = int(self.top[name][place]), spikes[name][place]
        text = f"{name}{neuron}, step {step}, sample {sample}: {given} spikes here, {found:g} there; the potential is "
        text += f"{sides[1][0]:.3g} from the threshold, rounding bound {sides[1][1]:.3g}"
        return text, any(margin <= limit for margin, limit in sides)

"""``snncompile export --target nir``: the network as NIR, read again by everything that reads NIR here."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.backends import bundle, nir_gate, nir_gate_integers
from snncompile.backends.nir_file import write
from snncompile.backends.nir_integers import InReals, in_reals
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_measured import Measured, measured
from snncompile.backends.nir_nodes import Written, written
from snncompile.backends.nir_profiles import Profile, profile_of
from snncompile.commands import drawn
from snncompile.commands.console import Log, log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.export_nir_report import NOT_EXACT, manifest_of, measured_table, proven, report_of, rows_table
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model
from snncompile.compile import encoded, shown
from snncompile.errors import Disagreement, ReadError
from snncompile.frontends.nir_metadata import pack
from snncompile.ir.graph import Graph
from snncompile.ir.shapes import shapes
from snncompile.ir.store import Program, save
from snncompile.report.document import to_html, to_markdown
from snncompile.run import integer, reference
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target, machines

Array = NDArray[Any]
MOST_VALUES = 1 << 26
"""Of all nodes in a run of the gate: populations that are drawn digit by digit have many, and so have many delays."""


@dataclass(frozen=True)
class Proof:
    """What the gate found: a row for every reader, and of integers how far the reals are from them."""

    rows: tuple[nir_gate.Row, ...] = ()
    measured: tuple[Measured, ...] = ()
    samples: int = 0


def run(options: argparse.Namespace) -> int:
    """Write the bundle; nothing is left where a reader that the profile answers for is another network."""
    log, out = log_of(options), Path(options.output)
    profile = profile_of(options.nir_profile)
    if options.reals or options.scan or options.device or options.board or options.calibration or options.per_channel:
        what = "--float, --scan, --device, --board, --calibration and --per-channel belong to machines"
        raise ReadError(what, where="nir", remedy="leave them out: NIR is in reals")
    model = open_model(options.model, options)
    if isinstance(model, Bundle):
        raise ReadError("is a bundle already", where=options.model, remedy="export the checkpoint it came from")
    bundle.check_free(out, force=options.force)
    data = None if options.no_verify and not options.data else _data(model, options, log)
    graph, steps = without_norms(model.graph), max(1, model.steps)
    target = machine_of(model) if model.in_integers else None
    made = in_reals(graph, target, steps, profile) if target else InReals(graph, {})
    lowered = lower(made.graph, profile, soft=options.soft_reset == "graph")
    file = written(lowered, profile)
    whole = target.name if target and target.name in machines() else None
    text = pack(graph, file.net, dt=profile.dt, profile=profile.name, steps=model.steps or None, integers=whole)
    proof = Proof()
    with bundle.writing(out, force=options.force) as folder:
        write(file.net, folder / "model.nir", text)
        if data is not None and not options.no_verify:
            gate = _Gate(model, folder / "model.nir", file, profile, (graph, lowered), log)
            proof = gate.of_integers(data, made, target) if target else gate.of_reals(data)
            log(rows_table(proof.rows))
            nir_gate.demand(list(proof.rows), profile)
        save(Program(graph, "read", "nir", steps), folder)
        manifest = manifest_of(model, data, profile, file, made, proof)
        blocks = report_of(manifest, profile, graph)
        (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        (folder / "report.html").write_text(to_html(model.title, blocks), encoding="utf-8")
        bundle.write_manifest(folder, manifest)
    told = {key: manifest[key] for key in ("profile", "spike_exact", "difference")}
    told |= {"bundle": str(out), "rows": [row.plain() for row in proof.rows], "verified": bool(proof.rows)}
    result(options, _text(out, profile, proof, made, target, manifest), told)
    return 0


def _data(model: Trained | Imported | Exchanged, options: argparse.Namespace, log: Log) -> Data:
    """The data of the command line; for a file in integers that comes without any, drawn ones."""
    if options.data or not isinstance(model, Imported):
        return chosen_data(model, options)
    if model.steps == 1:
        model.steps = drawn.STEPS
    data = drawn.drawn(model.graph, model.steps)
    log(f"{data.name}, {model.steps} steps each (--data names others)")
    return data


def machine_of(model: Trained | Imported | Exchanged) -> Target:
    """The target whose integers a network is in."""
    if isinstance(model, Imported):
        return Target.load(model.program.target)
    assert isinstance(model, Trained)
    assert model.checkpoint.integers is not None
    return model.checkpoint.integers.target


class _Gate:
    """Every reader of a file against what torch recorded, or the interpreters of this package where there is none."""

    def __init__(
        self,
        model: Trained | Imported | Exchanged,
        path: Path,
        file: Written,
        profile: Profile,
        graphs: tuple[Graph, Graph],
        log: Log,
    ) -> None:
        self.model, self.path, self.file, self.profile, self.log = model, path, file, profile, log
        self.graph, self.lowered = graphs

    def _samples(self, data: Data, most: int) -> Any:
        x = data.x[:most]
        if len(x) < len(data.x):
            self.log(f"gate: the first {len(x)} of {len(data.x)} samples; readers run them one by one")
        return x

    def _shown(self, x: Any) -> dict[str, Array]:
        given = shown(self.graph, x, self.model.steps)
        return {name: np.asarray(value, np.float64) for name, value in given.items()}

    def of_reals(self, data: Data) -> Proof:
        x = self._samples(data, nir_gate.SAMPLES)
        stimulus, trained = self._shown(x), self.model.record(x)
        top = trained or reference.run(self.graph, stimulus)
        graphs = self.graph, self.lowered
        gate = nir_gate.Gate(self.path, self.file, self.profile, graphs, stimulus, top, trained=trained is not None)
        return Proof(tuple(gate.rows(self.log)), (), len(x))

    def of_integers(self, data: Data, made: InReals, target: Target) -> Proof:
        """Integers against the reals that were written, and these against the readers of the file."""
        values = sum(prod(shape) for shape in shapes(made.graph).values()) * max(1, self.model.steps)
        x = self._samples(data, max(1, min(nir_gate.SAMPLES, MOST_VALUES // values)))
        integers = encoded(self.graph, self._shown(x))  # the inputs are integers as well
        stimulus = {name: array.astype(np.float64) for name, array in integers.items()}
        machine = integer.run(self.graph, integers, target)
        self._as_trained(x, machine)
        free, found = measured(self.graph, made, stimulus, target, machine)
        rows = [nir_gate_integers.in_integers(self.path, stimulus, target, machine)]
        if made.drawn:
            rows += nir_gate_integers.bit_by_bit(self.path, self.file, self.profile, self.lowered, stimulus)
        else:
            graphs = made.graph, self.lowered
            gate = nir_gate.Gate(self.path, self.file, self.profile, graphs, stimulus, free, trained=False)
            rows += gate.rows(self.log)
        return Proof(tuple(rows), found, len(x))

    def _as_trained(self, x: Any, machine: Trace) -> None:
        trained = self.model.record(x)
        if trained and (parted := first_divergence(trained, machine, self.graph.order, potentials=False)):
            raise Disagreement(f"the trained network is another; {parted}", where=str(self.model.path))


def _text(
    out: Path, profile: Profile, proof: Proof, made: InReals, target: Target | None, manifest: dict[str, Any]
) -> str:
    lines = [rows_table(proof.rows), ""] if proof.rows else []
    if target and made.exact:
        steps = manifest["steps"]
        lines.append(f"spike-exact: every spike is that of the integers of {target.name}, in samples of {steps} steps")
    elif target:
        lines += [f"{NOT_EXACT} {target.name}:", *(f"  {reason}" for reason in made.reasons)]
        if proof.measured:
            lines += [f"measured on {proven(manifest['verification'])}:", measured_table(proof.measured), ""]
    lines.append(f"wrote {out}: profile {profile.name}; {profile.usage}")
    if not proof.rows:
        lines.append("NOT VERIFIED (--no-verify)")
    return "\n".join(lines)

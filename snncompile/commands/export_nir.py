"""``snncompile export --target nir``: the network as NIR, read again by everything that reads NIR here."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from snncompile import __version__
from snncompile.backends import bundle, nir_gate
from snncompile.backends.nir_file import VERSION, write
from snncompile.backends.nir_integers import check_exact
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_nodes import Written, written
from snncompile.backends.nir_profiles import Profile, profile_of
from snncompile.commands.console import Log, log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model
from snncompile.compile import encoded, shown
from snncompile.errors import ReadError
from snncompile.frontends.nir_metadata import fingerprint, pack
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Readout
from snncompile.ir.store import Program, save
from snncompile.report.document import Block, Heading, Paragraph, Table, to_html, to_markdown
from snncompile.report.table import table
from snncompile.run import integer, reference
from snncompile.run.trace import Trace
from snncompile.target import Target

HEADERS = ("reader", "version", "compared", "different", "verdict", "note")


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
    data = None if options.no_verify and not options.data else chosen_data(model, options)
    graph = without_norms(model.graph)
    _check_integers(model)
    lowered = lower(graph, profile, soft=options.soft_reset == "graph")
    made = written(lowered, profile)
    text = pack(graph, made.net, dt=profile.dt, profile=profile.name, steps=model.steps or None)
    rows: list[nir_gate.Row] = []
    with bundle.writing(out, force=options.force) as folder:
        write(made.net, folder / "model.nir", text)
        if data is not None and not options.no_verify:
            rows = _gate(model, data, folder / "model.nir", made, profile, (graph, lowered), log)
            log(rows_table(rows))
            nir_gate.demand(rows, profile)
        save(Program(graph, "read", "nir", max(1, model.steps)), folder)
        manifest = _manifest(model, data, profile, made, rows)
        blocks = _report(manifest, profile, _readouts(graph))
        (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        (folder / "report.html").write_text(to_html(model.title, blocks), encoding="utf-8")
        bundle.write_manifest(folder, manifest)
    lines = [rows_table(rows), ""] if rows else []
    lines += [f"wrote {out}: profile {profile.name}; {profile.usage}"] + (
        [] if rows else ["NOT VERIFIED (--no-verify)"]
    )
    told = {"bundle": str(out), "profile": profile.name, "rows": [row.plain() for row in rows], "verified": bool(rows)}
    result(options, "\n".join(lines), told)
    return 0


def _check_integers(model: Trained | Imported | Exchanged) -> None:
    if model.in_integers:
        check_exact(model.graph, _machine(model), max(1, model.steps))


def _machine(model: Trained | Imported | Exchanged) -> Target:
    """The target whose integers a network is in."""
    if isinstance(model, Imported):
        return Target.load(model.program.target)
    assert isinstance(model, Trained)
    assert model.checkpoint.integers is not None
    return model.checkpoint.integers.target


def _gate(
    model: Trained | Imported | Exchanged,
    data: Data,
    path: Path,
    made: Written,
    profile: Profile,
    graphs: tuple[Graph, Graph],
    log: Log,
) -> list[nir_gate.Row]:
    """Every reader of the file against what torch recorded, or the interpreter of this package where there is none."""
    x = data.x[: nir_gate.SAMPLES]
    if len(x) < len(data.x):
        log(f"gate: the first {len(x)} of {len(data.x)} samples; importers run them one by one")
    stimulus = {name: np.asarray(value, np.float64) for name, value in shown(graphs[0], x, model.steps).items()}
    if model.in_integers:  # whose inputs are integers as well
        stimulus = {name: array.astype(np.float64) for name, array in encoded(graphs[0], stimulus).items()}
    trained = model.record(x)
    top = trained or _recorded(model, graphs[0], stimulus)
    gate = nir_gate.Gate(path, made, profile, graphs, stimulus, top, trained=trained is not None)
    return list(gate.rows(log))


def _recorded(model: Trained | Imported | Exchanged, graph: Graph, stimulus: dict[str, Any]) -> Trace:
    if not model.in_integers:
        return reference.run(graph, stimulus)
    integers = {name: np.asarray(array, dtype=np.int64) for name, array in stimulus.items()}
    return integer.run(graph, integers, _machine(model))


def rows_table(rows: list[nir_gate.Row]) -> str:
    """The gate as text."""
    return table(HEADERS, _cells(rows), right=(2, 3))


def _cells(rows: list[nir_gate.Row]) -> list[list[str]]:
    return [[r.reader, r.version, f"{r.compared:,}", f"{r.different:,}", r.verdict, r.note] for r in rows]


def _readouts(graph: Graph) -> list[str]:
    """What the outputs of weights do over time, which NIR does not say."""
    found = []
    for name in graph.names(Readout):
        op = graph.nodes[name]
        assert isinstance(op, Readout)
        found.append(f"{name}: the {op.kind} over the steps of a sample of what its output gives")
    return found


def _manifest(
    model: Trained | Imported | Exchanged, data: Data | None, profile: Profile, made: Written, rows: list[nir_gate.Row]
) -> dict[str, Any]:
    origin = model.origin
    return {
        "source": {
            "name": model.path.name,
            "sha256": bundle.digest(model.path),
            "recipe": model.title,
            "versions": origin["versions"],
        },
        "recipe": origin["recipe"],
        "classes": origin["classes"],
        "device": "nir",
        "profile": profile.name,
        "form": "integers" if model.in_integers else "reals",
        "dt": profile.dt,
        "nir": VERSION,
        "numbers": fingerprint(made.net),
        "nodes": dict(made.names),
        "spikes": dict(made.spikes),
        "notes": list(made.notes),
        "versions": {
            "snncompile": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "networkx", "torch", "h5py")},
        },
        "steps": max(1, model.steps),
        "verification": {
            "data": data.name if data and rows else "",
            "samples": min(len(data.x), nir_gate.SAMPLES) if data and rows else 0,
            "rows": [row.plain() for row in rows],
        },
    }


def _report(manifest: dict[str, Any], profile: Profile, readouts: list[str]) -> list[Block]:
    source, proof = manifest["source"], manifest["verification"]
    rows = [nir_gate.Row(**row) for row in proof["rows"]]
    blocks: list[Block] = [
        Heading(f"{source['recipe']} as NIR", 1),
        Paragraph(
            f"Exported by snncompile {manifest['versions']['snncompile']} from {source['name']} "
            f"(SHA-256 {source['sha256'][:12]}). Profile {profile.name}: {profile.summary}. "
            f"Reading it: {profile.usage}."
        ),
        Heading("Readers"),
    ]
    if rows:
        blocks += [
            Paragraph(f"On {proof['samples']} samples of {proof['data']}, one by one, against the training graph."),
            Table(HEADERS, _cells(rows), right=(2, 3)),
        ]
    else:
        blocks.append(Paragraph("Not verified: exported with --no-verify."))
    for title, lines in (("Outputs", readouts), ("Notes", manifest["notes"])):
        blocks += [Heading(title), *map(Paragraph, lines)] if lines else []
    return blocks

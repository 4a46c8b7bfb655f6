"""What the bundle of a ``.nir`` says of itself: its manifest and its report."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from snncompile import __version__
from snncompile.backends import nir_gate
from snncompile.backends.nir_file import VERSION
from snncompile.backends.nir_integers import InReals
from snncompile.backends.nir_measured import HEADERS as MEASURED
from snncompile.backends.nir_measured import Measured
from snncompile.backends.nir_nodes import Written
from snncompile.backends.nir_profiles import Profile
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Trained, source_of
from snncompile.frontends.nir_metadata import fingerprint
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Readout
from snncompile.ir.signals import Fixed
from snncompile.report.document import Block, Heading, Paragraph, Table
from snncompile.report.table import table

if TYPE_CHECKING:
    from snncompile.commands.export_nir import Proof

HEADERS = ("reader", "version", "compared", "different", "verdict", "note")
RIGHT = (2, 3)
NOT_EXACT = "NOT SPIKE-EXACT against the integers of"


def rows_table(rows: Iterable[nir_gate.Row]) -> str:
    """The gate as text."""
    return table(HEADERS, _cells(rows), right=RIGHT)


def measured_table(found: Iterable[Measured]) -> str:
    """Integers against reals as text."""
    return table(MEASURED, [one.cells() for one in found], right={1, 2, 3, 5, 6, 7})


def _cells(rows: Iterable[nir_gate.Row]) -> list[list[str]]:
    return [[r.reader, r.version, f"{r.compared:,}", f"{r.different:,}", r.verdict, r.note] for r in rows]


def proven(verification: dict[str, Any]) -> str:
    """What a bundle was proven on."""
    some, data = verification["samples"], str(verification["data"])
    return data if some == verification["of"] else f"the first {some} samples of {data}"


def manifest_of(
    model: Trained | Imported | Exchanged,
    data: Data | None,
    profile: Profile,
    file: Written,
    made: InReals,
    proof: Proof,
) -> dict[str, Any]:
    """Everything the bundle says. ``spike_exact``: whether the reals of the file have every spike of the network that
    it was made of; ``difference``: why not, and by how much.
    """
    origin = model.origin
    spikes = dict(made.spikes) if model.in_integers else {name: name for name in file.spikes}
    return {
        "source": source_of(model),
        "recipe": origin["recipe"],
        "classes": origin["classes"],
        "device": "nir",
        "profile": profile.name,
        "form": "integers" if model.in_integers else "reals",
        "spike_exact": made.exact,
        "difference": {"reasons": list(made.reasons), "populations": [one.plain() for one in proof.measured]},
        "drawn": list(made.drawn),
        "dt": profile.dt,
        "nir": VERSION,
        "numbers": fingerprint(file.net),
        "nodes": {name: word for name, word in file.names.items() if not made.drawn or name in model.graph.nodes},
        "spikes": {name: file.spikes[node] for name, node in spikes.items()},
        "notes": [*file.notes, *_units(model.graph)],
        "versions": {
            "snncompile": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "networkx", "torch", "h5py")},
        },
        "steps": max(1, model.steps),
        "verification": {
            "data": data.name if data and proof.rows else "",
            "samples": proof.samples,
            "of": len(data.x) if data and proof.rows else 0,
            "rows": [row.plain() for row in proof.rows],
        },
    }


def _units(graph: Graph) -> list[str]:
    """What the integers of an input are worth."""
    found = []
    for name in graph.names(Input):
        op = graph.nodes[name]
        if isinstance(op, Input) and isinstance(op.signal, Fixed) and op.signal.unit != 1.0:
            found.append(f"{name}: takes integers, data times {1.0 / op.signal.unit:g} to the nearest")
    return found


def report_of(manifest: dict[str, Any], profile: Profile, graph: Graph) -> Sequence[Block]:
    """The report of a bundle."""
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
            Paragraph(f"On {proven(proof)}, one by one, against the network."),
            Table(HEADERS, _cells(rows), right=RIGHT),
        ]
    else:
        blocks.append(Paragraph("Not verified: exported with --no-verify."))
    if manifest["form"] == "integers":
        blocks += _exactness(manifest)
    for title, lines in (("Outputs", _readouts(graph)), ("Notes", manifest["notes"])):
        blocks += [Heading(title), *map(Paragraph, lines)] if lines else []
    return blocks


def _exactness(manifest: dict[str, Any]) -> list[Block]:
    """Whether the reals of the file are the integers they were made of."""
    difference = manifest["difference"]
    if manifest["spike_exact"]:
        text = f"Spike-exact: the reals of the file are the integers, in samples of {manifest['steps']} steps."
        return [Heading("Integers"), Paragraph(text)]
    found = [
        Measured(**{key: value for key, value in one.items() if key != "share"}) for one in difference["populations"]
    ]
    blocks: list[Block] = [Heading("Integers"), Paragraph("NOT spike-exact: the reals of the file are others, because")]
    blocks += map(Paragraph, difference["reasons"])
    if found:
        blocks.append(Table(MEASURED, [one.cells() for one in found], right=(1, 2, 3, 5, 6, 7)))
    return blocks


def _readouts(graph: Graph) -> list[str]:
    """What the outputs of weights do over time, which NIR does not say."""
    found = []
    for name in graph.names(Readout):
        op = graph.nodes[name]
        assert isinstance(op, Readout)
        found.append(f"{name}: the {op.kind} over the steps of a sample of what its output gives")
    return found

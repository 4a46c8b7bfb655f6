"""The report of an export: made from the manifest alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snncompile.report.cores_picture import cores_html
from snncompile.report.document import Block, Figure, Heading, Paragraph, Table

CAPACITIES = ("neurons", "synaptic_words", "axons_in", "axons_out")


def bundle_report(manifest: Mapping[str, Any]) -> list[Block]:
    """What was exported, how it was proven, what quantisation cost, where it lies."""
    source = manifest["source"]
    resets = sorted(manifest["resets"].items(), key=lambda item: (item[1]["offset"], item[0]))
    blocks: list[Block] = [
        Heading(f"{source['recipe']} on {manifest['target']['title']}", 1),
        Paragraph(
            f"Exported by snncompile {manifest['versions']['snncompile']} from {source['name']} "
            f"(SHA-256 {source['sha256'][:12]}). {manifest['steps']} steps a sample, "
            f"latency {manifest['latency']} steps; "
            + ("samples follow each other in one stream." if manifest["stream"] else "every sample starts afresh.")
        ),
        *([Paragraph(f"Taught by {t['name']} (SHA-256 {t['sha256'][:12]}).")] if (t := source.get("teacher")) else []),
        Heading("Proof"),
    ]
    rungs = manifest["verification"]["rungs"]
    if rungs:
        samples, data = manifest["verification"]["samples"], manifest["verification"]["data"]
        blocks.append(Paragraph(f"On {data}, {samples} samples; each level against the rung above it."))
        blocks.append(_ladder(rungs))
    else:
        blocks.append(Paragraph("Not verified: exported with --no-verify."))
    blocks += [Heading("Quantisation"), _layers(manifest["quantisation"])]
    blocks += [
        Paragraph(
            "Error is the root mean square in the potential on calibration data, in thresholds. Spikes that differ are "
            "those of each population on calibration data, when it is given what the trained network sends and is "
            "reset by its spikes; the scale is the one of which the fewest differ, and in brackets stands how many "
            "would with the scale of the least error in the potential. A worst case is over "
            "all inputs that the declared signals admit; proven means that none of them can leave the machine's range."
        ),
        Heading("Placement"),
        Paragraph(_where(manifest)),
        Figure("Cores by population; filled as far as the scarcest thing is used", cores_html(manifest), "cores.svg"),
        _placement(manifest["placement"]),
        Paragraph(
            "Of a population on several cores the fullest is told. Synaptic words and axons are estimates, fitted to "
            "published compile logs: of 31 layers 22 are exact in words, the mean error is 6 %, the largest 50 % "
            "(benchmarks/placement.py)."
        ),
        Heading("Resets"),
        Paragraph(
            "Every population is cleared at its own phase, at the start of each sample: "
            + ", ".join(f"{name} at {plan['offset']}" for name, plan in resets)
            + f" (machine steps counted from 1), then every {manifest['steps']} steps."
        ),
    ]
    notes = manifest["notes"]
    return blocks if not notes else [*blocks, Heading("Notes"), *(Paragraph(note) for note in notes)]


def _where(manifest: Mapping[str, Any]) -> str:
    """The board, its chips and cores."""
    target, used = manifest["target"], manifest["cores_used"]
    board = f" of the board {target['board']}" if target["board"] else ""
    if target["chips_used"] == 1:
        return f"{used} of the {target['chip_cores']} cores of a chip{board}."
    return (
        f"{used:,} cores on {target['chips_used']} of the {target['chips']} chips{board}, {target['chip_cores']} cores "
        f"each. {target['routes_between_chips']:,} times a neuron reaches another chip than its own."
    )


def _ladder(rungs: list[Mapping[str, Any]]) -> Table:
    rows = [
        [
            str(rung["rung"]),
            rung["level"],
            rung["run_by"],
            rung["against"] or "-",
            rung["verdict"],
            f"{rung['compared']:,}",
            f"{rung['different']:,}",
            rung["note"],
        ]
        for rung in rungs
    ]
    return Table(["rung", "level", "run by", "against", "verdict", "compared", "different", ""], rows, {0, 5, 6})


def _layers(layers: list[Mapping[str, Any]]) -> Table:
    def worst(entry: Mapping[str, Any]) -> str:
        share = "unbounded" if entry["worst"] is None else f"{entry['worst'] / entry['limit']:.0%} of range"
        return f"{share}, " + ("proven" if entry["proven"] else "can overflow")

    rows = [
        [
            layer["name"],
            f"{layer['unit']:.4g}",
            f"{layer['threshold']:,}",
            f"{layer['error']:.2%}",
            _spikes(layer),
            f"{decay:.1g}" if (decay := layer.get("decay", 0.0)) else "exact",
            f"{layer['clipped']:,} of {layer['weights']:,}",
            worst(layer["current"]),
            worst(layer["potential"]),
        ]
        for layer in layers
    ]
    headers = ["population", "unit", "threshold", "error", "spikes that differ", "decays"]
    headers += ["weights clipped", "current", "potential"]
    return Table(headers, rows, {1, 2, 3, 4, 5, 6})


def _spikes(layer: Mapping[str, Any]) -> str:
    """How many spikes the chosen scale gets wrong, and how many the scale that the potential would choose."""
    if not layer.get("compared"):
        return "-"
    return f"{layer['wrong']:,} of {layer['compared']:,} ({layer['otherwise']:,})"


def _placement(slices: list[Mapping[str, Any]]) -> Table:
    """A row a population: its cores, and of each capacity the core that uses most of it."""
    rows = []
    for name in dict.fromkeys(entry["population"] for entry in slices):
        own = [entry for entry in slices if entry["population"] == name]
        cores = str(own[0]["core"]) if len(own) == 1 else f"{own[0]['core']}-{own[-1]['core']}"
        rows.append([name, cores, *(_fullest(own, key) for key in CAPACITIES)])
    return Table(["population", "core", *(key.replace("_", " ") for key in CAPACITIES)], rows, {1, 2, 3, 4, 5})


def _fullest(slices: list[Mapping[str, Any]], key: str) -> str:
    entry = max(slices, key=lambda entry: entry[key])
    return f"{entry[key]:,} ({entry['share'][key]:.1%})"

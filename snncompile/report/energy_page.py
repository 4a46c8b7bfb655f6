"""The energy report as a document: for a job summary, and as one page. From the JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snncompile.energy_prices import mean_rate
from snncompile.energy_statistics import spread
from snncompile.report.document import Block, Figure, Heading, Paragraph, Table
from snncompile.report.energy_report import (
    ALSO,
    GAP,
    also_rows,
    ann_sentences,
    headline,
    mean,
    nanojoules,
    rate,
    share,
)
from snncompile.report.energy_svg import histogram, over_steps, shares

MOST_ROWS = 400  # beyond it a table is cut, and says so: a job summary has a limit
MOST_BARS = 40
Plain = Mapping[str, Any]


def energy_page(
    report: Plain, verdict: Sequence[str] = (), *, pictures: bool = True, brief: bool = False
) -> list[Block]:
    """Headline, verdict, layers, time, spread, other networks, populations, conventions; ``brief``: the headline."""
    blocks: list[Block] = [Heading(f"Energy of {report['name'] or 'the network'}", 1)]
    blocks += [Paragraph(line) for line in headline(report).split("\n")]
    if verdict:
        blocks += [Heading("Gate"), *(Paragraph(line) for line in verdict[:MOST_ROWS])]
        if len(verdict) > MOST_ROWS:
            blocks.append(Paragraph(f"{len(verdict) - MOST_ROWS:,} more in the log."))
    if brief:
        return [*blocks, Paragraph("The rest is too long for this place; it stands in the JSON report.")]
    blocks += [*_layers(report, pictures), *_time(report, pictures), *_samples(report, pictures)]
    blocks += [Heading("Against artificial networks"), *(Paragraph(line) for line in ann_sentences(report))]
    _, spikes = mean_rate(report)
    blocks.append(Paragraph(f"{spikes:.3f} spikes for each synapse and inference, at T = {report['steps']}."))
    blocks += [*_populations(report), *_also(report), *_conventions(report)]
    return blocks


def _figure(markup: str, title: str) -> Figure:
    """A chart of the page; Markdown goes without."""
    return Figure(title, f"{markup}<figcaption>{title}</figcaption>", "")


def _layers(report: Plain, pictures: bool) -> list[Block]:
    samples, steps, whole = report["samples"], report["steps"], report["energy_per_sample_J"]
    rows, found = [], [layer for layer in report["layers"] if layer["energy_per_sample_J"] or layer["synapses"]]
    for layer in found:
        columns = layer["columns"]
        spikes = columns.get("spikes_in")
        rows.append(
            [
                layer["name"],
                layer["role"],
                "" if spikes is None else mean(spikes, samples),
                "" if spikes is None else rate(spikes, samples * steps * layer["sites"]),
                *("" if key not in columns else mean(columns[key], samples) for key in ("ac", "mac")),
                mean(layer["traffic"], samples),
                nanojoules(layer["energy_per_sample_J"]),
                share(layer["energy_per_sample_J"], whole),
            ]
        )
    totals = report["totals"]
    last = [mean(totals[key], samples) for key in ("ac", "mac", "traffic")]
    rows = [*_cut(rows), ["total", "", "", "", *last, nanojoules(whole), share(whole, whole)]]
    headers = ["layer", "role", "spikes in", "rate", "AC", "MAC", "traffic", "nJ", "share"]
    blocks: list[Block] = [Heading("Layers, a sample"), Table(headers, rows, range(2, 9))]
    words = "Traffic: accesses to memory where nothing is kept at hand; it costs only under price lists with memory."
    largest = sorted(found, key=lambda layer: -layer["energy_per_sample_J"])[:3]
    largest = [layer for layer in largest if layer["energy_per_sample_J"]]
    if largest and whole:
        names = (f"{one['name']} ({share(one['energy_per_sample_J'], whole)})" for one in largest)
        words += f" Most is taken by {', '.join(names)}."
    blocks.append(Paragraph(words))
    if pictures and whole:
        bars = sorted(found, key=lambda layer: -layer["energy_per_sample_J"])[:MOST_BARS]
        parts = [layer["energy_per_sample_J"] / whole for layer in bars]
        caption = "Share of each layer in the energy."
        if len(bars) < len(found):
            caption = f"Share of each layer in the energy: the {MOST_BARS} largest of {len(found):,}."
        blocks.append(_figure(shares([layer["name"] for layer in bars], parts), caption))
    return blocks


def _time(report: Plain, pictures: bool) -> list[Block]:
    energies = [joules * 1e9 for joules in report["energy_by_steps_J"]]
    correct, samples = report["correct_by_steps"], report["samples"]
    accuracies = None if correct is None else [number / samples for number in correct]
    blocks: list[Block] = [
        Heading("Energy and accuracy against T"),
        Paragraph(
            "All from one run: what happens at a step causes nothing before it, and the answer is a running sum."
        ),
    ]
    if pictures:
        caption = "Energy (solid) and accuracy (dashed) of shorter runs." if accuracies else "Energy of shorter runs."
        blocks.append(_figure(over_steps(energies, accuracies), caption))
    rows = [[str(step), nanojoules(joules)] for step, joules in enumerate(report["energy_by_steps_J"], start=1)]
    headers = ["T", "nJ"]
    if accuracies is not None:
        headers, rows = (
            [*headers, "accuracy"],
            [[*row, f"{accuracy:.2%}"] for row, accuracy in zip(rows, accuracies, strict=True)],
        )
    return [*blocks, Table(headers, _cut(rows), range(len(headers)))]


def _samples(report: Plain, pictures: bool) -> list[Block]:
    values = [joules * 1e9 for joules in report["energy_by_sample_J"]]
    if len(values) < 2:
        return []
    one = spread(values)
    words = (
        f"Mean {one.mean:,.2f} nJ, 95 % interval {one.low:,.2f} to {one.high:,.2f} (bootstrap over samples); standard "
        f"deviation {one.deviation:,.2f}; 5th percentile {one.p5:,.2f}, median {one.median:,.2f}, 95th {one.p95:,.2f}. "
        f"The least takes sample {one.least}, the most sample {one.most} (counted from 0)."
    )
    blocks: list[Block] = [Heading("Spread over samples"), Paragraph(words)]
    if pictures:
        blocks.append(
            _figure(histogram(values, one.low, one.high), "Single samples; the band is the interval of the mean.")
        )
    return blocks


def _populations(report: Plain) -> list[Block]:
    rows = []
    for layer in report["layers"]:
        if "dead" in layer:
            fired = layer["columns"]["spikes_out"]
            places = report["samples"] * report["steps"] * layer["size"]
            ends = [f"{layer[key]:,} ({share(layer[key], layer['size'])})" for key in ("dead", "saturated")]
            name_and_size = [layer["name"], layer["role"], f"{layer['size']:,}"]
            rows.append([*name_and_size, mean(fired, report["samples"]), rate(fired, places), *ends])
    headers = ["population", "role", "neurons", "spikes out", "rate", "dead", "saturated"]
    words = "Dead: fired at no step of any sample. Saturated: at every step of every sample."
    return [Heading("Populations"), Table(headers, _cut(rows), range(2, 7)), Paragraph(words)]


def _also(report: Plain) -> list[Block]:
    if not report.get("also"):
        return []
    return [Heading("What other conventions say"), Table(ALSO, also_rows(report), {1, 2, 3, 4}), Paragraph(GAP)]


def _conventions(report: Plain) -> list[Block]:
    rows = [[key.replace("_", " "), text] for key, text in sorted(report["conventions"].items())]
    digests = ", ".join(f"{key.replace('_', ' ')} {value[:12]}" for key, value in sorted(report["digests"].items()))
    data = report["data"]["name"] or "a stimulus"
    where = f"Counted on {data} ({report['data']['digest'][:12]}). Digests: {digests}."
    return [Heading("How it was counted"), Table(["choice", "taken"], rows), Paragraph(where)]


def _cut(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= MOST_ROWS:
        return rows
    rest = [f"{len(rows) - MOST_ROWS:,} more in the JSON report", *([""] * (len(rows[0]) - 1))]
    return [*rows[:MOST_ROWS], rest]

"""The energy report: JSON from counts and prices, and a terminal table from that JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from snncompile.energy import CONVENTIONS, Column, Counts, Layer, Price
from snncompile.report.table import table

SCHEMA = "snncompile.energy/1"
TOTALS: tuple[Column, ...] = (
    *("ac", "ac_nonzero_weight", "mac", "one_to_one", "pool_adds"),
    *("neuron_updates", "bias_adds", "readout_adds", "spikes_out"),
)
MERGED = ("fixed", "timed", "placed")
PRICED = ("ac", "mac")
UNPRICED = ("one_to_one", "pool_adds", "neuron_updates", "bias_adds", "readout_adds")


def to_json(
    counts: Counts, price: Price, *, name: str = "", level: str = "", accuracy: float | None = None
) -> dict[str, Any]:
    """The report as plain values: counts as exact integers, joules derived from them.

    ``columns`` of a layer hold the total over samples and steps, ``by_step`` sums over samples, ``by_sample`` sums over
    steps. ``accuracy`` is a fraction. Schema ``snncompile.energy/1``.
    """
    model = price.cost_model
    return {
        "schema": SCHEMA,
        "name": name,
        "level": level,
        "samples": counts.samples,
        "steps": counts.steps,
        "accuracy": accuracy,
        "conventions": dict(CONVENTIONS),
        "digests": {"weights": counts.weights, "stimulus": counts.stimulus_digest},
        "cost_model": {
            "name": model.name,
            "title": model.title,
            "precision": model.precision,
            "scope": model.scope,
            "ac_pJ": model.ac,
            "mac_pJ": model.mac,
        },
        "layers": [_layer(layer, price.layers[layer.name]) for layer in counts.layers],
        "totals": {column: counts.total(column) for column in TOTALS},
        "energy_per_sample_J": price.total,
        "energy_by_sample_J": [float(joules) for joules in price.samples],
        "ann": {
            "of": "the trained network" if price.trained else "the layers counted",
            "mac": price.ann_mac,
            "energy_J": price.ann,
            "ratio": price.ratio if price.ann_mac else None,
        },
    }


def _layer(layer: Layer, joules: float) -> dict[str, Any]:
    def sums(axis: int, columns: tuple[Column, ...]) -> dict[str, list[int]]:
        return {key: [int(n) for n in np.sum(layer.columns[key], axis=axis)] for key in columns if key in layer.columns}

    return {
        "name": layer.name,
        "kind": layer.kind,
        "arrives": layer.signal,
        "sources": list(layer.sources),
        "sites": layer.sites,
        "synapses": layer.synapses,
        "columns": {key: layer.total(key) for key in layer.columns},
        "by_step": sums(0, tuple(layer.columns)),
        "by_sample": sums(1, ("ac", "mac", "spikes_in", "spikes_out")),
        "energy_per_sample_J": joules,
    }


def to_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal: what is priced, what is counted beside it, and both in one sentence each."""
    parts = [_headline(report), _priced(report), _beside(report), _ann(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(report: Mapping[str, Any]) -> str:
    samples, totals, model = report["samples"], report["totals"], report["cost_model"]
    subject = " ".join(filter(None, (report["name"], f"({report['level']})" if report["level"] else "")))
    operations = " + ".join(f"{_mean(totals[key], samples)} {key.upper()}" for key in PRICED)
    text = (
        f"{subject or 'The network'} at T = {report['steps']}: {operations}"
        f" = {_nanojoules(report['energy_per_sample_J'])} nJ a sample, mean of {samples:,}.\n"
        f"An estimate at the prices of {model['title']} ({model['name']}, {model['precision']}:"
        f" AC {model['ac_pJ']:g} pJ, MAC {model['mac_pJ']:g} pJ); {model['scope']}."
    )
    if report["accuracy"] is not None:
        text += f"\nAccuracy {report['accuracy']:.2%} on these samples."
    return text


def _priced(report: Mapping[str, Any]) -> str:
    samples, steps, whole = report["samples"], report["steps"], report["energy_per_sample_J"]
    rows = []
    for layer in report["layers"]:
        columns, joules = layer["columns"], layer["energy_per_sample_J"]
        if not any(key in columns for key in PRICED):
            continue
        spikes = columns.get("spikes_in")
        rows.append(
            [
                layer["name"],
                layer["arrives"],
                "" if spikes is None else _cell(spikes, samples),
                "" if spikes is None else _rate(spikes, samples * steps * layer["sites"]),
                *(_cell(columns[key], samples) if key in columns else "" for key in PRICED),
                _nanojoules(joules),
                _share(joules, whole),
            ]
        )
    totals = [_cell(report["totals"][key], samples) for key in PRICED]
    rows.append(["total", "", "", "", *totals, _nanojoules(whole), _share(whole, whole)])
    headers = ["layer", "arrives", "spikes in", "rate", "AC", "MAC", "nJ", "share"]
    return "A sample:\n" + table(headers, rows, right=range(2, 8))


def _beside(report: Mapping[str, Any]) -> str:
    """What is counted in columns of its own; columns that hold nothing are left out."""
    samples, steps = report["samples"], report["steps"]
    shown = [key for key in UNPRICED if report["totals"][key]]
    if not shown:
        return ""
    rows = []
    for layer in report["layers"]:
        columns = layer["columns"]
        if not any(columns.get(key) for key in shown):
            continue
        fired = columns.get("spikes_out")
        rows.append(
            [
                layer["name"],
                "" if fired is None else _cell(fired, samples),
                "" if fired is None else _rate(fired, samples * steps * layer["sites"]),
                *(_cell(columns[key], samples) if columns.get(key) else "" for key in shown),
            ]
        )
    sums = [_cell(report["totals"][key], samples) for key in shown]
    rows.append(["total", _cell(report["totals"]["spikes_out"], samples), "", *sums])
    headers = ["population", "spikes out", "rate", *(key.replace("_", " ") for key in shown)]
    return "Counted and not priced, a sample:\n" + table(headers, rows, right=range(1, len(headers)))


def _ann(report: Mapping[str, Any]) -> str:
    ann, whole = report["ann"], report["energy_per_sample_J"]
    if not ann["mac"]:
        return ""
    text = f"{ann['of'].capitalize()} run once as an ANN: {ann['mac']:,} MAC = {_nanojoules(ann['energy_J'])} nJ. "
    if ann["of"] == "the layers counted" and report["level"] in MERGED:
        text += "(Pools are merged into larger kernels at this level: the trained network's ANN may take less.) "
    ratio = ann["ratio"]
    if ratio > 1:
        return text + f"The ANN wins: the spiking network takes {ratio:.2f} times its energy."
    if ratio == 1:
        return text + "Both take the same energy."
    taken = f"The spiking network takes {ratio:.3f} of that"
    return text + taken + (f", {ann['energy_J'] / whole:.1f} times less." if whole else ": nothing fired.")


def _mean(total: int, samples: int) -> str:
    """A mean over samples, without digits that say nothing."""
    whole, rest = divmod(total, samples)
    return f"{total / samples:,.1f}" if rest else f"{whole:,}"


def _cell(total: int, samples: int) -> str:
    """The same with one decimal in every cell, so that columns align; exact where there is one sample."""
    return f"{total / samples:,.1f}" if samples > 1 else f"{total:,}"


def _rate(events: int, places: int) -> str:
    return f"{events / places:.2%}" if places else ""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _nanojoules(joules: float) -> str:
    return f"{joules * 1e9:,.2f}"

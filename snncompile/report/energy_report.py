"""The energy report: JSON from counts, and a terminal table from that JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.cost_model import CostModel
from snncompile.energy_compat import AC, MAC
from snncompile.energy_conventions import ROLES, TOTALS, Column, conventions, digest
from snncompile.energy_prices import PRICED, priced, quantised_ann
from snncompile.report.table import table

if TYPE_CHECKING:  # a report that is priced again or compared needs no graphs
    from snncompile.energy import Counts
    from snncompile.energy_layers import Layer

SCHEMA = "snncompile.energy/1"
EACH: tuple[Column, ...] = ("ac", "mac", "one_to_one", "pool_adds", "spikes_in", "spikes_out")
MERGED = ("fixed", "timed", "placed")
HEADLINE = ("ac", "mac")
ALSO = ("convention", "AC", "MAC", "nJ", "gap")
GAP = "All at 0.9 and 4.6 pJ. Gap: to the exact counts at the same prices."
BESIDE = ("one_to_one", "pool_adds", "neuron_updates", "bias_adds", "readout_adds")


def to_json(
    counts: Counts,
    model: CostModel,
    *,
    name: str = "",
    level: str = "",
    ann: Sequence[Mapping[str, Any]] | int | None = None,
    correct: Sequence[int] | None = None,
    data: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The report as plain values: counts as exact integers, joules derived from them. Schema ``snncompile.energy/1``.

    ``columns`` of a layer hold the total over samples and steps, ``by_step`` sums over samples, ``by_sample`` sums over
    steps. ``ann``: the layers of the trained network (``dense_layers``), or their MACs where no more is known; without
    it the layers that were counted stand in. ``correct``: how many samples are right after 1, 2, ... steps.
    ``data``: name and digest of the data set.
    """
    chosen = conventions(counts.options)
    last = None if correct is None else correct[-1] / counts.samples
    plain = {
        "schema": SCHEMA,
        "name": name,
        "level": level,
        "samples": counts.samples,
        "steps": counts.steps,
        "accuracy": last,
        "correct_by_steps": None if correct is None else [int(number) for number in correct],
        "conventions": chosen,
        "data": dict(data or {"name": "", "digest": counts.stimulus_digest}),
        "digests": {
            "weights": counts.weights,
            "stimulus": counts.stimulus_digest,
            "conventions": digest(chosen),
            "cost_model": cost_digest(model),
        },
        "layers": [_layer(layer, counts) for layer in counts.layers],
        "totals": {column: counts.total(column) for column in TOTALS},
        "roles": {
            role: {key: sum(layer.total(key) for layer in counts.layers if layer.role == role) for key in TOTALS}
            for role in ROLES
        },
        "ann": _dense(counts, ann),
    }
    fair = CostModel.load("horowitz45-int8")
    return {**priced(plain, model), "quantised_ann": quantised_ann(plain, fair)}


def reprice(report: Mapping[str, Any], model: CostModel) -> dict[str, Any]:
    """The same counts under another price list."""
    digests = {**report["digests"], "cost_model": cost_digest(model)}
    return {**priced(report, model), "digests": digests}


def cost_digest(model: CostModel) -> str:
    """A digest of every figure of a price list."""
    return digest({key: model.sheet.table(key) for key in ("cost_model", "memory", "energy") if model.sheet.has(key)})


def _dense(counts: Counts, ann: Sequence[Mapping[str, Any]] | int | None) -> dict[str, Any]:
    if isinstance(ann, int):
        return {"of": "the trained network", "mac": ann, "layers": [{"name": "all", "mac": ann}]}
    layers: list[Mapping[str, Any]] = [
        {
            "name": layer.name,
            "mac": layer.synapses,
            "sites": layer.sites,
            "size": layer.size,
            "parameters": layer.parameters,
            "reads_input": layer.role == "encoder",
        }
        for layer in counts.layers
        if layer.synapses
    ]
    of = "the layers counted" if ann is None else "the trained network"
    found = layers if ann is None else list(ann)
    return {"of": of, "mac": sum(layer["mac"] for layer in found), "layers": [dict(layer) for layer in found]}


def _layer(layer: Layer, counts: Counts) -> dict[str, Any]:
    def sums(axis: int, columns: tuple[Column, ...]) -> dict[str, list[int]]:
        return {key: [int(n) for n in np.sum(layer.columns[key], axis=axis)] for key in columns if key in layer.columns}

    each: tuple[Column, ...] = (*EACH, "mac_nonzero")
    found = {
        "name": layer.name,
        "kind": layer.kind,
        "role": layer.role,
        "arrives": layer.signal,
        "sources": list(layer.sources),
        "sites": layer.sites,
        "size": layer.size,
        "synapses": layer.synapses,
        "taps": layer.taps,
        "parameters": layer.parameters,
        "biased": layer.biased,
        "columns": {key: layer.total(key) for key in layer.columns},
        "by_step": sums(0, tuple(layer.columns)),
        "by_sample": sums(1, each),
    }
    if layer.fired is None:
        return found
    return {**found, "dead": layer.fired.dead, "saturated": layer.fired.saturated}


def to_text(report: Mapping[str, Any]) -> str:
    """The report for a terminal: what is priced, what is counted beside it, and both in one sentence each."""
    parts = [headline(report), _priced(report), _beside(report), "\n".join(ann_sentences(report))]
    if report.get("also"):
        parts.append(f"Other conventions, a sample:\n{table(ALSO, also_rows(report), right=range(1, 5))}\n{GAP}")
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(report: Mapping[str, Any]) -> str:
    """The report in a few sentences: counts, energy, prices, and what is left out."""
    samples, totals, model = report["samples"], report["totals"], report["cost_model"]
    subject = " ".join(filter(None, (report["name"], f"({report['level']})" if report["level"] else "")))
    operations = " + ".join(f"{mean(totals[key], samples)} {key.upper()}" for key in HEADLINE)
    text = (
        f"{subject or 'The network'} at T = {report['steps']}: {operations}"
        f" = {nanojoules(report['energy_per_sample_J'])} nJ a sample, mean of {samples:,}.\n"
        f"An estimate at the prices of {model['title']} ({model['name']}, {model['precision']}:"
        f" {prices(model)}); {model['scope']}."
    )
    if report["left_out"]:
        missing = ", ".join(f"{mean(number, samples)} {key}" for key, number in report["left_out"].items())
        text += f"\nCounted, not in the energy: {missing.replace('_', ' ')} a sample."
    if report["accuracy"] is not None:
        text += f"\nAccuracy {report['accuracy']:.2%} on these samples."
    return text


def _priced(report: Mapping[str, Any]) -> str:
    samples, steps, whole = report["samples"], report["steps"], report["energy_per_sample_J"]
    rows = []
    for layer in report["layers"]:
        columns, joules = layer["columns"], layer["energy_per_sample_J"]
        if not any(key in columns for key in HEADLINE):
            continue
        spikes = columns.get("spikes_in")
        rows.append(
            [
                layer["name"],
                layer["arrives"],
                "" if spikes is None else _cell(spikes, samples),
                "" if spikes is None else rate(spikes, samples * steps * layer["sites"]),
                *(_cell(columns[key], samples) if key in columns else "" for key in HEADLINE),
                *(["", "not priced"] if _unpriced(layer, report) else [nanojoules(joules), share(joules, whole)]),
            ]
        )
    totals = [_cell(report["totals"][key], samples) for key in HEADLINE]
    rows.append(["total", "", "", "", *totals, nanojoules(whole), share(whole, whole)])
    headers = ["layer", "arrives", "spikes in", "rate", "AC", "MAC", "nJ", "share"]
    return "A sample:\n" + table(headers, rows, right=range(2, 8))


def _unpriced(layer: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether a layer multiplies and the list has no price for that."""
    return "mac" in layer["columns"] and report["cost_model"]["mac_pJ"] is None


def _beside(report: Mapping[str, Any]) -> str:
    """What is counted in columns of its own; columns that hold nothing are left out."""
    samples, steps = report["samples"], report["steps"]
    shown = [key for key in BESIDE if report["totals"][key]]
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
                "" if fired is None else rate(fired, samples * steps * layer["sites"]),
                *(_cell(columns[key], samples) if columns.get(key) else "" for key in shown),
            ]
        )
    sums = [_cell(report["totals"][key], samples) for key in shown]
    rows.append(["total", _cell(report["totals"]["spikes_out"], samples), "", *sums])
    headers = ["population", "spikes out", "rate", *(key.replace("_", " ") for key in shown)]
    return "Counted beside them, a sample:\n" + table(headers, rows, right=range(1, len(headers)))


def prices(model: Mapping[str, Any]) -> str:
    """What a list asks for each operation."""
    named = [f"{key.upper()} {_price(model[f'{key}_pJ'])}" for key in HEADLINE]
    named += [f"{key.replace('_', ' ')} {model[f'{key}_pJ']:g} pJ" for key in PRICED[2:] if f"{key}_pJ" in model]
    return ", ".join(named) + (", memory and addresses by their sizes" if model["memory"] else "")


def _price(value: float | None) -> str:
    return "unavailable" if value is None else f"{value:g} pJ"


def ann_sentences(report: Mapping[str, Any]) -> list[str]:
    """Both artificial networks, and who wins."""
    ann, quantised = report["ann"], report["quantised_ann"]
    if not ann["mac"]:
        return []
    first = f"{ann['of'].capitalize()} run once as an ANN: {ann['mac']:,} MAC"
    if ann["energy_J"] is None:
        found = [first + ": this list has no price for it."]
    else:
        found = [f"{first} = {nanojoules(ann['energy_J'])} nJ. " + _against_ann(report)]
    bits = f"{quantised['bits']} bit{'s' * (quantised['bits'] > 1)}"
    second = f"As an ANN with activations of {bits}, all in integers ({quantised['cost_model']}, estimated)"
    taken = f"{nanojoules(quantised['energy_J'])} nJ, the spiking network {nanojoules(quantised['spiking_J'])} nJ"
    return [*found, f"{second}: {taken}. " + _winner(quantised["ratio"])]


def also_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Published conventions beside the exact counts."""
    samples, totals = report["samples"], report["totals"]
    exact = (totals["ac"] * AC + totals["mac"] * MAC) * 1e-12 / samples
    counted = [f"{totals[key] / samples:,.1f}" for key in HEADLINE]
    rows = [["exact counts", *counted, nanojoules(exact), ""]]
    for said in report["also"]:
        known = said["energy_J"] is not None
        mac = f"{said['mac']:,.1f}" if known else "not recorded"
        gap = "" if said["gap"] is None else f"{said['gap']:+.1%}"
        rows.append([said["name"], f"{said['ac']:,.1f}", mac, nanojoules(said["energy_J"]) if known else "", gap])
    return rows


def _against_ann(report: Mapping[str, Any]) -> str:
    ann = report["ann"]
    text = ""
    if ann["of"] == "the layers counted" and report["level"] in MERGED:
        text = "(Pools are merged into larger kernels at this level: the trained network's ANN may take less.) "
    text += _winner(ann["ratio"])
    even = ann["break_even_rate"]
    if report["left_out"].get("mac"):
        return text + " (The spiking network's MACs are not in its energy: this comparison flatters it.)"
    if even is None:
        return text
    if even < 0:
        return text + " At no rate would it take less: what does not depend on spikes takes more already."
    if even > 1 >= ann["rate"]:
        return text + " It takes less at every rate up to 100 %."
    return text + f" Both would be equal at a rate of {even:.2%}; it is {ann['rate']:.2%}."


def _winner(ratio: float | None) -> str:
    if ratio is None:
        return ""
    if ratio > 1:
        return f"The ANN wins: the spiking network takes {ratio:.2f} times its energy."
    if ratio == 1:
        return "Both take the same energy."
    less = f", {1 / ratio:.1f} times less" if 0 < ratio < 0.95 else ""  # 1.0 times less says nothing
    return f"The spiking network takes {ratio:.3f} of that{less}."


def mean(total: int, samples: int) -> str:
    """A mean over samples, without digits that say nothing."""
    whole, rest = divmod(total, samples)
    return f"{total / samples:,.1f}" if rest else f"{whole:,}"


def _cell(total: int, samples: int) -> str:
    """The same with one decimal in every cell, so that columns align; exact where there is one sample."""
    return f"{total / samples:,.1f}" if samples > 1 else f"{total:,}"


def rate(events: int, places: int) -> str:
    """Events for each place, in per cent."""
    return f"{events / places:.2%}" if places else ""


def share(part: float, whole: float) -> str:
    """A part of the whole, in per cent."""
    return f"{part / whole:.1%}" if whole else ""


def nanojoules(joules: float) -> str:
    """Joules in nJ; what is little is not said to be nothing."""
    shown = f"{joules * 1e9:,.2f}"
    return f"{joules * 1e9:.2g}" if joules and shown == "0.00" else shown

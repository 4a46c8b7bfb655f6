"""``snncompile energy explain``: the formula of a layer's energy with its operands filled in."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from snncompile.commands.console import result
from snncompile.commands.energy_files import read_report
from snncompile.cost_model import CostModel
from snncompile.energy_prices import joules, left_out, rates
from snncompile.errors import ReadError
from snncompile.sheet import suggestion


def run(options: argparse.Namespace) -> int:
    """Every product that the layer's energy is the sum of; the price list's sources."""
    report = read_report(options.report)
    layers = {layer["name"]: layer for layer in report["layers"]}
    if options.layer not in layers:
        raise ReadError(f"no layer {options.layer!r}", where=options.report, remedy=suggestion(options.layer, layers))
    layer = layers[options.layer]
    model = CostModel.load(options.cost_model or report["cost_model"]["name"])
    terms = _terms(layer, model)
    whole = sum(joules(model, layer, layer["columns"]).values())
    lines = [*_counted(report, layer), "", f"energy at the prices of {model.title} ({model.name}), all samples:"]
    for term in terms:
        count, price, part = term["count"], term["price_pJ"], term["component"]
        line = f"  {count:>16,} {term['column'].replace('_', ' ')} x {price:g} pJ"
        lines.append(f"{line} = {count * price / 1000:,.4f} nJ  ({part}; {term['source']})")
    samples = report["samples"]
    lines.append(f"  sum {whole * 1e9:,.4f} nJ / {samples:,} samples = {whole * 1e9 / samples:,.4f} nJ a sample")
    missing = left_out(model, layer["columns"])
    if missing:
        lines.append(
            "  not priced: " + ", ".join(f"{number:,} {key}".replace("_", " ") for key, number in missing.items())
        )
    result(options, "\n".join(lines), {"layer": layer, "terms": terms, "energy_J": whole, "left_out": missing})
    return 0


def _terms(layer: Mapping[str, Any], model: CostModel) -> list[dict[str, Any]]:
    found = []
    for component, prices in rates(model, layer).items():
        for key, price in prices.items():
            if count := layer["columns"].get(key, 0):
                source = model.source(component, key)
                found.append(
                    {"component": component, "column": key, "count": count, "price_pJ": price, "source": source}
                )
    return found


def _counted(report: Mapping[str, Any], layer: Mapping[str, Any]) -> list[str]:
    """How the counts came about."""
    columns, samples, steps = layer["columns"], report["samples"], report["steps"]
    lines = [
        f"{layer['name']} ({layer['kind']}, {layer['role']}): {layer['arrives']} from {', '.join(layer['sources'])}"
    ]
    if "ac" in columns:
        spikes, fan_out = columns["spikes_in"], columns["ac"] / columns["spikes_in"] if columns["spikes_in"] else 0.0
        lines.append(
            "  AC = sum over events of the synapses each one reaches"
            f" = {spikes:,} events x {fan_out:,.4f} = {columns['ac']:,}"
        )
        places = samples * steps * layer["sites"]
        share = spikes / places if places else 0.0
        lines.append(
            f"  rate = {spikes:,} / ({samples:,} samples x {steps} steps x {layer['sites']:,} elements) = {share:.4%}"
        )
        lines.append(f"  of these at weights that are not zero: {columns['ac_nonzero_weight']:,}")
    elif "mac" in columns:
        most = samples * steps * layer["synapses"]
        lines.append(
            f"  MAC = {layer['synapses']:,} synapses inside the borders x {steps} steps"
            f" x {samples:,} samples = {most:,}"
        )
        if columns["mac"] != most:
            lines.append(f"  of these were computed ({report['conventions']['static_input']}): {columns['mac']:,}")
    rest = {key: number for key, number in columns.items() if number and key not in ("ac", "mac", "ac_nonzero_weight")}
    return [*lines, *(f"  {key.replace('_', ' ')}: {number:,}" for key, number in rest.items())]

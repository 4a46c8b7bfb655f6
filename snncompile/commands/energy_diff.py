"""``snncompile energy diff``: two reports, layer by layer."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from snncompile.commands.console import result
from snncompile.commands.energy_files import read_report
from snncompile.energy_conventions import TOTALS, Column
from snncompile.errors import Incomparable
from snncompile.report.energy_report import mean
from snncompile.report.table import table

COMPARED: tuple[Column, ...] = get_args(Column)


def run(options: argparse.Namespace) -> int:
    """What differs, exactly. Raises ``Incomparable`` where the two counted other things."""
    left, right = read_report(options.left), read_report(options.right)
    for key, mine, other in (
        ("data", left["data"]["digest"], right["data"]["digest"]),
        ("samples", left["samples"], right["samples"]),
        ("conventions", left["digests"]["conventions"], right["digests"]["conventions"]),
        ("cost model", left["digests"]["cost_model"], right["digests"]["cost_model"]),
    ):
        if mine != other:
            raise Incomparable(f"their {key} differ", where=f"{options.left} and {options.right}", remedy="count again")
    found = _differences(left, right)
    energy = [report["energy_per_sample_J"] for report in (left, right)]
    samples = left["samples"]
    rows = [
        [
            one["layer"],
            one["column"].replace("_", " "),
            *(_cell(one[side], samples) for side in ("left", "right")),
            _signed(one["left"], one["right"]),
        ]
        for one in found
    ]
    text = table(["layer", "count", "left", "right", "difference over all samples"], rows, right=range(2, 5))
    same = "Every count is the same."
    words = f"Energy a sample: {energy[0] * 1e9:,.2f} nJ and {energy[1] * 1e9:,.2f} nJ."
    result(options, f"{text if rows else same}\n\n{words}", {"differences": found, "energy_per_sample_J": energy})
    return 0


def _differences(left: dict[str, Any], right: dict[str, Any]) -> list[dict[str, Any]]:
    """Every count that differs; a layer that only one has counts None in the other."""
    sides = [{layer["name"]: layer["columns"] for layer in report["layers"]} for report in (left, right)]
    found = []
    for name in [*sides[0], *(name for name in sides[1] if name not in sides[0])]:
        for key in COMPARED:
            mine, other = (side[name].get(key, 0) if name in side else None for side in sides)
            if mine != other and (mine or other):
                found.append({"layer": name, "column": key, "left": mine, "right": other})
    for key in TOTALS:
        if left["totals"][key] != right["totals"][key]:
            found.append({"layer": "total", "column": key, "left": left["totals"][key], "right": right["totals"][key]})
    return found


def _cell(number: int | None, samples: int) -> str:
    return "absent" if number is None else mean(number, samples)


def _signed(left: int | None, right: int | None) -> str:
    return "" if left is None or right is None else f"{right - left:+,}"

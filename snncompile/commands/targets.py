"""``snncompile targets``: the catalogue of machines and price lists."""

from __future__ import annotations

import argparse
from typing import Any

from snncompile import sheet as sheets
from snncompile.commands.console import result
from snncompile.cost_model import CostModel, cost_models
from snncompile.report.table import table
from snncompile.sheet import Sheet
from snncompile.target import Target, machines


def run(options: argparse.Namespace) -> int:
    """The list, or every figure of one sheet with its source."""
    if options.name:
        return _one(options)
    loaded = [Target.load(name) for name in machines()]
    prices = [CostModel.load(name) for name in cost_models()]
    rows = [[one.name, "machine", one.title, one.summary] for one in loaded]
    rows += [[one.name, "prices", one.title, f"{_prices(one)}, {one.precision}"] for one in prices]
    data = [{"name": row[0], "kind": row[1], "title": row[2], "summary": row[3]} for row in rows]
    result(options, table(["name", "kind", "title", ""], rows), data)
    return 0


def _prices(model: CostModel) -> str:
    return f"AC {model.ac} pJ, MAC " + ("unavailable" if model.mac is None else f"{model.mac} pJ")


def _one(options: argparse.Namespace) -> int:
    sheet = Sheet.load("targets", options.name)
    rows: list[list[str]] = []
    data: dict[str, Any] = {}
    for key, entry in _figures(sheet.table("")):
        if isinstance(entry, dict):
            value = str(entry.get("value", entry.get("status", "")))
            rows.append([key, f"{value} {entry.get('unit', '')}".strip(), str(entry.get("source", ""))])
        else:
            rows.append([key, str(entry), ""])
        data[key] = entry
    path = str(sheets.find("targets", options.name))
    result(options, table(["figure", "value", "source"], rows), {"sheet": path, **data})
    return 0


def _figures(content: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        if isinstance(value, dict) and not {"value", "status", "source"} & set(value):
            found += _figures(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found

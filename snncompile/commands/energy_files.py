"""Reading energy reports back: needs neither the network nor torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import isclose
from pathlib import Path
from typing import Any

from snncompile.energy_conventions import ROLES, TOTALS
from snncompile.energy_form import REPORT, misfit, parsed
from snncompile.errors import ReadError
from snncompile.report.energy_report import SCHEMA

EVENTS, FIRED = ("spikes_in", "ac_nonzero_weight"), ("saturated", "spikes_out")  # beside AC; beside dead neurons


def read_report(path: str) -> dict[str, Any]:
    """A JSON report. Raises ``ReadError``."""
    try:
        report = parsed(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReadError("no such file", where=path, remedy="make one with `snncompile energy CKPT -o FILE`") from error
    except OSError as error:
        raise ReadError("cannot be read", where=path or "(empty name)", why=str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise ReadError("is no energy report", where=path, why=str(error)) from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ReadError("is no energy report", where=path, why=f"its schema is not {SCHEMA}")
    fault = misfit(report, REPORT) or _miscount(report) or next(_contradictions(report), None)
    if fault:
        raise ReadError("is no whole energy report", where=path, why=fault)
    return report


def _miscount(report: Mapping[str, Any]) -> str | None:
    """What does not go with the number of samples or of steps, or is missing beside what a layer has."""
    samples, steps = report["samples"], report["steps"]
    if not samples or not steps:
        return "no sample or no step was run"
    series = [
        ("energy_by_sample_J", report["energy_by_sample_J"], samples),
        ("energy_by_steps_J", report["energy_by_steps_J"], steps),
        *([("correct_by_steps", correct, steps)] if (correct := report["correct_by_steps"]) is not None else []),
    ]
    for layer in report["layers"]:
        needs = [*(EVENTS if "ac" in layer["columns"] else ()), *(FIRED if "dead" in layer else ())]
        if lacks := [key for key in needs if key not in {*layer["columns"], *layer}]:
            return f"{layer['name']} lacks {', '.join(lacks)}"
        series += [(f"{layer['name']}.by_step.{key}", each, steps) for key, each in layer["by_step"].items()]
        series += [(f"{layer['name']}.by_sample.{key}", each, samples) for key, each in layer["by_sample"].items()]
    return next((f"{key}: {len(each)} of {n} numbers" for key, each, n in series if len(each) != n), None)


def _contradictions(report: Mapping[str, Any]) -> Iterator[str]:
    """Where a number of a report is not what others in it add up to: somebody changed it."""
    layers, samples = report["layers"], report["samples"]
    often = Counter(layer["name"] for layer in layers)
    yield from (f"{often[name]} layers are called {name}" for name in often if often[name] > 1)
    for layer in layers:
        columns, by_step = layer["columns"], layer["by_step"]
        if by_step.keys() != columns.keys() or not layer["by_sample"].keys() <= columns.keys():
            yield f"{layer['name']}: its series are of other counts than its columns"
            continue
        for kind, series in (("by_step", by_step), ("by_sample", layer["by_sample"])):
            for key, each in series.items():
                yield from _other(f"{layer['name']}.{kind}.{key}", sum(each), columns[key])
    for key in TOTALS:
        yield from _other(f"totals.{key}", report["totals"][key], _sum(layers, key))
        for role in ROLES:
            own = [layer for layer in layers if layer["role"] == role]
            yield from _other(f"roles.{role}.{key}", report["roles"][role][key], _sum(own, key))
    yield from _other("ann.mac", report["ann"]["mac"], sum(layer["mac"] for layer in report["ann"]["layers"]))
    energy = report["energy_per_sample_J"]
    for key, found in (
        ("layers", sum(layer["energy_per_sample_J"] for layer in layers)),
        ("energy_by_steps_J", report["energy_by_steps_J"][-1]),
        ("energy_by_sample_J", sum(report["energy_by_sample_J"]) / samples),
    ):
        if not isclose(found, energy, rel_tol=1e-6):  # sums of floats in another order
            yield f"energy_per_sample_J is {energy:g}, {key} say {found:g}"
    correct, accuracy = report["correct_by_steps"], report["accuracy"]
    if accuracy != (None if correct is None else correct[-1] / samples) or max(correct or [0]) > samples:
        yield "accuracy is not what correct_by_steps says"


def _sum(layers: list[Mapping[str, Any]], key: str) -> int:
    return sum(layer["columns"].get(key, 0) for layer in layers)


def _other(place: str, found: int, expected: int) -> Iterator[str]:
    if found != expected:
        yield f"{place} is {found:,}, what it goes with {expected:,}"

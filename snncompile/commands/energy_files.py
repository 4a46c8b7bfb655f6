"""Reading energy reports back: needs neither the network nor torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snncompile.energy_form import REPORT, misfit
from snncompile.errors import ReadError
from snncompile.report.energy_report import SCHEMA

EVENTS, FIRED = ("spikes_in", "ac_nonzero_weight"), ("saturated", "spikes_out")  # beside AC; beside dead neurons


def read_report(path: str) -> dict[str, Any]:
    """A JSON report. Raises ``ReadError``."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReadError("no such file", where=path, remedy="make one with `snncompile energy CKPT -o FILE`") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError("is no energy report", where=path, why=str(error)) from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ReadError("is no energy report", where=path, why=f"its schema is not {SCHEMA}")
    fault = misfit(report, REPORT) or _miscount(report)
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

"""Where energy reports go besides the terminal."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snncompile.commands.console import Log, check_place
from snncompile.report.document import to_html, to_markdown
from snncompile.report.energy_ci import SUMMARY_BYTES, benchmark, junit
from snncompile.report.energy_page import energy_page

if TYPE_CHECKING:
    from snncompile.commands.energy_gate import Outcome

OUTPUTS = ("output", "markdown", "html", "junit", "benchmark")


def check_places(options: argparse.Namespace) -> None:
    """Raise ``ReadError`` where a file that is asked for cannot be written: said before the work."""
    for key in OUTPUTS:
        if place := getattr(options, key, None):
            check_place(Path(place))


def write_reports(report: Mapping[str, Any], outcome: Outcome | None, options: argparse.Namespace, log: Log) -> None:
    """Every file that the command line asks for, and GitHub's job summary where there is one."""
    verdict = outcome.sentences() if outcome else ()

    def put(key: str, text: str) -> None:
        if place := getattr(options, key, None):
            write(Path(place), text)
            log(f"wrote {place}")

    put("output", json_text(report))
    put("markdown", to_markdown(energy_page(report, verdict, pictures=False)))
    title = f"Energy of {report['name']}" if report["name"] else "Energy"
    put("html", to_html(title, energy_page(report, verdict)))
    put("junit", junit(report["name"], outcome.tested if outcome else (), outcome.failures if outcome else ()))
    put("benchmark", json.dumps(benchmark(report), indent=1) + "\n")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary and outcome:
        text = to_markdown(energy_page(report, verdict, pictures=False))
        with Path(summary).open("a", encoding="utf-8") as file:  # a summary is added to, never replaced
            file.write(
                text if len(text.encode()) < SUMMARY_BYTES else to_markdown(energy_page(report, verdict, brief=True))
            )


def json_text(report: Mapping[str, Any]) -> str:
    """A report as a file: the same bytes for the same numbers."""
    return json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

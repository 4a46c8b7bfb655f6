"""Where energy reports go besides the terminal."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snncompile.commands.console import Log, check_place
from snncompile.errors import ReadError
from snncompile.report.document import to_html, to_markdown
from snncompile.report.energy_ci import SUMMARY_BYTES, benchmark, junit
from snncompile.report.energy_page import energy_page

if TYPE_CHECKING:
    from snncompile.commands.energy_gate import Outcome

INPUTS = ("model", "data", "calibration", "budget", "baseline")
SHOWN = "backslashreplace"  # names of files that are no UTF-8 are written as their codes
OUTPUTS = ("output", "markdown", "html", "junit", "benchmark")


def check_places(options: argparse.Namespace) -> None:
    """Raise ``ReadError`` where a file that is asked for cannot be written, or would take the place of another one that
    is written or read: said before the work.
    """
    taken = {}
    for key in INPUTS:
        if (place := getattr(options, key, None)) and (key == "baseline" or Path(place).is_file()):
            taken[os.path.realpath(place)] = key
    for key in OUTPUTS:
        if place := getattr(options, key, None):
            check_place(Path(place))
            if (other := taken.setdefault(os.path.realpath(place), key)) != key:
                why = f"it is {'the network' if other == 'model' else f'the file of --{other}'}"
                raise ReadError(f"--{key} cannot be written here", where=place, why=why, remedy="name another file")


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
        text = to_markdown(energy_page(report, verdict, pictures=False)).encode("utf-8", SHOWN)
        with Path(summary).open("ab") as file:  # a summary is added to, never replaced; its limit is of all of it
            if file.tell() + len(text) >= SUMMARY_BYTES:
                text = to_markdown(energy_page(report, verdict, brief=True)).encode("utf-8", SHOWN)
            file.write(text)


def json_text(report: Mapping[str, Any]) -> str:
    """A report as a file: the same bytes for the same numbers."""
    return json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it; a link stays, and what it leads to is replaced."""
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".snncompile.{os.getpid()}")  # no part of the name, which may be as long as names can be
    try:
        beside.write_text(text, encoding="utf-8", errors=SHOWN)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

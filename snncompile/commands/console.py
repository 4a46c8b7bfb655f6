"""What every verb does with its output: results to standard output, the log to standard error."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snncompile.errors import ReadError

Log = Callable[[str], None]
CODES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def plain(text: str) -> str:
    """Text for a terminal: names from files may hold what would move its cursor or change its colours."""
    return text.translate(CODES)


def prepare_streams() -> None:
    """Output takes names with any letters: what a terminal cannot show is shown as its code. A log that was closed
    before we came is written nowhere, and not among the results.
    """
    with contextlib.suppress(AttributeError, ValueError):  # it was closed, or is no stream of text
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115, it stays open


def log_of(options: argparse.Namespace) -> Log:
    """A function that logs a line on standard error, or nothing with ``--quiet``."""

    def log(line: str) -> None:
        with contextlib.suppress(OSError):  # that nobody reads the log is no reason to stop
            print(plain(line), file=sys.stderr, flush=True)

    return (lambda line: None) if options.quiet else log


def result(options: argparse.Namespace, text: str, data: Any) -> None:
    """Print a result as text, or as JSON where ``--format json`` was asked for.

    That its reader has seen enough and left is no reason to stop: the verdict comes after the result.
    """
    as_json = options.format == "json"
    try:
        print(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) if as_json else plain(text), flush=True)
    except BrokenPipeError:
        let_go_of_output()


def let_go_of_output() -> None:
    """Whatever still waits in standard output goes nowhere, so that leaving does not fail on it again."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or no file at all
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def check_place(path: Path) -> None:
    """Raise ``ReadError`` where a file cannot be written: said before the work, not after it."""
    path, given = Path(os.path.realpath(path)), path  # what a link leads to is written, and the link stays
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif given.exists() and not given.is_file():
        why = "it is no plain file, and would be replaced by one"
    elif not path.parent.is_dir():
        why = f"{path.parent} is no folder"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        why = f"no permission to write in {path.parent}"
    if why:
        raise ReadError("cannot be written", where=str(given), why=why)

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


def log_of(options: argparse.Namespace) -> Log:
    """A function that logs a line on standard error, or nothing with ``--quiet``."""

    def log(line: str) -> None:
        with contextlib.suppress(OSError):  # that nobody reads the log is no reason to stop
            print(line, file=sys.stderr, flush=True)

    return (lambda line: None) if options.quiet else log


def result(options: argparse.Namespace, text: str, data: Any) -> None:
    """Print a result as text, or as JSON where ``--format json`` was asked for."""
    print(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) if options.format == "json" else text, flush=True)


def check_place(path: Path) -> None:
    """Raise ``ReadError`` where a file cannot be written: said before the work, not after it."""
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif not path.parent.is_dir():
        why = f"{path.parent} is no folder"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        why = f"no permission to write in {path.parent}"
    if why:
        raise ReadError("cannot be written", where=str(path), why=why)

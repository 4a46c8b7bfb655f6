"""What every verb does with its output: results to standard output, the log to standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

Log = Callable[[str], None]


def log_of(options: argparse.Namespace) -> Log:
    """A function that logs a line on standard error, or nothing with ``--quiet``."""
    return (lambda line: None) if options.quiet else (lambda line: print(line, file=sys.stderr, flush=True))


def result(options: argparse.Namespace, text: str, data: Any) -> None:
    """Print a result as text, or as JSON where ``--format json`` was asked for."""
    print(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) if options.format == "json" else text, flush=True)

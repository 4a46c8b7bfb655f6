"""Reading energy reports back: needs neither the network nor torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snncompile.errors import ReadError
from snncompile.report.energy_report import SCHEMA


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
    missing = [key for key in ("samples", "steps", "layers", "totals", "ann", "digests") if key not in report]
    if missing:
        raise ReadError("is no whole energy report", where=path, why=f"it lacks {', '.join(missing)}")
    return report

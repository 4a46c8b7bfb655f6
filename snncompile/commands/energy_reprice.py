"""``snncompile energy reprice``: the same counts under another price list."""

from __future__ import annotations

import argparse

from snncompile.commands.console import log_of, result
from snncompile.commands.energy_files import read_report
from snncompile.commands.energy_output import check_places, write_reports
from snncompile.cost_model import CostModel
from snncompile.energy_compat import also
from snncompile.report.energy_report import reprice, to_text


def run(options: argparse.Namespace) -> int:
    """Nothing is run, and torch is not needed."""
    check_places(options)
    report = reprice(read_report(options.report), CostModel.load(options.cost_model))
    if options.also:
        report["also"] = also(report, options.also)
    write_reports(report, None, options, log_of(options))
    result(options, to_text(report), report)
    return 0

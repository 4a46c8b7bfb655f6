"""The gate on the command line: budgets, the baseline, and how a failure is said."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from snncompile.commands.console import Log, check_place, plain
from snncompile.commands.energy_output import write
from snncompile.energy_gate import Budget, Failure, Verdict, against, lock_text, locked, read_lock, within
from snncompile.errors import BudgetExceeded, ReadError
from snncompile.report import energy_ci


@dataclass(frozen=True)
class Outcome:
    """Budget and baseline together."""

    tested: tuple[str, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]

    def sentences(self) -> tuple[str, ...]:
        """The outcome for a report."""
        if not self.failures:
            return (f"Gate: {len(self.tested)} limits hold.", *self.notes)
        head = f"Gate: {len(self.failures)} of {len(self.tested)} limits exceeded."
        return (head, *map(str, self.failures), *self.notes)

    def error(self) -> BudgetExceeded:
        """All failures in one error."""
        lines = [*map(str, self.failures), *self.notes]
        what = f"{len(self.failures)} of {len(self.tested)} limits do not hold\n  " + "\n  ".join(lines)
        return BudgetExceeded(what, where="energy gate")


def check_options(options: argparse.Namespace) -> tuple[Budget | None, dict[str, Any] | None]:
    """Budget and baseline, read before the work. Raises ``SheetError`` and ``ReadError``."""
    budget = Budget(options.budget) if options.budget else None
    if budget is not None and not budget.absolute and not options.baseline:
        why = "max_increase is of a baseline"
        raise budget.sheet.error("budget.max_increase", "limits nothing", why=why, remedy="name it with --baseline F")
    if options.update_baseline:
        if not options.baseline:
            raise ReadError("no file to write", where="--update-baseline", remedy="name it with --baseline F")
        check_place(Path(options.baseline))
        return budget, None
    return budget, read_lock(options.baseline) if options.baseline else None


def gate(
    report: Mapping[str, Any],
    budget: Budget | None,
    lock: Mapping[str, Any] | None,
    options: argparse.Namespace,
    log: Log,
) -> Outcome | None:
    """The outcome, None where nothing was asked for. Writes the baseline where the limits hold."""
    parts: list[Verdict] = []
    if budget is not None:
        parts.append(within(report, budget))
    if lock is not None:
        parts.append(against(report, lock, options.baseline, budget.increase if budget else Fraction(0)))
    if options.update_baseline and not any(part.failures for part in parts):
        write(Path(options.baseline), lock_text(locked(report)))
        log(f"wrote {options.baseline}")
    if not parts:
        return None
    outcome = Outcome(
        tuple(name for part in parts for name in part.tested),
        tuple(failure for part in parts for failure in part.failures),
        tuple(note for part in parts for note in part.notes),
    )
    for note in outcome.notes:
        log(note)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in energy_ci.annotations(outcome.failures):
            print(plain(line), file=sys.stderr)
    return outcome

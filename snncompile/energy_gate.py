"""The gate: absolute budgets, and no count above its baseline. Everything compared is an exact integer.

A baseline (``energy.lock.json``) is committed: sorted keys, whole numbers, one layer a line, with a digest of itself.
Counts compare only where data set, level, conventions and cost model are the same; else the answer is ``Incomparable``,
which is neither pass nor failure. The weights may differ: to judge a change of them is what the gate is for.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from snncompile.energy_conventions import digest
from snncompile.energy_form import LOCK, misfit, parsed
from snncompile.errors import Incomparable, ReadError
from snncompile.sheet import Sheet

SCHEMA = "snncompile.energy-lock/2"  # 2: spikes out are held as well
GATED = ("ac", "mac", "one_to_one", "pool_adds", "neuron_updates", "bias_adds", "readout_adds", "spikes_out")
LIMITS = ("ac", "mac", "energy_nj")
BASES = ("data", "level", "conventions", "cost_model")
UPDATE = "run with --update-baseline and commit the result, if this is meant"
PERCENT = re.compile(r"\s*([0-9]{1,9}(\.[0-9]{1,9})?)\s*%\s*")


Limit = tuple[str, Fraction, int | None]
"""A key or glob, the limit, and its line."""


@dataclass(frozen=True)
class Failure:
    """One limit that does not hold: which, why, and where it was set."""

    name: str
    message: str
    path: str
    line: int | None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.name}: {self.message}"


@dataclass(frozen=True)
class Verdict:
    """Every limit that was tested, by name, and those that failed."""

    tested: tuple[str, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()


class Budget:
    """Limits from a file: ``[budget]``, means a sample, every complaint with its line.

    ``totals``, ``rates``, ``floors``: key or glob, limit, line; ``layers``: layer glob, what is limited, limit, line.
    ``increase``: of a count against the baseline. Raises ``SheetError`` where anything in the file limits nothing: it
    would look like a gate.
    """

    def __init__(self, path: str) -> None:
        self.sheet = sheet = Sheet.read(Path(path), label=path)
        sheet.known("", ["budget"])
        self._known("budget", ["max", "min", "layers", "max_increase"])
        self.increase = _percent(sheet)
        tables = {table: sheet.has(f"budget.{table}") for table in ("max", "min", "layers", "max.rate")}
        if tables["max"]:
            self._known("budget.max", [*LIMITS, "rate"])
        if tables["min"]:
            self._known("budget.min", ["accuracy"])
        self.totals = tuple(self._limits("budget.max", "rate")) if tables["max"] else ()
        self.rates = tuple(self._limits("budget.max.rate", share=True)) if tables["max.rate"] else ()
        self.floors = tuple(self._limits("budget.min", share=True)) if tables["min"] else ()
        self.layers = tuple(self._of_layers()) if tables["layers"] else ()

    @property
    def absolute(self) -> bool:
        """Whether anything is limited without a baseline."""
        return bool(self.totals or self.rates or self.floors or self.layers)

    def _known(self, table: str, keys: Sequence[str]) -> None:
        self.sheet.known(table, keys)
        self._filled(table, self.sheet.table(table))

    def _filled(self, dotted: str, table: object) -> Mapping[str, object]:
        if not isinstance(table, dict):
            raise self.sheet.error(dotted, f"expected a table, found {table!r}")
        if not table:
            raise self.sheet.error(dotted, "sets no limit", remedy="leave it out, or set one")
        return table

    def _limits(self, table: str, apart: str = "", *, share: bool = False) -> Iterator[Limit]:
        """The numbers of a table; globs may be keys. ``apart``: a key that is a table of its own."""
        for key, value in self._filled(table, self.sheet.table(table)).items():
            if key != apart:
                yield key, *self._limit(f"{table}.{key}", value, share)

    def _of_layers(self) -> Iterator[tuple[str, str, Fraction, int | None]]:
        for glob, table in self._filled("budget.layers", self.sheet.table("budget.layers")).items():
            for key, value in self._filled(f"budget.layers.{glob}", table).items():
                dotted = f"budget.layers.{glob}.{key}"
                if key not in LIMITS:
                    raise self.sheet.error(dotted, "unknown key", remedy=f"one of {', '.join(LIMITS)}")
                yield glob, key, *self._limit(dotted, value)

    def _limit(self, dotted: str, value: object, share: bool = False) -> tuple[Fraction, int | None]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self.sheet.error(dotted, f"expected a number that is not negative, found {value!r}")
        if share and value > 1:
            raise self.sheet.error(dotted, f"expected a share from 0 to 1, found {value!r}", remedy="97 % is 0.97")
        return Fraction(str(value)), self.sheet.line(dotted)


def _percent(sheet: Sheet) -> Fraction:
    if not sheet.has("budget.max_increase"):
        return Fraction(0)
    text = sheet.text("budget.max_increase")
    if found := PERCENT.fullmatch(text):
        return Fraction(found[1]) / 100
    raise sheet.error("budget.max_increase", f'expected a percentage such as "0%" or "0.5%", found {text!r}')


def within(report: Mapping[str, Any], budget: Budget) -> Verdict:
    """The absolute limits: means a sample in all, of layers by glob, rates of populations, and the accuracy floor."""
    samples, path = report["samples"], budget.sheet.label
    tested: list[str] = []
    failures: list[Failure] = []

    def test(name: str, found: Fraction, most: Fraction, line: int | None) -> None:
        tested.append(name)
        if found > most:
            failures.append(Failure(name, f"{_number(found)} a sample, {_number(most)} allowed", path, line))

    whole = {**report["totals"], "energy": report["energy_per_sample_J"]}
    for key, most, line in budget.totals:
        test(f"max.{key}", _measured(whole, key, samples), most, line)
    for glob, key, most, line in budget.layers:
        for layer in _chosen(report, glob, path, line, "columns", key):
            values = {**layer["columns"], "energy": layer["energy_per_sample_J"]}
            test(f"layers.{layer['name']}.{key}", _measured(values, key, samples), most, line)
    for glob, most, line in budget.rates:
        for layer in _chosen(report, glob, path, line, "dead"):
            rate = Fraction(layer["columns"]["spikes_out"], samples * report["steps"] * layer["size"])
            tested.append(f"max.rate.{layer['name']}")
            if rate > most:
                message = f"fires at {float(rate):.4%}, {float(most):.4%} allowed"
                failures.append(Failure(tested[-1], message, path, line))
    for key, least, line in budget.floors:
        tested.append(f"min.{key}")
        if report["correct_by_steps"] is None:
            failures.append(
                Failure(tested[-1], "no accuracy: the data have no labels, or no single read-out", path, line)
            )
        elif (found := Fraction(report["correct_by_steps"][-1], samples)) < least:
            message = f"{float(found):.4%}, at least {float(least):.4%} asked for"
            failures.append(Failure(tested[-1], message, path, line))
    return Verdict(tuple(tested), tuple(failures))


def _number(value: Fraction) -> str:
    return f"{value.numerator:,}" if value.denominator == 1 else f"{float(value):,.9g}"


def _measured(values: Mapping[str, Any], key: str, samples: int) -> Fraction:
    if key == "energy_nj":  # a sum of floats: its last digits are rounding, and a limit at it must hold
        return Fraction(f"{values['energy'] * 1e9:.12g}")
    return Fraction(values.get(key, 0), samples)


def _chosen(
    report: Mapping[str, Any], glob: str, path: str, line: int | None, needs: str, column: str = "energy_nj"
) -> list[Mapping[str, Any]]:
    """The layers a glob names. Raises ``ReadError`` where there is none, or where none of them counts what is limited:
    a limit on nothing guards nothing.
    """
    where = f"{path}:{line}" if line else path
    found = [layer for layer in report["layers"] if fnmatch.fnmatchcase(layer["name"], glob) and needs in layer]
    if not found:
        names = ", ".join(layer["name"] for layer in report["layers"] if needs in layer)
        raise ReadError(f"no layer is named {glob!r}", where=where, remedy=f"one of {names}")
    if column != "energy_nj" and not any(column in layer["columns"] for layer in found):
        names = ", ".join(layer["name"] for layer in report["layers"] if column in layer["columns"])
        what = f"no layer that is named {glob!r} has {column.upper()}"
        raise ReadError(what, where=where, remedy=f"these have: {names or 'none'}")
    return found


# --- the baseline -----------------------------------------------------------------------------------------------------


def locked(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a baseline keeps of a report."""
    correct = report["correct_by_steps"]
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "name": report["name"],
        "samples": report["samples"],
        "steps": report["steps"],
        "correct": None if correct is None else correct[-1],
        "level": report["level"],
        "data": report["data"]["digest"],
        "conventions": report["digests"]["conventions"],
        "cost_model": report["digests"]["cost_model"],
        "weights": report["digests"]["weights"],
        "layers": {
            layer["name"]: {key: n for key in GATED if (n := layer["columns"].get(key, 0))}
            for layer in report["layers"]
        },
        "totals": {key: report["totals"][key] for key in GATED},
    }
    return {**content, "digest": digest(content)}


def lock_text(lock: Mapping[str, Any]) -> str:
    """A baseline as a file: sorted keys, one layer a line."""

    def value(key: str) -> str:
        if key != "layers":
            return json.dumps(lock[key], sort_keys=True)
        rows = [f"  {json.dumps(name)}: {json.dumps(row, sort_keys=True)}" for name, row in sorted(lock[key].items())]
        return "{\n" + ",\n".join(rows) + "\n }"

    return "{\n" + ",\n".join(f" {json.dumps(key)}: {value(key)}" for key in sorted(lock)) + "\n}\n"


def read_lock(path: str) -> dict[str, Any]:
    """A baseline. Raises ``ReadError`` where it is missing, is none, or was changed by hand."""
    try:
        lock = parsed(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReadError("is missing", where=path, remedy="make it with --update-baseline and commit it") from error
    except OSError as error:
        raise ReadError("cannot be read", where=path, why=str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise ReadError("is no baseline", where=path, why=str(error)) from error
    if not isinstance(lock, dict) or lock.get("schema") != SCHEMA:
        raise ReadError("is no baseline", where=path, why=f"its schema is not {SCHEMA}", remedy=UPDATE)
    content = {key: value for key, value in lock.items() if key != "digest"}
    try:
        sealed = lock.get("digest") == digest(content)
    except ValueError:  # what is no number has no digest
        sealed = False
    if not sealed:
        raise ReadError(
            "was changed after it was written", where=path, why="its digest is of something else", remedy=UPDATE
        )
    if fault := misfit(lock, LOCK):
        raise ReadError("is no whole baseline", where=path, why=fault, remedy=UPDATE)
    return lock


def against(report: Mapping[str, Any], lock: Mapping[str, Any], path: str, increase: Fraction) -> Verdict:
    """Every count of every layer and in all against the baseline; nothing may rise by more than ``increase``.

    Raises ``Incomparable`` where the two counted different things.
    """
    now = locked(report)
    other = [key.replace("_", " ") for key in BASES if now[key] != lock[key]]
    if now["samples"] != lock["samples"]:
        other.append("number of samples")
    if other:
        why = f"{', '.join(other)} {'are' if len(other) > 1 else 'is'} not the baseline's"
        raise Incomparable("counts do not compare with the baseline", where=path, why=why, remedy=UPDATE)
    tested: list[str] = []
    failures: list[Failure] = []
    lower = 0
    lines = _lines(path)
    before, after = lock["layers"], now["layers"]
    for name in [*before, *(name for name in after if name not in before)]:
        layer, line = f"layer {name}", lines.get(f"layer {name}")
        tested.append(layer)
        if name not in after:
            new = [one for one in after if one not in before]
            hint = f"; new: {', '.join(new)}" if new else ""
            failures.append(Failure(layer, f"is in the baseline and not in the network{hint}", path, line))
        elif name not in before:
            failures.append(Failure(layer, "is in the network and not in the baseline", path, None))
        else:
            failures += _risen(layer, after[name], before[name], increase, path, line)
            lower += sum(after[name].get(key, 0) < before[name].get(key, 0) for key in GATED)
    tested.append("total")
    failures += _risen("total", now["totals"], lock["totals"], increase, path, lines.get("totals"))
    below = f"{lower} counts of layers are" if lower > 1 else "a count of a layer is"
    notes = [f"{below} below the baseline; --update-baseline keeps the gain"] if lower else []
    if failures and now["weights"] == lock["weights"]:
        notes.append("network and weights are the baseline's: what changed is the program that runs or counts them")
    if now["steps"] != lock["steps"]:
        notes.append(f"the network runs {now['steps']} steps, the baseline's ran {lock['steps']}")
    return Verdict(tuple(tested), tuple(failures), tuple(notes))


def _risen(
    name: str, now: Mapping[str, int], before: Mapping[str, int], increase: Fraction, path: str, line: int | None
) -> Iterator[Failure]:
    for key in GATED:
        found, allowed = now.get(key, 0), before.get(key, 0)
        if found > allowed * (1 + increase):
            share = f" (+{(found - allowed) / allowed:.4%})" if allowed else ""
            said = f"{found:,} {key.replace('_', ' ')}, {allowed:,} in the baseline: +{found - allowed:,}{share}"
            yield Failure(name, said, path, line)


def _lines(path: str) -> dict[str, int]:
    """Line of every key of a baseline, as ``lock_text`` writes it: one a line; of a layer as ``layer NAME``."""
    found: dict[str, int] = {}
    inside = ""
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        text = line.strip()
        if text.startswith('"'):
            name, _ = json.JSONDecoder().raw_decode(text)
            found.setdefault(inside + name, number)
            inside = "layer " if text == '"layers": {' else inside
        elif text.startswith("}"):
            inside = ""
    return found

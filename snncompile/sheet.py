"""Reads a sheet of the catalogue: a TOML file whose every complaint names its line.

Sheets are data: ``targets/*.toml`` describe machines and cost models, ``models/*.toml`` describe networks and how to
train them. A *figure* is a value with its origin::

    neurons = { value = 4095, unit = "neurons", source = "who published it, and where", basis = "measured" }

A target sheet may hold no number, no switch and no rule without a source. What nobody published is said so::

    synaptic_operation = { status = "unavailable", source = "where the absence was noted" }
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeGuard, TypeVar

from snncompile.errors import SheetError

Kind = Literal["targets", "models"]
Value = int | float | str | bool
Record = TypeVar("Record")

FIGURE_KEYS = ("value", "unit", "source", "basis", "status", "note")
BASES = (
    "published",
    "source code",
    "tool output",
    "measured",
    "pre-silicon simulation",
    "third-party",
    "inferred",
    "compiler's choice",
)
"""How a figure came about. The last one is not a property of the machine: this compiler chose it within the machine."""

DESCRIPTIONS = ("target", "cost_model")
"""Tables of a target sheet whose plain text (name, title, ...) describes the sheet itself and needs no source."""

_HEADER = re.compile(r"""\s*\[\[?\s*((?:[^\[\]"']|"[^"]*"|'[^']*')+?)\s*\]\]?\s*(#.*)?""")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_\-. ]|"[^"]*"|'[^']*')+?)\s*=""")


def catalogue(kind: Kind) -> Path:
    """The folder of the catalogue: inside the installed package, else in the checkout around it."""
    package = Path(__file__).resolve().parent
    inside = package / "_catalogue" / kind
    return inside if inside.is_dir() else package.parent / kind


def names(kind: Kind) -> list[str]:
    """Names of all sheets of a kind, sorted."""
    return sorted(path.stem for path in catalogue(kind).glob("*.toml"))


def find(kind: Kind, name_or_path: str) -> Path:
    """The file of a sheet: a name of the catalogue (``loihi``), or any path (``./my.toml``).

    Raises:
        SheetError: no such name, or no such file; the remedy names the closest ones.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
        if path.is_file():
            return path
        raise SheetError("no such file", where=name_or_path, remedy=f"the catalogue has {_listed(names(kind))}")
    path = catalogue(kind) / f"{name_or_path}.toml"
    if path.is_file():
        return path
    raise SheetError(
        f"no such sheet in {kind}/",
        where=name_or_path or "(empty name)",
        remedy=suggestion(name_or_path, names(kind)) + ", or give the path of a .toml file",
    )


@dataclasses.dataclass(frozen=True)
class Figure:
    """A value, where it comes from and how it came about. ``value`` is None where the figure is unavailable."""

    value: Value | None
    unit: str = ""
    source: str = ""
    basis: str = "published"
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A parsed sheet. Keys are dotted: ``core.neurons``. Every reader raises SheetError with the line of the key."""

    path: Path
    label: str
    content: Mapping[str, object]
    lines: Mapping[str, int]
    sourced: bool = False

    @classmethod
    def load(cls, kind: Kind, name_or_path: str) -> Sheet:
        """Finds and reads a sheet; in ``targets`` every figure must have its source."""
        path = find(kind, name_or_path)
        label = f"{kind}/{path.name}" if path.parent == catalogue(kind) else name_or_path
        return cls.read(path, label=label, sourced=kind == "targets")

    @classmethod
    def read(cls, path: Path, *, label: str = "", sourced: bool = False) -> Sheet:
        """Reads one file. Raises SheetError when it cannot be read, is not TOML, or holds an unsourced figure."""
        label = label or str(path)
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except (OSError, UnicodeDecodeError) as error:
            raise SheetError("cannot be read", where=label, why=str(error)) from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
            raise SheetError("not TOML", where=label, why=str(error)) from error
        sheet = cls(path=path, label=label, content=content, lines=_lines(text), sourced=sourced)
        if sourced:
            for key, value in _leaves(content):
                sheet._check_sourced(key, value)
        return sheet

    # Readers

    def has(self, key: str) -> bool:
        """Whether the sheet has this dotted key."""
        return self._look_up(key) is not None

    def figure(self, key: str) -> Figure:
        """The figure at a key; a plain value is a figure without a source."""
        found = self._require(key)
        if not isinstance(found, dict) or not _is_figure(found):
            return Figure(self._plain(key, found))
        self._check_figure(key, found)
        texts = {name: str(found[name]) for name in ("unit", "source", "basis", "note") if name in found}
        value = None if "status" in found else self._plain(key, found["value"])
        return Figure(value, **texts)

    def text(self, key: str) -> str:
        """A string."""
        value = self._available(key)
        if not isinstance(value, str):
            raise self._wrong_type(key, "a string", value)
        return value

    def integer(self, key: str) -> int:
        """An integer of TOML, which has 64 bits; 4.0 and true are none."""
        value = self._available(key)
        if not _is_number(value) or not isinstance(value, int):
            raise self._wrong_type(key, "an integer", value)
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._available(key)
        if not _is_number(value):
            raise self._wrong_type(key, "a finite number", value)
        return float(value)

    def numbers(self, key: str, kind: type[int] | type[float]) -> tuple[int | float, ...]:
        """A list of integers, or of finite numbers."""
        found = self._require(key)
        wanted = (int,) if kind is int else (int, float)
        if not isinstance(found, list | tuple) or not all(
            isinstance(item, wanted) and _is_number(item) for item in found
        ):
            raise self._wrong_type(key, "a list of integers" if kind is int else "a list of finite numbers", found)
        return tuple(kind(item) for item in found)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._available(key)
        if not isinstance(value, bool):
            raise self._wrong_type(key, "true or false", value)
        return value

    def table(self, key: str) -> dict[str, object]:
        """The plain content of a table; the empty key is the whole sheet."""
        found = dict(self.content) if key == "" else self._require(key)
        if not isinstance(found, dict):
            raise self._wrong_type(key, "a table", found)
        return found

    def record(self, table: str, kind: type[Record], **absent: object) -> Record:
        """A dataclass read from a table: its fields are the keys, its annotations the types, nothing else is accepted.

        Annotations may be ``int``, ``float``, ``str``, ``bool``, a ``Literal`` of strings, ``tuple[int, ...]`` or
        ``tuple[float, ...]`` for a list, or ``float | None`` for a figure that may be unavailable. A field with a
        default may be absent; ``absent`` gives other defaults.
        """
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        self.known(table, [field.name for field in fields])
        read: dict[str, object] = dict(absent)
        for field in fields:
            key = f"{table}.{field.name}"
            required = field.default is dataclasses.MISSING and field.name not in absent
            if required or self.has(key):
                read[field.name] = self._typed(key, hints[field.name])
        return kind(**read)

    def known(self, table: str, keys: Iterable[str]) -> None:
        """Refuses a key of the table that is not among ``keys``. The empty table is the top level."""
        allowed = list(keys)
        for name in self.table(table):
            if name not in allowed:
                key = f"{table}.{name}" if table else name
                raise self.error(key, "unknown key", remedy=suggestion(str(name), allowed))

    # Where things stand

    def line(self, key: str) -> int | None:
        """Line of a dotted key, or of the nearest table around it; None where no line can be named."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return None

    def cite(self, key: str) -> str:
        """``targets/loihi.toml:41, core.neurons``."""
        line = self.line(key)
        return f"{self.label}:{line}, {key}" if line else f"{self.label}, {key}"

    def error(self, key: str, what: str, *, why: str = "", remedy: str = "") -> SheetError:
        """A SheetError that names file, line and key."""
        return SheetError(what, where=self.cite(key), why=why, remedy=remedy)

    # Inside

    def _look_up(self, key: str) -> object | None:
        found: object = self.content
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return None
            found = found[part]
        return found

    def _require(self, key: str) -> object:
        found = self._look_up(key)
        if found is None:
            raise self.error(key, "missing key")
        return found

    def _available(self, key: str) -> Value:
        figure = self.figure(key)
        if figure.value is None:
            raise self.error(key, "unavailable: no figure is published", why=figure.source)
        return figure.value

    def _plain(self, key: str, value: object) -> Value:
        if isinstance(value, bool | int | float | str):
            return value
        raise self._wrong_type(key, "a single value", value)

    def _typed(self, key: str, hint: object) -> object:
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            (inner,) = [part for part in typing.get_args(hint) if part is not type(None)]
            return None if self.figure(key).value is None else self._typed(key, inner)
        if typing.get_origin(hint) is Literal:
            choices = [str(choice) for choice in typing.get_args(hint)]
            value = self.text(key)
            if value not in choices:
                raise self.error(key, f"{value!r} is not known here", remedy=f"one of {_listed(choices)}")
            return value
        if typing.get_origin(hint) is tuple:
            return self.numbers(key, typing.get_args(hint)[0])
        readers = {int: self.integer, float: self.number, str: self.text, bool: self.flag}
        return readers[typing.cast(type, hint)](key)

    def _check_figure(self, key: str, figure: Mapping[str, object]) -> None:
        for name in figure:
            if name not in FIGURE_KEYS:
                raise self.error(f"{key}.{name}", "unknown key", remedy=suggestion(name, FIGURE_KEYS))
        if ("value" in figure) == ("status" in figure):
            raise self.error(key, "a figure has either a value or a status")
        if figure.get("status", "unavailable") != "unavailable":
            raise self.error(key, f"status {figure['status']!r} is not known", remedy='only "unavailable" is')
        basis = figure.get("basis", BASES[0])
        if basis not in BASES:
            raise self.error(key, f"basis {basis!r} is not known", remedy=f"one of {_listed(BASES)}")

    def _check_sourced(self, key: str, value: object) -> None:
        if isinstance(value, dict):
            self._check_figure(key, value)
            source = value.get("source")
            if isinstance(source, str) and source.strip():
                return
        elif isinstance(value, str) and key.partition(".")[0] in DESCRIPTIONS:
            return
        raise self.error(
            key,
            "a figure without a source",
            why="no target sheet holds a value that nobody can check",
            remedy='write { value = ..., source = "who published it, and where" }',
        )

    def _wrong_type(self, key: str, expected: str, found: object) -> SheetError:
        return self.error(key, f"expected {expected}, found {shown(found)}")


def _listed(options: Iterable[str]) -> str:
    return ", ".join(options) or "nothing"


def suggestion(name: str, options: Iterable[str]) -> str:
    """``did you mean loihi?``, or all options when none is close."""
    choices = list(options)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {_listed(choices)}"


def _is_number(value: object) -> TypeGuard[int | float]:
    """A finite number; an integer beyond 64 bits is none in TOML, though ``tomllib`` reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63


def shown(value: object) -> str:
    """A value in a message of one line, which a hostile file must not make long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_figure(table: Mapping[str, object]) -> bool:
    return any(word in table for word in ("value", "status", "source"))


def _leaves(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Every value and every figure of a sheet with its dotted key."""
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and not _is_figure(value):
            yield from _leaves(value, key + ".")
        else:
            yield key, value


def _lines(text: str) -> dict[str, int]:
    """Line of every table header and key: tomllib keeps none, so the text is scanned, multi-line strings skipped."""
    lines: dict[str, int] = {}
    table, closing = "", ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if header := _HEADER.fullmatch(line):
            table = _bare(header[1])
            lines.setdefault(table, number)
        elif match := _KEY.match(line):
            key = _bare(match[1])
            lines.setdefault(f"{table}.{key}" if table else key, number)
        for quotes in ('"""', "'''"):
            if line.count(quotes) % 2:
                closing = quotes
    return lines


def _bare(key: str) -> str:
    """``a . "b"`` as ``a.b``."""
    return ".".join(part.strip().strip("\"'") for part in key.split("."))

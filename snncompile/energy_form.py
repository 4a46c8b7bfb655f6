"""The form of files that come back, reports and baselines: whoever wrote them, what is read has it or is refused.

A form is ``int`` (a whole number from 0 that int64 holds), ``float`` (a finite number), ``str``, ``bool``, ``[form]``
(a list of such), ``{str: form}`` (a table with any keys), ``{"key": form}`` (a table that has these keys, and may have
``"key?"``), or a tuple of forms, one of which fits; ``None`` is itself. ``docs/energy.schema.json`` says all that a
report holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from snncompile.energy_conventions import ROLES, TOTALS

MOST = 1 << 63  # counts are int64: what is beyond was not counted

COUNTS, TOTAL = {str: int}, dict.fromkeys(TOTALS, int)
SERIES = {str: [int]}
REPORT = {
    "name": str,
    "level": str,
    "samples": int,
    "steps": int,
    "accuracy": (float, None),
    "correct_by_steps": ([int], None),
    "conventions": {str: str},
    "data": {"name": str, "digest": str},
    "digests": {"weights": str, "stimulus": str, "conventions": str, "cost_model": str},
    "cost_model": {"name": str},
    "layers": [
        {
            **{"name": str, "kind": str, "role": str, "arrives": str, "sources": [str], "biased": bool},
            **dict.fromkeys(("sites", "size", "synapses", "taps", "parameters"), int),
            **{"columns": COUNTS, "by_step": SERIES, "by_sample": SERIES, "energy_per_sample_J": float},
            **{"dead?": int, "saturated?": int},
        }
    ],
    "totals": TOTAL,
    "roles": dict.fromkeys(ROLES, TOTAL),
    "energy_per_sample_J": float,
    "energy_by_sample_J": [float],
    "energy_by_steps_J": [float],
    "ann": {
        **{"of": str, "mac": int},
        "layers": [{"name": str, "mac": int, "sites?": int, "size?": int, "parameters?": int, "reads_input?": bool}],
    },
    "quantised_ann": {"bits": int, "cost_model": str, "energy_J": float, "spiking_J": float, "ratio": (float, None)},
}
LOCK = {
    **{"name": str, "samples": int, "steps": int, "correct": (int, None), "level": str},
    **dict.fromkeys(("data", "conventions", "cost_model", "weights", "digest"), str),
    **{"layers": {str: COUNTS}, "totals": COUNTS},
}
WORDS = {int: "a whole number from 0", float: "a finite number", str: "a text", bool: "true or false"}


def parsed(text: str) -> Any:
    """JSON. Raises ``ValueError`` where it is none, or where a key stands twice: readers differ in which one counts."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice in one table")
    return found


def misfit(value: Any, form: Any) -> str | None:
    """The first place where a value has not the form: ``layers[2].columns: expected a table, found 1``; else None."""
    return next(_misfits(value, form, ""), None)


def _misfits(value: Any, form: Any, place: str) -> Iterator[str]:
    match form:
        case tuple():
            every = [next(_misfits(value, one, place), None) for one in form]
            if None not in every:
                yield str(every[0])
        case list():
            if not isinstance(value, list):
                yield _said(place, "a list", value)
            else:
                for index, one in enumerate(value):
                    yield from _misfits(one, form[0], f"{place}[{index}]")
        case dict():
            if not isinstance(value, dict):
                yield _said(place, "a table", value)
            elif str in form:
                for key, one in value.items():
                    yield from _misfits(one, form[str], f"{place}.{key}" if place else key)
            else:
                for key, inside in form.items():
                    name = key.removesuffix("?")
                    where = f"{place}.{name}" if place else name
                    if name in value:
                        yield from _misfits(value[name], inside, where)
                    elif name == key:
                        yield f"it lacks {where}"
        case None:
            if value is not None:
                yield _said(place, "nothing", value)
        case _:
            if not _fits(value, form):
                yield _said(place, WORDS[form], value)


def _fits(value: Any, form: type) -> bool:
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
    if form is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return isinstance(value, form)


def _said(place: str, expected: str, value: Any) -> str:
    shown = "a number beyond int64" if isinstance(value, int) and abs(value) >= MOST else repr(value)
    return f"{place}: expected {expected}, found {shown if len(shown) <= 40 else shown[:37] + '...'}"

"""Ops as plain values (dict, list, str, number) and back: what the text form and the store are both made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError
from snncompile.fixed import FixedPoint
from snncompile.ir import ops, signals
from snncompile.ir.ops import OPS, Op

Array = NDArray[Any]
Keep = Callable[[str, Array], Any]  # what stands for an array of one or more axes: (field path, array) -> plain value
Find = Callable[[Any], Array]  # and back

_OPS = {op.__name__: op for op in OPS}
_FIELDS = {op: fields(op) for op in OPS}
_SIGNALS: dict[str, type[signals.Signal]] = {
    "analog": signals.Analog,
    "spike": signals.Spike,
    "count": signals.Count,
    "signed": signals.Signed,
    "fixed": signals.Fixed,
}
_SIGNAL_NAMES = {record: name for name, record in _SIGNALS.items()}


def _is_param(item: Field[Any]) -> bool:
    return "Param" in str(item.type)


def _plain_array(path: str, array: Array, keep: Keep) -> Any:
    return array.item() if array.ndim == 0 else keep(path, array)


def _plain(path: str, value: Any, keep: Keep) -> Any:
    match value:
        case None | str() | int():  # most fields
            return value
        case FixedPoint():
            mantissa = _plain_array(f"{path}.mantissa", value.mantissa, keep)
            return {"mantissa": mantissa, "exponent": value.exponent}
        case np.ndarray():
            return _plain_array(path, value, keep)
        case ops.To():
            return {"to": _plain(f"{path}.to", value.value, keep)}
        case ops.By():
            return {"by": _plain(f"{path}.by", value.amount, keep)}
        case ops.Slice():
            return [value.core, value.first, value.count, value.channel, value.channels]
        case ops.Part():
            return {"of": value.of, "channels": list(value.channels)}
        case signals.Analog() | signals.Spike() | signals.Count() | signals.Signed() | signals.Fixed():
            return {"kind": _SIGNAL_NAMES[type(value)]} | {f.name: getattr(value, f.name) for f in fields(value)}
        case tuple():
            return [_plain(path, item, keep) for item in value]
        case _:
            return value


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else MISSING


def to_plain(op: Op, keep: Keep, *, defaults: bool = True) -> dict[str, Any]:
    """The fields of an op as plain values; those that stand at their default are left out on request."""
    plain: dict[str, Any] = {}
    for item in _FIELDS[type(op)]:
        value = plain[item.name] = _plain(item.name, getattr(op, item.name), keep)
        if not defaults and (default := _default(item)) is not MISSING and value == _plain(item.name, default, keep):
            del plain[item.name]
    return plain


def _param(value: Any, find: Find) -> Any:
    if isinstance(value, Mapping) and "mantissa" in value:
        mantissa, exponent = value["mantissa"], value["exponent"]
        integers = np.asarray(mantissa if isinstance(mantissa, int) else find(mantissa))
        if not np.issubdtype(integers.dtype, np.integer) or not isinstance(exponent, int):
            raise ValueError("a fixed-point value needs integers")
        return FixedPoint(integers, exponent)
    return np.asarray(value if isinstance(value, int | float) else find(value), dtype=np.float64)


def _value(item: Field[Any], value: Any, find: Find) -> Any:
    kind = str(item.type)
    if value is None and "None" in kind:
        return None
    if _is_param(item):
        return _param(value, find)
    if item.name == "reset":
        ((how, amount),) = value.items()
        return {"to": ops.To, "by": ops.By}[how](_param(amount, find))
    if item.name == "signal":
        rest = {key: entry for key, entry in value.items() if key != "kind"}
        return _SIGNALS[value["kind"]](**rest)
    if item.name == "part":
        return ops.Part(str(value["of"]), tuple(map(int, value["channels"])))
    if item.name == "cores":
        return tuple(ops.Slice(*map(int, entry)) for entry in value)
    if kind.startswith(("Shape", "Size")):
        if not isinstance(value, list | tuple) or not all(type(entry) is int for entry in value):
            raise ValueError(f"{item.name}={value!r} is no list of integers")
        return tuple(value)
    if item.name == "addends":
        return _count(value)
    if kind == "int" and type(value) is not int:
        raise ValueError(f"{item.name}={value!r} is no integer")
    if kind == "float" and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
        raise ValueError(f"{item.name}={value!r} is no finite number")
    choices = re.findall(r"'([^']*)'|\"([^\"]*)\"", str(item.type)) if "Literal" in str(item.type) else []
    if choices and value not in {one or other for one, other in choices}:
        raise ValueError(f"{item.name}={value!r} is none of {item.type}")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no number of addends")
    return value


def from_plain(name: str, kind: str, plain: Mapping[str, Any], find: Find) -> Op:
    """The op of these plain fields. Raises ``GraphError`` naming the node where they make none."""
    if kind not in _OPS:
        raise GraphError(f"no op is called {kind!r}", where=name, remedy="known: " + ", ".join(_OPS))
    record = _OPS[kind]
    known = {item.name: item for item in fields(record)}
    unknown = sorted(set(plain) - set(known))
    if unknown:
        raise GraphError(f"unknown field {unknown[0]!r}", where=f"{name} ({kind})", remedy="known: " + ", ".join(known))
    try:
        return record(**{key: _value(known[key], value, find) for key, value in plain.items()})
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise GraphError(f"its fields make no {kind}", where=f"{name} ({kind})", why=str(error)) from error

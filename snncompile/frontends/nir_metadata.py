"""What a ``.nir`` of ours says besides its numbers: redundant, and bound to them by a hash.

The numbers of a file are the network. They do not tell names that NIR forbids, the order of the nodes, what an input
carries, what a read-out does over time, which tie rule was meant, or how a kernel looked before it was made square.
One JSON text in the metadata of the graph does, with the graph itself: its arrays by the fields of the file that hold
them, packed where none does. A hash over all nodes, fields and edges says for which numbers it was written; a file
whose numbers were changed since is refused rather than read as what it was.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile import __version__
from snncompile.errors import GraphError, ReadError
from snncompile.frontends.nir_record import Net, Node, Value
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program, from_json, to_json

Array = NDArray[Any]
KEY = "snncompile"
SCHEMA = "snncompile.nir/1"
MOST_NUMBERS = 1 << 27
REMEDY = "`--nir metadata=ignore` reads the numbers alone"


@dataclass(frozen=True)
class Recorded:
    """What the metadata tell: the graph as it was written, the step in seconds, the profile, the steps of a sample, and
    the machine in whose integers the graph is (None: in reals).
    """

    graph: Graph
    dt: float
    profile: str
    steps: int | None
    integers: str | None = None


def fingerprint(net: Net) -> str:
    """SHA-256 over every node (name, kind, fields with type, shape and bytes) and every edge, in an order that does not
    depend on the file; the metadata stand outside.
    """
    digest = hashlib.sha256()
    for line in _lines("", net):
        digest.update(line)
    return digest.hexdigest()


def _lines(prefix: str, net: Net) -> Iterator[bytes]:
    for name in sorted(net.nodes):
        node = net.nodes[name]
        if isinstance(node, Net):
            yield from _lines(f"{prefix}{name}/", node)
            continue
        yield f"{prefix}{name}: {node.kind}\n".encode()
        for key in sorted(node.fields):
            yield f"  {key} ".encode() + _content(node.fields[key])
    for source, target in sorted(net.edges):
        yield f"{prefix}{source} -> {target}\n".encode()


def _content(value: Value) -> bytes:
    if isinstance(value, str):
        return json.dumps(value).encode() + b"\n"
    array = np.ascontiguousarray(value)
    return f"{array.dtype.str} {list(value.shape)} ".encode() + array.tobytes() + b"\n"


def pack(graph: Graph, net: Net, *, dt: float, profile: str, steps: int | None, integers: str | None = None) -> str:
    """The JSON text that goes with ``net``, which was written from ``graph`` (level ``read``); ``integers``: those of a
    machine of the catalogue.
    """
    plain, arrays = to_json(Program(graph, "read", "nir", steps or 1))
    held = {_key(array): place for place, array in _arrays(net)}
    told = {
        "schema": SCHEMA,
        "snncompile": __version__,
        "profile": profile,
        "dt": dt,
        "steps": steps,
        **({} if integers is None else {"integers": integers}),
        "sha256": fingerprint(net),
        "program": plain,
        "arrays": {name: _reference(array, held) for name, array in arrays.items()},
    }
    return json.dumps(told, allow_nan=False)


def unpack(text: str, net: Net, where: str) -> Recorded:
    """What the metadata of ``net`` tell, the graph to the last bit. Raises ``ReadError`` where they are damaged or were
    written for other numbers.
    """
    try:
        told = json.loads(text)
        if not isinstance(told, dict) or told.get("schema") != SCHEMA:
            schema = told.get("schema") if isinstance(told, dict) else None
            raise ReadError(f"its metadata are of schema {schema!r}, not {SCHEMA!r}", where=where, remedy=REMEDY)
        if told["sha256"] != fingerprint(net):
            why = "the file was changed after it was written"
            raise ReadError("its metadata are those of other numbers", where=where, why=why, remedy=REMEDY)
        held = dict(_arrays(net))
        arrays = {str(name): _restored(entry, held) for name, entry in told["arrays"].items()}
        dt, profile, steps = float(told["dt"]), str(told["profile"]), told["steps"]
        integers = str(told["integers"]) if "integers" in told else None
        graph = from_json(told["program"], arrays, where).graph
        check(graph, "read")
        if not 0 < dt < np.inf or not (steps is None or (isinstance(steps, int) and steps > 0)):
            raise ValueError(f"dt {dt}, steps {steps}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zlib.error, GraphError) as error:
        raise ReadError("its metadata are damaged", where=where, why=_short(error), remedy=REMEDY) from error
    return Recorded(graph, dt, profile, steps, integers)


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _arrays(net: Net) -> Iterator[tuple[str, Array]]:
    """Every field that may hold a parameter, by ``node.field``."""
    for name, node in net.nodes.items():
        if isinstance(node, Node):
            for key, value in node.fields.items():
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
                    yield f"{name}.{key}", value


def _key(array: Array) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.sha256(np.ascontiguousarray(array, dtype=np.float64).tobytes()).digest()


def _reference(array: Array, held: Mapping[tuple[tuple[int, ...], bytes], str]) -> dict[str, Any]:
    place = held.get(_key(array)) if array.dtype == np.float64 else None
    if place is not None:
        return {"field": place}
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
    return {"packed": packed, "dtype": str(array.dtype), "shape": list(array.shape)}


def _restored(entry: Mapping[str, Any], held: Mapping[str, Array]) -> Array:
    if "field" in entry:
        return np.asarray(held[entry["field"]], dtype=np.float64)
    dtype, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
    if dtype not in ("int64", "float64"):
        raise ValueError(f"no parameter is {dtype}")
    if min(shape, default=0) < 0 or prod(shape) > MOST_NUMBERS:
        raise ValueError(f"{list(shape)} is no shape of a parameter")
    expected = prod(shape) * np.dtype(dtype).itemsize
    content = zlib.decompressobj().decompress(base64.b64decode(entry["packed"]), expected + 1)
    if len(content) != expected:
        raise ValueError(f"{list(shape)} needs {expected} bytes")
    return np.frombuffer(content, dtype=dtype).reshape(shape)

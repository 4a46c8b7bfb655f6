"""Graphs on disk: ``program.json`` (nodes, edges, what goes with them) and ``arrays.npz`` (no pickle)."""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError, ReadError
from snncompile.ir.fields import from_plain, to_plain
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Op, kind

SCHEMA = "snncompile.program/1"
UNREADABLE = (
    *(OSError, ValueError, TypeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),  # the last: a header's bracket has no other end
)
"""What reading JSON or an ``.npz`` raises when the file is damaged, or something else."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Program:
    """A graph with what its machine must know: level, target, steps of a sample, and whether samples may follow each
    other in one run (``stream``) or each need a fresh state."""

    graph: Graph
    level: str
    target: str
    steps: int
    stream: bool = True


def to_json(program: Program) -> tuple[dict[str, Any], dict[str, Array]]:
    """The program as plain values and the arrays they name."""
    kept: dict[str, Array] = {}

    def node(name: str, op: Op) -> dict[str, Any]:
        def keep(path: str, array: Array) -> dict[str, str]:
            kept[f"{name}.{path}"] = array
            return {"array": f"{name}.{path}"}

        return {"op": kind(op)} | to_plain(op, keep)

    plain = {
        "schema": SCHEMA,
        "target": program.target,
        "level": program.level,
        "steps": program.steps,
        "stream": program.stream,
        "nodes": {name: node(name, op) for name, op in program.graph.nodes.items()},
        "edges": [[edge.source, edge.target, edge.delay] for edge in program.graph.edges],
    }
    return plain, kept


def from_json(plain: Mapping[str, Any], large: Mapping[str, Array], where: str) -> Program:
    """The program of these plain values. Raises ``ReadError`` or ``GraphError``."""
    if plain.get("schema") != SCHEMA:
        raise ReadError(f"its schema is {plain.get('schema')!r}, not {SCHEMA!r}", where=where)

    def find(value: Any) -> Array:
        key = value["array"]
        if key not in large:
            raise ReadError(f"the array {key!r} is missing", where=where)
        return large[key]

    try:
        nodes = {
            name: from_plain(name, entry["op"], {key: value for key, value in entry.items() if key != "op"}, find)
            for name, entry in plain["nodes"].items()
        }
        edges = [Edge(str(source), str(target), int(delay)) for source, target, delay in plain["edges"]]
        return Program(
            Graph(nodes, edges),
            str(plain["level"]),
            str(plain["target"]),
            int(plain["steps"]),
            bool(plain["stream"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReadError("it is no program", where=where, why=f"{type(error).__name__}: {error}") from error


def save(program: Program, folder: Path) -> None:
    """Write ``program.json`` and ``arrays.npz`` into an existing folder (that the caller renames into place)."""
    plain, large = to_json(program)
    (folder / "program.json").write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with (folder / "arrays.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{key: _narrow(array) for key, array in large.items()})


def _narrow(array: Array) -> Array:
    """Integers in the narrowest signed type that holds them: a file of weights packs four times faster."""
    if array.dtype.kind != "i" or not array.size:
        return array
    least, most = int(array.min()), int(array.max())
    types = (np.int8, np.int16, np.int32)
    return array.astype(next((t for t in types if np.iinfo(t).min <= least and most <= np.iinfo(t).max), np.int64))


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` by name. Raises one of ``UNREADABLE``; the file is closed whatever happens."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def load(folder: Path) -> Program:
    """Read a program. Raises ``ReadError`` for what is missing, truncated or something else."""
    where = str(folder / "program.json")
    try:
        plain = json.loads((folder / "program.json").read_text(encoding="utf-8"))
        large = read_arrays(folder / "arrays.npz")
    except FileNotFoundError as error:
        raise ReadError("is missing", where=str(error.filename), remedy="give a folder that `export` wrote") from error
    except UNREADABLE as error:
        raise ReadError("cannot be read", where=str(folder), why=str(error)) from error
    if not isinstance(plain, dict):
        raise ReadError("it is no program", where=where)
    try:
        return from_json(plain, large, where)
    except GraphError as error:
        raise ReadError("it holds a wrong graph", where=where, why=str(error)) from error

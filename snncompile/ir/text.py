"""The text form: one node a line, prints and parses, made to be read and compared.

::

    input = Input(shape=[1, 8, 8])
    conv1 = Conv(weight='float64[16,1,3,3]:5d0c6f2a91b4', padding=[1, 1]) <- input
    lif1  = Neuron(shape=[16, 8, 8], beta=0.5) <- conv1, input@2

Fields at their default are left out; arrays of up to eight numbers are written out, larger ones by type, shape and
the head of their SHA-256, so that two texts are equal where the graphs are. ``source@2`` is an edge of delay 2.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError
from snncompile.ir.fields import from_plain, to_plain
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Op, kind

Array = NDArray[Any]
WRITTEN_OUT = 8  # the largest array whose numbers stand in the text
_LINE = re.compile(r"^(?P<name>[^\s=]+)\s*=\s*(?P<call>.+?\))\s*(?:<-\s*(?P<sources>.*))?$")


def digest(array: Array) -> str:
    """Type, shape and content of an array in one word: ``float64[16,1,3,3]:5d0c6f2a91b4``."""
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}[{','.join(map(str, array.shape))}]:{content[:12]}"


def to_text(graph: Graph) -> str:
    """The graph as text, nodes in the order of the graph."""
    calls = {name: _call(op) for name, op in graph.nodes.items()}
    width = min(max((len(name) for name in calls), default=0), 24)
    lines = []
    for name, call in calls.items():
        sources = ", ".join(f"{edge.source}@{edge.delay}" if edge.delay else edge.source for edge in graph.into(name))
        lines.append(f"{name:<{width}} = {call}" + (f" <- {sources}" if sources else ""))
    return "\n".join(lines) + "\n"


def arrays(graph: Graph) -> dict[str, Array]:
    """The arrays that the text names by digest: with them ``from_text`` gives the graph back."""
    found: dict[str, Array] = {}
    for op in graph.nodes.values():
        to_plain(op, lambda _, array: found.setdefault(digest(array), array))
    return found


def from_text(text: str, large: Mapping[str, Array] | None = None) -> Graph:
    """Parse the text form; ``large`` holds the arrays that are named by digest.

    Raises ``GraphError`` naming the line.
    """
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise GraphError("not a node", where=f"line {number}", why="name = Op(field=value, ...) <- sources")
        name = match["name"]
        if name in nodes:
            raise GraphError(f"a second node is called {name!r}", where=f"line {number}")
        nodes[name] = _parse_call(name, match["call"], number, large or {})
        for source in filter(None, (entry.strip() for entry in (match["sources"] or "").split(","))):
            origin, _, delay = source.rpartition("@") if "@" in source else (source, "", "0")
            if not delay.isdecimal():
                raise GraphError(f"{delay!r} is no delay", where=f"line {number}")
            edges.append(Edge(origin, name, int(delay)))
    return Graph(nodes, edges)


def same(one: Graph, other: Graph) -> bool:
    """Whether two graphs are equal to the last bit, names and order of nodes included."""
    return to_text(one) == to_text(other)


def _call(op: Op) -> str:
    plain = to_plain(
        op, lambda _, array: array.tolist() if array.size <= WRITTEN_OUT else digest(array), defaults=False
    )
    return f"{kind(op)}({', '.join(f'{key}={value!r}' for key, value in plain.items())})"


def _parse_call(name: str, call: str, number: int, large: Mapping[str, Array]) -> Op:
    def find(value: Any) -> Array:
        if isinstance(value, list):
            return np.asarray(value)
        if value not in large:
            raise GraphError(f"the array {value} is not at hand", where=f"line {number}")
        return large[value]

    try:
        tree = ast.parse(call, mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.args:
            raise ValueError("an op is written as Name(field=value, ...)")
        plain = {str(item.arg): _literal(item.value) for item in tree.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise GraphError("cannot be parsed", where=f"line {number}", why=str(error)) from error
    return from_plain(name, tree.func.id, plain, find)


def _literal(node: ast.expr) -> Any:
    """A literal; ``inf`` and ``nan`` are what Python prints for numbers that have no literal of their own."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in ("inf", "nan"):
            raise ValueError(f"{part.id} is no parameter")
    return ast.literal_eval(node)

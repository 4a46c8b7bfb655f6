"""``.nir``: the HDF5 file of NIR, read into records. The package ``nir`` is not needed, and nothing is believed.

Layout, as ``nir/serialization.py`` of 1.0.8 writes it: ``version``, and ``node`` with ``type``, ``edges`` (pairs of
names) and ``nodes/<name>/{type, fields, metadata}``; a node of type ``NIRGraph`` holds all of that again. The version
is told and not used: what a file of another version lacks or has is seen in its fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.frontends.hdf5 import File, opened
from snncompile.frontends.nir_record import Net, Node, Value

MOST_NODES = 1 << 14
MOST_EDGES = 1 << 17
MOST_FIELDS = 64
DEEPEST = 16  # graphs in graphs
OURS = "snncompile"
"""The entry of the metadata that this program writes."""

FIELDS: dict[str, tuple[str, ...]] = {
    "Input": ("shape",),
    "Output": ("shape",),
    "Affine": ("weight", "bias"),
    "Linear": ("weight",),
    "Scale": ("scale",),
    "Conv1d": ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"),
    "Conv2d": ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Flatten": ("input_type", "start_dim", "end_dim"),
    "I": ("r",),
    "IF": ("r", "v_threshold", "v_reset"),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "Threshold": ("threshold",),
    "Delay": ("delay",),
}
"""The primitives of NIR 1.0.8 and the fields that each may have."""


def read_net(path: Path) -> tuple[Net, str]:
    """The graph of a ``.nir`` and the version of NIR that wrote it. Raises ``ReadError``, ``UnsupportedNode``."""
    where = str(path)
    with opened(path, ".nir") as file:
        if file.root.attrs.get("__type__") == "NIRGraphData":
            raise ReadError("holds data, not a network", where=where, remedy="give it to --data")
        reader = _Reader(file)
        top = file.inside(file.root, "node", where)
        if not _is_group(top):
            raise ReadError("has no group 'node'", where=where, why="it is an HDF5 file, but none of NIR")
        version = reader.text(file.root, "version", where) if "version" in file.root else ""
        kind = reader.text(top, "type", f"{where}: node")
        if kind != "NIRGraph":
            raise ReadError(f"holds a {kind[:40]}, not a NIRGraph", where=where)
        return reader.net(top, where, 0), version[:40]


def _is_group(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Group)


class _Reader:
    def __init__(self, file: File) -> None:
        self.file = file
        self.seen = 0
        self.places: set[int] = set()

    def net(self, group: Any, where: str, depth: int) -> Net:
        self._once(group, where)
        if depth > DEEPEST:
            raise ReadError(f"its graphs are nested more than {DEEPEST} deep", where=where)
        inner = self.file.inside(group, "nodes", where)
        if not _is_group(inner):
            raise ReadError("has no group 'nodes'", where=where)
        nodes: dict[str, Node | Net] = {}
        for name in self._names(inner, where):
            place = f"{where}: {name}"
            node = self.file.inside(inner, name, place)
            if not _is_group(node):
                raise ReadError("is a dataset, not a node", where=place)
            if "type" not in node:
                why = "a '/' in a name makes a group of it" if any(_is_group(node.get(key)) for key in node) else ""
                raise ReadError("has no type", where=place, why=why, remedy="rename the node and write it again")
            kind = self.text(node, "type", place)
            nodes[name] = self.net(node, place, depth + 1) if kind == "NIRGraph" else self._node(node, kind, place)
        return Net(nodes, self._edges(group, where), self._metadata(group, where))

    def _once(self, group: Any, where: str) -> None:
        """Graphs that share a part, or hold themselves, unfold to any size."""
        import h5py

        place = int(h5py.h5o.get_info(group.id).addr)
        if place in self.places:
            raise ReadError(
                "is another graph of the file, or holds it", where=where, why="each stands where it is once"
            )
        self.places.add(place)

    def _names(self, group: Any, where: str) -> list[str]:
        self.seen += len(group)
        if self.seen > MOST_NODES:
            raise ReadError(f"has more than {MOST_NODES:,} nodes", where=where)
        return [str(name) for name in group]

    def _node(self, group: Any, kind: str, where: str) -> Node:
        if kind not in FIELDS:
            remedy = "NIR 1.0.8 has " + ", ".join(FIELDS)
            raise UnsupportedNode(f"no NIR primitive is called {kind[:40]!r}", where=where, remedy=remedy)
        place = f"{where} ({kind})"
        if len(group) > MOST_FIELDS:
            raise ReadError(f"has {len(group)} fields", where=place)
        for key in group:
            if key not in (*FIELDS[kind], "type", "metadata"):
                why = f"a {kind} has {', '.join(FIELDS[kind])}, and says more in its metadata only"
                raise ReadError(f"has a field {str(key)[:40]!r}", where=place, why=why)
        fields = {key: self._value(group, key, place) for key in FIELDS[kind] if key in group}
        return Node(kind, fields, place, self._metadata(group, place))

    def _value(self, group: Any, key: str, where: str) -> Value:
        import h5py

        dataset = self.file.inside(group, key, where)
        if not isinstance(dataset, h5py.Dataset):
            raise ReadError(f"{key} is no dataset", where=where)
        if dataset.shape is None:
            raise ReadError(f"{key} is empty", where=where)
        if self.file.is_text(dataset):
            return self._one_text(dataset, key, where)
        return self.file.numbers(dataset, key, where)

    def text(self, group: Any, key: str, where: str) -> str:
        value = self._value(group, key, where)
        if not isinstance(value, str):
            raise ReadError(f"{key} is no text", where=where)
        return value

    def _one_text(self, dataset: Any, key: str, where: str) -> str:
        found = self.file.texts(dataset, key, where, 1)
        if len(found) != 1:
            raise ReadError(f"{key} holds no text", where=where)
        return found[0]

    def _edges(self, group: Any, where: str) -> tuple[tuple[str, str], ...]:
        import h5py

        dataset = self.file.inside(group, "edges", where)
        if not isinstance(dataset, h5py.Dataset):
            raise ReadError("has no dataset 'edges'", where=where)
        if dataset.shape is None or 0 in dataset.shape:
            return ()
        if len(dataset.shape) != 2 or dataset.shape[1] != 2 or not self.file.is_text(dataset):
            raise ReadError(f"its edges are {list(dataset.shape)} {dataset.dtype}", where=where, why="[edges, 2] names")
        names = self.file.texts(dataset, "edges", where, 2 * MOST_EDGES)
        return tuple(zip(names[::2], names[1::2], strict=True))

    def _metadata(self, group: Any, where: str) -> dict[str, Value]:
        """What this program wrote about a network; what other tools keep there means nothing here."""
        import h5py

        found = self.file.inside(group, "metadata", where) if "metadata" in group else None
        item = self.file.inside(found, OURS, where) if _is_group(found) else None
        if item is None:
            return {}
        if not isinstance(item, h5py.Dataset) or item.shape is None or not self.file.is_text(item):
            raise ReadError(f"metadata {OURS!r} is no text", where=where, remedy="`--nir metadata=ignore`")
        return {OURS: self._one_text(item, OURS, where)}

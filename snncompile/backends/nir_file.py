"""Records as a ``.nir``: the layout that NIR 1.0.8 writes and every reader of it reads. The package ``nir`` is not
needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snncompile.frontends.nir_metadata import KEY
from snncompile.frontends.nir_record import Net, Node, Value

VERSION = "1.0.8"
"""The version of NIR whose layout this is: what readers find in ``/version``."""


def write(net: Net, path: Path, metadata: str | None = None) -> None:
    """Write a graph; equal records make equal files. ``metadata`` is the text of ``nir_metadata.pack``."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("version", data=VERSION, dtype=h5py.string_dtype())
        _write_graph(file.create_group("node"), net, metadata)


def _write_graph(group: Any, net: Net, metadata: str | None) -> None:
    import h5py

    group.create_dataset("type", data="NIRGraph", dtype=h5py.string_dtype())
    edges = np.array([list(edge) for edge in net.edges], dtype=object).reshape(-1, 2)
    group.create_dataset("edges", data=edges, dtype=h5py.string_dtype())
    if metadata is not None:
        group.create_group("metadata").create_dataset(KEY, data=metadata, dtype=h5py.string_dtype())
    nodes = group.create_group("nodes")
    for name, node in net.nodes.items():
        if isinstance(node, Node):
            _write_node(nodes.create_group(name), node)
        else:
            _write_graph(nodes.create_group(name), node, None)


def _write_node(group: Any, node: Node) -> None:
    import h5py

    group.create_dataset("type", data=node.kind, dtype=h5py.string_dtype())
    for key, value in sorted(node.fields.items()):
        _write_value(group, key, value)


def _write_value(group: Any, key: str, value: Value) -> None:
    import h5py

    if isinstance(value, str):
        group.create_dataset(key, data=value, dtype=h5py.string_dtype())
    elif value.ndim:
        group.create_dataset(key, data=value, dtype=value.dtype, compression="gzip")
    else:  # HDF5 packs no single numbers
        group.create_dataset(key, data=value[()])

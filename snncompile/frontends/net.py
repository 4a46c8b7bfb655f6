"""``network.net``, the HDF5 file of lava-dl, as a graph in the machine's integers (level ``fixed``).

The format as lava-dl 0.6.0 reads it (``lava/lib/dl/netx/hdf5.py``, ``netx/utils.py``, ``netx/blocks/process.py``): a
numbered list of layers ``layer/<i>``, each a synapse with its neurons; ``net_layers.py`` says what each becomes. Here
the file itself is read, and nothing in it is believed: every dataset lies in this file (no links, no external storage),
is as large as its bytes can make it, and holds finite integers where integers are meant.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError, ReadError
from snncompile.frontends.hdf5 import MOST_PACKED, File, opened
from snncompile.frontends.net_layers import build
from snncompile.frontends.net_record import Layer
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program

Array = NDArray[Any]
MOST_LAYERS = 1024
_DATASETS = (
    *("type", "shape", "weight", "weight_rec", "weight/real", "weight/imag", "bias", "delay", "messageBits", "addends"),
    *(
        "inFeatures",
        "outFeatures",
        "inChannels",
        "outChannels",
        "kernelSize",
        "stride",
        "padding",
        "dilation",
        "groups",
    ),
    *(
        f"neuron/{key}"
        for key in (
            *("type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike"),
            *("activation", "sigma_output", "sinDecay", "cosDecay"),
        )
    ),
)


def read(path: Path, layers: int | None = None) -> Program:
    """Read a ``.net``; ``layers``: only the first so many of them (as ``num_layers`` of netx).

    The program's ``steps`` are ``simulation/tSample`` where the file says so, else 1. Raises ``ReadError`` naming file,
    layer and dataset; ``UnsupportedNode`` for a layer or a neuron that has no meaning here.
    """
    where = str(path)
    with opened(path, ".net") as file:
        found = _layers(file, where, layers)
        steps = _steps(file, where)
    try:
        graph = build(found)
        check(graph, "read")
    except GraphError as error:
        raise ReadError("its layers do not fit together", where=where, why=str(error)) from error
    return Program(graph, "fixed", "loihi", steps, stream=not any(edge.delay for edge in graph.edges))


def read_graph(path: Path, layers: int | None = None) -> Graph:
    """The graph of ``read``."""
    return read(path, layers).graph


def _layers(file: File, where: str, most: int | None) -> list[Layer]:
    group = file.inside(file.root, "layer", where)
    if group is None or not hasattr(group, "keys"):
        raise ReadError("has no group 'layer'", where=where, remedy="give a file that lava-dl's netx reads")
    count = len(group)
    if not 0 < count <= MOST_LAYERS:
        raise ReadError(f"has {count} layers", where=where, why=f"1 to {MOST_LAYERS} are read")
    found = []
    for index in range(count if most is None else min(most, count)):
        place = f"{where}: layer/{index}"
        layer = file.inside(group, str(index), where)
        if layer is None or not hasattr(layer, "keys"):
            raise ReadError("is missing", where=place, why=f"the file numbers {count} layers from 0")
        datasets: dict[str, Array] = {}
        for key in _DATASETS:
            array = _dataset(file, layer, key, place)
            if array is not None:
                datasets[key] = array
        found.append(Layer(place, index, datasets))
    return found


def _dataset(file: File, layer: Any, key: str, where: str) -> Array | None:
    import h5py

    dataset = file.inside(layer, key, where)
    if dataset is None or (isinstance(dataset, h5py.Group) and key == "weight"):
        return None  # complex weights are a group: weight/real, weight/imag
    if not isinstance(dataset, h5py.Dataset):
        raise ReadError(f"{key} is no dataset", where=where)
    if dataset.shape is not None and file.is_text(dataset):
        if prod(dataset.shape) != 1 or dataset.dtype.itemsize > MOST_PACKED:
            raise ReadError(f"{key} is no single word", where=where)
        return np.asarray(file.texts(dataset, key, where, 1)[0][:64])
    return file.numbers(dataset, key, where)


def _steps(file: File, where: str) -> int:
    simulation = file.inside(file.root, "simulation", where)
    if simulation is None:
        return 1
    array = _dataset(file, simulation, "tSample", where)
    if array is None:
        return 1
    if array.size != 1 or array.dtype.kind not in "iuf" or not 1 <= array.item() < 2**31:
        raise ReadError("simulation/tSample is no number of steps", where=where)
    return int(array.item())

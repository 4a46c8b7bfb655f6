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
from snncompile.frontends.net_layers import build
from snncompile.frontends.net_record import Layer
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program

Array = NDArray[Any]
MOST_LAYERS = 1024
MOST_NUMBERS = 1 << 27
"""The largest dataset that is read: 1 GiB as float64."""
MOST_PACKED = 1100
"""Numbers that one stored byte can unpack to: the most that DEFLATE reaches is 1032 to 1."""

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
    import h5py

    where = str(path)
    if not path.is_file():
        raise ReadError("no such file", where=where)
    try:
        with h5py.File(path, "r") as file:
            found = _layers(file, where, layers)
            steps = _steps(file, where)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise ReadError("is no .net, or a damaged one", where=where, why=_first_line(error)) from error
    try:
        graph = build(found)
        check(graph, "read")
    except GraphError as error:
        raise ReadError("its layers do not fit together", where=where, why=str(error)) from error
    return Program(graph, "fixed", "loihi", steps, stream=not any(edge.delay for edge in graph.edges))


def read_graph(path: Path, layers: int | None = None) -> Graph:
    """The graph of ``read``."""
    return read(path, layers).graph


def _layers(file: Any, where: str, most: int | None) -> list[Layer]:
    group = _inside(file, "layer", where)
    if group is None or not hasattr(group, "keys"):
        raise ReadError("has no group 'layer'", where=where, remedy="give a file that lava-dl's netx reads")
    count = len(group)
    if not 0 < count <= MOST_LAYERS:
        raise ReadError(f"has {count} layers", where=where, why=f"1 to {MOST_LAYERS} are read")
    found = []
    for index in range(count if most is None else min(most, count)):
        place = f"{where}: layer/{index}"
        layer = _inside(group, str(index), where)
        if layer is None or not hasattr(layer, "keys"):
            raise ReadError("is missing", where=place, why=f"the file numbers {count} layers from 0")
        datasets: dict[str, Array] = {}
        for key in _DATASETS:
            array = _dataset(layer, key, place)
            if array is not None:
                datasets[key] = array
        found.append(Layer(place, index, datasets))
    return found


def _inside(group: Any, key: str, where: str) -> Any:
    """The member of a group, or None; a link that leaves the place where it stands is refused."""
    import h5py

    at = group
    for part in key.split("/"):
        if not isinstance(at, h5py.Group):
            return None
        link = at.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ReadError(f"{key} is a link to somewhere else", where=where, remedy="store the data in the file")
        at = at[part]
    return at


def _dataset(layer: Any, key: str, where: str) -> Array | None:
    import h5py

    dataset = _inside(layer, key, where)
    if dataset is None or (isinstance(dataset, h5py.Group) and key == "weight"):
        return None  # complex weights are a group: weight/real, weight/imag
    if not isinstance(dataset, h5py.Dataset):
        raise ReadError(f"{key} is no dataset", where=where)
    if dataset.is_virtual or dataset.external:
        raise ReadError(f"{key} lies in another file", where=where, remedy="store the data in the file")
    if dataset.shape is None:
        raise ReadError(f"{key} is empty", where=where)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        if prod(dataset.shape) != 1 or dataset.dtype.itemsize > MOST_PACKED:
            raise ReadError(f"{key} is no single word", where=where)
        return np.asarray(_word(np.asarray(dataset[()]).reshape(-1)[0]))
    if dataset.dtype.kind not in "biuf":
        raise ReadError(f"{key} holds {dataset.dtype}, not numbers", where=where)
    numbers, stored = prod(dataset.shape), int(dataset.id.get_storage_size())
    if numbers > min(MOST_NUMBERS, max(1, stored) * MOST_PACKED) and numbers > 64:
        why = f"{numbers:,} numbers, of which {stored:,} bytes are stored"
        raise ReadError(f"{key} claims the shape {list(dataset.shape)}", where=where, why=why)
    array = np.asarray(dataset[()])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ReadError(f"{key} holds {int(np.sum(~np.isfinite(array)))} values that are no numbers", where=where)
    return array


def _word(value: Any) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text[:64].rstrip("\0")


def _steps(file: Any, where: str) -> int:
    simulation = _inside(file, "simulation", where)
    if simulation is None:
        return 1
    array = _dataset(simulation, "tSample", where)
    if array is None:
        return 1
    if array.size != 1 or array.dtype.kind not in "iuf" or not 1 <= array.item() < 2**31:
        raise ReadError("simulation/tSample is no number of steps", where=where)
    return int(array.item())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")

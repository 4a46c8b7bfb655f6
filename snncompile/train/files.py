"""Data in files of the user: ``.npz``, ``.npy``, NIR data."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.train import formats
from snncompile.train.data import Split
from snncompile.train.formats import Labels


def from_file(
    path: Path, count: int | None, shape: Sequence[int] | None, steps: int | None, dt: float | None, node: str
) -> Split:
    """``x`` and ``y`` of a file; ``shape`` tells images from frames. Raises ``ReadError``."""
    where = str(path)
    if shape is None:
        raise ReadError("needs the network's input shape", where=where, why="it tells images from frames")
    arrays = recorded(path, shape, steps, dt, node) if path.suffix == ".nir" else formats.read_arrays(path)
    if "x" not in arrays:
        raise ReadError(f"holds {', '.join(arrays) or 'nothing'}", where=where, why="the samples are called x")
    x = arrays["x"]
    if x.dtype.kind not in "buif" or not np.isfinite(x).all():
        raise ReadError(f"x ({x.dtype}) holds something that is not a finite number", where=where)
    static = x.shape[1:] == tuple(shape)
    if not static and x.shape[2:] != tuple(shape):
        wanted = ", ".join(map(str, shape))
        raise ReadError(
            f"x is {list(x.shape)}", where=where, why=f"the network takes [N, {wanted}] or [N, T, {wanted}]"
        )
    if not static and steps is not None and x.shape[1] != steps:
        raise ReadError(f"x has {x.shape[1]} steps", where=where, why=f"the network runs {steps}")
    x, y = x[:count], labels_of(arrays.get("y"), len(x), count, where)
    return Split(where, "", np.ascontiguousarray(x, np.float32), y, static, ())


def labels_of(y: NDArray[Any] | None, samples: int, count: int | None, where: str) -> Labels | None:
    """The labels of a file, one a sample."""
    if y is None:
        return None
    if y.dtype.kind not in "iu" or y.shape[1:] or len(y) != samples:
        raise ReadError(f"y is {y.dtype} {list(y.shape)}", where=where, why=f"integers [{samples}], one label a sample")
    return y[:count].astype(np.int64)


def recorded(
    path: Path, shape: Sequence[int], steps: int | None, dt: float | None, node: str
) -> dict[str, NDArray[Any]]:
    """NIR data as ``x`` [N, T, *shape]: they hold the neurons of a node as one axis."""
    from snncompile.frontends.nir_data import read_input

    values = read_input(path, node, dt, steps)
    fits = prod(shape) == values.shape[2]
    return {"x": values.reshape(*values.shape[:2], *shape) if fits else values}

"""Data in files of the user: ``.npz``, ``.npy``, NIR data; for one input, or for several by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.train import formats
from snncompile.train.data import Split
from snncompile.train.formats import Labels


def several(
    path: Path, count: int | None, inputs: Mapping[str, Sequence[int]], steps: int | None, dt: float | None
) -> Split:
    """Frames for several inputs, from a file that holds them by name: ``x`` [N] has a field [T, *shape] for each."""
    if path.suffix == ".npy":
        raise ReadError(f"holds one array, the network has {len(inputs)} inputs", where=str(path))
    arrays = {} if path.suffix == ".nir" else formats.read_arrays(path)
    found: dict[str, NDArray[Any]] = {}
    for name, shape in inputs.items():
        one = _recorded(path, shape, steps, dt, name)["x"] if path.suffix == ".nir" else arrays.get(name)
        if one is None or one.ndim < 2 or one.shape[2:] != tuple(shape):
            what = f"its {name} is {list(one.shape)}" if one is not None else f"lacks {name}"
            raise ReadError(what, where=str(path), why=f"[N, T, {', '.join(map(str, shape))}]")
        if one.dtype.kind not in "buif" or not np.isfinite(one).all():
            raise ReadError(f"{name} ({one.dtype}) holds something that is not a finite number", where=str(path))
        found[name] = one.astype(np.float32)
    sizes = {one.shape[:2] for one in found.values()}
    if len(sizes) != 1:
        raise ReadError(f"its inputs differ in samples and steps: {sorted(sizes)}", where=str(path))
    ((samples, length),) = sizes
    if steps is not None and length != steps:
        raise ReadError(f"its inputs have {length} steps", where=str(path), why=f"the network runs {steps}")
    x = np.empty(samples, dtype=[(name, np.float32, one.shape[1:]) for name, one in found.items()])
    for name, one in found.items():
        x[name] = one
    return Split(str(path), "", x[:count], _labels(arrays.get("y"), samples, count, str(path)), False, ())


def from_file(
    path: Path, count: int | None, shape: Sequence[int] | None, steps: int | None, dt: float | None, node: str
) -> Split:
    """``x`` and ``y`` of a file; ``shape`` tells images from frames. Raises ``ReadError``."""
    where = str(path)
    if shape is None:
        raise ReadError("needs the network's input shape", where=where, why="it tells images from frames")
    arrays = _recorded(path, shape, steps, dt, node) if path.suffix == ".nir" else formats.read_arrays(path)
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
    x, y = x[:count], _labels(arrays.get("y"), len(x), count, where)
    return Split(where, "", np.ascontiguousarray(x, np.float32), y, static, ())


def _labels(y: NDArray[Any] | None, samples: int, count: int | None, where: str) -> Labels | None:
    """The labels of a file, one a sample."""
    if y is None:
        return None
    if y.dtype.kind not in "iu" or y.shape[1:] or len(y) != samples:
        raise ReadError(f"y is {y.dtype} {list(y.shape)}", where=where, why=f"integers [{samples}], one label a sample")
    return y[:count].astype(np.int64)


def _recorded(
    path: Path, shape: Sequence[int], steps: int | None, dt: float | None, node: str
) -> dict[str, NDArray[Any]]:
    """NIR data as ``x`` [N, T, *shape]: they hold the neurons of a node as one axis."""
    from snncompile.frontends.nir_data import read_input

    values = read_input(path, node, dt, steps)
    fits = prod(shape) == values.shape[2]
    return {"x": values.reshape(*values.shape[:2], *shape) if fits else values}

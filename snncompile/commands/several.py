"""Data for a network of several inputs: a file with an array for each, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snncompile.errors import ReadError
from snncompile.ir.ops import Shape
from snncompile.run.stimulus import Array, Inputs

if TYPE_CHECKING:
    from snncompile.train.formats import Labels
    from snncompile.train.set_batches import NirBatches
    from snncompile.train.streamed import Streamed


def load_several(
    spec: str, inputs: Mapping[str, Shape], steps: int | None, dt: float | None = None
) -> tuple[Inputs, Labels | None]:
    """``FILE.npz[:count]``: for every input an array of its name, images [N, *shape] or frames [N, T, *shape], and
    labels ``y`` [N] where there are any (and no input has that name). ``FILE.nir[:count]``: NIR data with a node of
    the name of every input; ``dt`` is the length of a step, where the network says one.

    All arrays hold as many samples and all frames as many steps: ``steps``, where the network has a number of its own.
    Raises ``ReadError``.
    """
    file = re.fullmatch(r"(.+\.(?:npz|nir))(?::([1-9]\d{0,10}))?", spec)
    if file is None:
        remedy = f"an .npz with the arrays {', '.join(inputs)}, or NIR data with nodes of those names"
        raise ReadError(f"is no file for {len(inputs)} inputs", where=spec, remedy=remedy)
    arrays = _arrays(Path(file[1]), inputs, steps, dt)
    missing = [name for name in inputs if name not in arrays]
    if missing:
        why = f"it holds {', '.join(arrays) or 'nothing'}; the network's inputs are {', '.join(inputs)}"
        raise ReadError(f"has no array {missing[0]!r}", where=spec, why=why)
    count = int(file[2]) if file[2] else None
    found = {name: _numbers(spec, name, arrays[name], shape)[:count] for name, shape in inputs.items()}
    _agree(spec, found, inputs, steps)
    samples = len(next(iter(found.values())))
    labels = None if "y" in inputs else arrays.get("y")
    if labels is not None:
        labels = labels[:count]
        if labels.dtype.kind not in "iu" or labels.shape != (samples,):
            why = f"integers [{samples}], one label a sample"
            raise ReadError(f"y is {labels.dtype} {list(labels.shape)}", where=spec, why=why)
        labels = labels.astype(np.int64)
    return Inputs(found), labels


@dataclass(frozen=True)
class Together:
    """The samples of several inputs batch by batch, each from its own place in one file."""

    parts: Mapping[str, Streamed | NirBatches]
    y: Labels | None
    steps: int | None  # of frames; None: all of them are images

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def batches(self, first: int, last: int, size: int) -> Iterator[Inputs]:
        """Samples [first, last), ``size`` at a time. Raises ``ReadError``."""
        for arrays in zip(*(part.batches(first, last, size) for part in self.parts.values()), strict=True):
            yield Inputs(dict(zip(self.parts, arrays, strict=True)))


def several_batches(
    spec: str, inputs: Mapping[str, Shape], steps: int | None, dt: float | None = None
) -> Together | None:
    """``load_several``, batch by batch; None where data are not as they should be: reading them whole says what is
    wrong.
    """
    from snncompile.train.set_batches import nir_batches
    from snncompile.train.streamed import streamed

    if re.fullmatch(r".+\.npy(:\d+)?", spec):  # one array
        return None
    parts: dict[str, Streamed | NirBatches] = {}
    for name, shape in inputs.items():
        part = nir_batches(spec, name, shape, steps, dt) or streamed(spec, shape, steps, name)
        if part is None:
            return None
        parts[name] = part
    some = list(parts.values())
    frames = {part.steps for part in some} - {None}
    if len({len(part) for part in some}) != 1 or len(frames) > 1:
        return None
    return Together(parts, None if "y" in inputs else some[0].y, next(iter(frames), None))


def _arrays(path: Path, inputs: Mapping[str, Shape], steps: int | None, dt: float | None) -> dict[str, Array]:
    """What a file holds, by name."""
    from snncompile.train.files import recorded
    from snncompile.train.formats import read_arrays

    if path.suffix == ".npz":
        return read_arrays(path)
    return {name: recorded(path, shape, steps, dt, name)["x"] for name, shape in inputs.items()}


def frame_steps(x: Inputs, inputs: Mapping[str, Shape]) -> int | None:
    """The steps of frames; None where all inputs are images."""
    return next((array.shape[1] for name, array in x.arrays.items() if array.shape[1:] != inputs[name]), None)


def _numbers(spec: str, name: str, values: Array, shape: Shape) -> Array:
    if values.dtype.kind not in "buif" or not np.isfinite(values).all():
        raise ReadError(f"{name} ({values.dtype}) holds something that is not a finite number", where=spec)
    if values.shape[1:] != shape and (values.ndim < 2 or values.shape[2:] != shape):
        wanted = ", ".join(map(str, shape))
        why = f"the network takes [N, {wanted}] or [N, T, {wanted}]"
        raise ReadError(f"{name} is {list(values.shape)}", where=spec, why=why)
    return np.ascontiguousarray(values, np.float32)


def _agree(spec: str, found: Mapping[str, Array], inputs: Mapping[str, Shape], steps: int | None) -> None:
    samples = {name: len(array) for name, array in found.items()}
    if len(set(samples.values())) != 1:
        told = ", ".join(f"{name} {count}" for name, count in samples.items())
        raise ReadError("its inputs differ in samples", where=spec, why=told)
    if not next(iter(samples.values())):
        raise ReadError("holds no samples", where=spec)
    frames = {name: array.shape[1] for name, array in found.items() if array.shape[1:] != inputs[name]}
    wanted = {steps} if steps is not None else set(frames.values())
    if set(frames.values()) - wanted or len(wanted) > 1:
        told = ", ".join(f"{name} {count}" for name, count in frames.items())
        why = told if steps is None else f"{told}; the network runs {steps}"
        raise ReadError("its frames differ in steps", where=spec, why=why)

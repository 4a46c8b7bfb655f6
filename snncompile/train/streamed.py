"""The samples of an ``.npy`` or ``.npz`` read batch after batch: what is in memory does not grow with the file."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.train.formats import UNREADABLE, Labels

Array = NDArray[Any]


@dataclass(frozen=True)
class Streamed:
    """``x`` of a file (or the array ``name``), [samples, ...]; ``y`` is in memory. A record of plain values, so that
    processes can share it.
    """

    path: Path
    samples: int
    shape: tuple[int, ...]  # of a sample
    steps: int | None  # of frames; None: images
    dtype: str
    begins: int  # at this byte of the array's file
    y: Labels | None
    name: str = "x"

    def __len__(self) -> int:
        return self.samples

    def first(self, samples: int) -> Streamed:
        """The first so many samples alone."""
        return replace(self, samples=samples, y=None if self.y is None else self.y[:samples])

    def batches(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, as float32. ``ReadError``: they end, or are not finite."""
        for x in self.read(first, last, size):
            if not np.isfinite(x).all():
                what = f"{self.name} ({x.dtype}) holds something that is not a finite number"
                raise ReadError(what, where=str(self.path))
            yield np.ascontiguousarray(x, np.float32)

    def read(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, as they are in the file. ``ReadError``: they end."""
        each = np.dtype(self.dtype).itemsize * prod(self.shape)
        with ExitStack() as stack:
            file = _opened(self.path, self.name, stack)
            file.seek(self.begins + first * each)
            for at in range(first, last, size):
                count = min(size, last - at)
                content = _read(file, count * each, self.path)
                yield np.frombuffer(content, dtype=self.dtype).reshape(count, *self.shape)


def streamed(spec: str, shape: Sequence[int], steps: int | None, name: str = "x") -> Streamed | None:
    """The samples that ``FILE.npy[:count]`` or ``FILE.npz[:count]`` holds for a network; None for anything else, and
    for a file that is not as it should be: reading it whole says what is wrong. ``steps``: of frames, None: any number.
    ``name``: of the array in an ``.npz``.
    """
    found = re.fullmatch(r"(.+\.np[yz])(?::([1-9]\d{0,10}))?", spec)
    if found is None:
        return None
    held = described(Path(found[1]), name)
    if held is None:
        return None
    image, frames = held.shape == tuple(shape), held.shape[1:] == tuple(shape)
    if not image and not (frames and held.shape[0] and held.shape[0] == (steps or held.shape[0])):
        return None
    samples = min(len(held), int(found[2])) if found[2] else len(held)
    return replace(held.first(samples), steps=None if image else held.shape[0])


def described(path: Path, name: str = "x") -> Streamed | None:
    """An array of a file, of any shape; None where it holds none that can be read batch by batch."""
    try:
        with ExitStack() as stack:
            file = _opened(path, name, stack)
            held, by_columns, dtype = _header(file)
            begins = file.tell()
        labels = _labels(path)
    except UNREADABLE:
        return None
    if not held or not held[0] or by_columns or dtype.kind not in "buif":
        return None
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != held[:1]):
        return None
    y = None if labels is None else labels.astype(np.int64)
    return Streamed(path, held[0], tuple(held[1:]), None, dtype.str, begins, y, name)


def _opened(path: Path, name: str, stack: ExitStack) -> IO[bytes]:
    """The file of an array, at its begin."""
    if path.suffix == ".npy":
        return stack.enter_context(path.open("rb"))
    archive = stack.enter_context(zipfile.ZipFile(path))
    return stack.enter_context(archive.open(f"{name}.npy"))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    return shape, by_columns, dtype


def _labels(path: Path) -> Array | None:
    if path.suffix == ".npy":
        return None
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return np.asarray(archive["y"]) if "y" in archive.files else None


def _read(file: IO[bytes], size: int, path: Path) -> bytes:
    try:
        content = file.read(size)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ReadError("is no array file that can be read", where=str(path), why=str(error)) from error
    if len(content) < size:
        raise ReadError("is no array file that can be read", where=str(path), why="it ends too early")
    return content

"""The samples of an ``.npy`` or ``.npz`` read batch after batch: what is in memory does not grow with the file."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.train.formats import Labels

Array = NDArray[Any]


@dataclass(frozen=True)
class Streamed:
    """``x`` of a file, [samples, ...]; ``y`` is in memory. A record of plain values, so that processes can share it."""

    path: Path
    samples: int
    shape: tuple[int, ...]  # of a sample
    dtype: str
    begins: int  # at this byte of the array's file
    y: Labels | None

    def __len__(self) -> int:
        return self.samples

    def batches(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last), ``size`` at a time, as float32. ``ReadError``: they end, or are not finite."""
        each = np.dtype(self.dtype).itemsize * prod(self.shape)
        with ExitStack() as stack:
            file = _opened(self.path, stack)
            file.seek(self.begins + first * each)
            for at in range(first, last, size):
                count = min(size, last - at)
                content = _read(file, count * each, self.path)
                x = np.frombuffer(content, dtype=self.dtype).reshape(count, *self.shape)
                if not np.isfinite(x).all():
                    raise ReadError(f"x ({x.dtype}) holds something that is not a finite number", where=str(self.path))
                yield np.ascontiguousarray(x, np.float32)


def streamed(spec: str, shape: Sequence[int], steps: int) -> Streamed | None:
    """The samples that ``FILE.npy[:count]`` or ``FILE.npz[:count]`` holds for a network; None for anything else, and
    for a file that is not as it should be: reading it whole says what is wrong.
    """
    found = re.fullmatch(r"(.+\.np[yz])(?::([1-9]\d{0,10}))?", spec)
    if found is None:
        return None
    path = Path(found[1])
    try:
        with ExitStack() as stack:
            file = _opened(path, stack)
            held, by_columns, dtype = _header(file)
            begins = file.tell()
        labels = _labels(path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    fits = tuple(held[1:]) in (tuple(shape), (steps, *shape)) and held[0] > 0
    if not fits or by_columns or dtype.kind not in "buif":
        return None
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != held[:1]):
        return None
    samples = min(held[0], int(found[2])) if found[2] else held[0]
    y = None if labels is None else labels[:samples].astype(np.int64)
    return Streamed(path, samples, tuple(held[1:]), dtype.str, begins, y)


def _opened(path: Path, stack: ExitStack) -> IO[bytes]:
    """The file of the array ``x``, at its begin."""
    if path.suffix == ".npy":
        return stack.enter_context(path.open("rb"))
    archive = stack.enter_context(zipfile.ZipFile(path))
    return stack.enter_context(archive.open("x.npy"))


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

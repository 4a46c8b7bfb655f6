"""HDF5 files that others wrote, read without believing them.

Every dataset lies in the file itself (no links, no external storage, no virtual datasets), is as large as its bytes can
make it, unpacks to exactly its size, and holds finite numbers or short texts. What a file may take of memory is bounded
by its own size.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError

Array = NDArray[Any]
MOST_NUMBERS = 1 << 27
"""The largest dataset that is read: 1 GiB as float64."""
MOST_PACKED = 1100
"""Numbers that one stored byte can unpack to: the most that DEFLATE reaches is 1032 to 1."""
SMALL = 1 << 26
"""What a file of any size may unpack to: 64 MiB."""
MOST_GAIN = 200
"""How much larger than the file all that is read of it may be, where that is more than ``SMALL``."""
MOST_TEXT = 1 << 16
_DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    zlib.error,
    EOFError,
)
_DEFLATE, _SHUFFLE, _FLETCHER, _LZF = 1, 2, 3, 32000


class File:
    """An open file: what it has given so far counts against what it may give."""

    def __init__(self, path: Path, file: Any) -> None:
        self.where, self.root = str(path), file
        self.size = path.stat().st_size
        self.left = max(SMALL, MOST_GAIN * self.size)

    def inside(self, group: Any, key: str, where: str) -> Any:
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

    def numbers(self, dataset: Any, key: str, where: str, *, finite: bool = True, rows: slice | None = None) -> Array:
        """The numbers of a dataset, or of some rows of its first axis; all finite, unless its reader looks at that
        himself.
        """
        if dataset.dtype.kind not in "biuf":
            raise ReadError(f"{key} holds {dataset.dtype}, not numbers", where=where)
        self._admit(dataset, key, where, rows)
        array = np.asarray(dataset[() if rows is None else rows])
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.sum(~np.isfinite(array)))
            raise ReadError(f"{key} holds {bad} values that are no numbers", where=where)
        return array

    def texts(self, dataset: Any, key: str, where: str, most: int) -> list[str]:
        """The texts of a dataset, in C order; ``most``: how many."""
        count = prod(dataset.shape)
        if count > most:
            raise ReadError(f"{key} holds {count:,} texts", where=where, why=f"{most:,} are read")
        self._admit(dataset, key, where)
        if not dataset.shape:
            return [_text(self._pay(dataset[()], key, where))]
        row = max(1, count // dataset.shape[0]) if dataset.shape[0] else 1
        together = max(1, SMALL // max(1, self.size) // row)  # rows: a text is no longer than the file, but may recur
        found: list[str] = []
        for first in range(0, dataset.shape[0], together):
            part = np.asarray(dataset[first : first + together]).reshape(-1)
            found += [_text(self._pay(value, key, where)) for value in part]
        return found

    def is_text(self, dataset: Any) -> bool:
        import h5py

        return h5py.check_string_dtype(dataset.dtype) is not None

    def _pay(self, value: Any, key: str, where: str) -> Any:
        self.left -= len(value)
        if self.left < 0:
            raise ReadError(f"{key} unpacks to more than the file can hold", where=where)
        return value

    def _admit(self, dataset: Any, key: str, where: str, rows: slice | None = None) -> None:
        """Raise ``ReadError`` unless the bytes behind a dataset are here and make what it claims."""
        if dataset.is_virtual or dataset.external:
            raise ReadError(f"{key} lies in another file", where=where, remedy="store the data in the file")
        if dataset.shape is None:
            raise ReadError(f"{key} is empty", where=where)
        numbers, stored = prod(dataset.shape), int(dataset.id.get_storage_size())
        if numbers > min(MOST_NUMBERS, max(1, stored) * MOST_PACKED) and numbers > 64:
            why = f"{numbers:,} numbers, of which {stored:,} bytes are stored"
            raise ReadError(f"{key} claims the shape {list(dataset.shape)}", where=where, why=why)
        if stored > self.size:
            raise ReadError(f"{key} claims {stored:,} bytes", where=where, why=f"the file has {self.size:,}")
        self.left -= numbers * dataset.dtype.itemsize
        if self.left < 0:
            why = f"{self.size:,} bytes may unpack to {max(SMALL, MOST_GAIN * self.size):,}"
            raise ReadError(f"{key} unpacks to more than the file can hold", where=where, why=why)
        if dataset.chunks:
            _check_chunks(dataset, key, where, rows)


@contextmanager
def opened(path: Path, what: str) -> Iterator[File]:
    """A file of ``what``, open; whatever damage raises is a ``ReadError`` that says so."""
    import h5py

    where = str(path)
    if not path.is_file():
        raise ReadError("no such file", where=where)
    try:
        with h5py.File(path, "r") as file:
            yield File(path, file)
    except _DAMAGED as error:
        raise ReadError(f"is no {what}, or a damaged one", where=where, why=first_line(error)) from error


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.rstrip("\0")


def _check_chunks(dataset: Any, key: str, where: str, rows: slice | None = None) -> None:
    """Unpack every chunk (that holds any of these rows) as far as its size: the library itself follows a stream as far
    as it goes.
    """
    whole = prod(dataset.chunks) * dataset.dtype.itemsize
    if whole > max(SMALL // 16, 4 * prod(dataset.shape) * dataset.dtype.itemsize):
        raise ReadError(f"{key} is stored in pieces of {whole:,} bytes", where=where, why="more than all of it")
    plist = dataset.id.get_create_plist()
    filters = [int(plist.get_filter(index)[0]) for index in range(plist.get_nfilters())]
    if any(number not in (_DEFLATE, _SHUFFLE, _FLETCHER, _LZF) for number in filters):
        raise ReadError(f"{key} is packed with filter {filters[-1]}", where=where, remedy="use gzip")
    if _DEFLATE not in filters:
        return
    behind = 4 * filters[filters.index(_DEFLATE) :].count(_FLETCHER)
    for index in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(index)
        if rows is not None and not rows.start - dataset.chunks[0] < chunk.chunk_offset[0] < rows.stop:
            continue
        skipped, packed = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if skipped:
            continue  # stored as it is
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed[: len(packed) - behind], whole + 1)
        if len(content) > whole or (not unpacker.eof and unpacker.unconsumed_tail):
            raise ReadError(f"{key} unpacks to more than its size", where=where, why=f"pieces of {whole:,} bytes")

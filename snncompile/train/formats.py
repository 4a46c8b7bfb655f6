"""Readers of the data sets' original file formats. Every file that is not what it says raises ReadError."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.ir import store

UNREADABLE = (*store.UNREADABLE, KeyError)
Bytes = NDArray[np.uint8]
Labels = NDArray[np.int64]


def read_idx(path: Path, axes: int) -> Bytes:
    """An IDX file of unsigned bytes (MNIST), plain or gzipped, with ``axes`` axes: 1 for labels, 3 for images.

    Format: two zero bytes, 8 for the type, the number of axes, one big-endian 32-bit size an axis, the values.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            magic = file.read(4)
            if magic != bytes((0, 0, 8, axes)):
                raise ReadError(f"starts with {magic.hex(' ')}", where=str(path), why=f"IDX: 00 00 08 0{axes}")
            header = file.read(4 * axes)
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4")) if len(header) == 4 * axes else (0,)
            body = file.read(prod(shape) + 1)
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise ReadError("cannot be read", where=str(path), why=str(error) or type(error).__name__) from error
    if len(body) != prod(shape) or len(header) != 4 * axes:
        found = f"{len(body)}" if len(body) < prod(shape) else "more"
        raise ReadError(
            f"holds {found} values, its header says {list(shape)}", where=str(path), remedy="fetch it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_cifar_binary(path: Path, classes: int = 10) -> tuple[Bytes, Labels]:
    """Images [N, 3, 32, 32] and labels of an official ``data_batch_1.bin``: records of 1 + 3072 bytes.

    With 100 classes, of CIFAR-100's ``train.bin``: the coarse label comes before the fine one, and is not used.
    """
    body = _bytes(path)
    labels = 1 if classes == 10 else 2
    record = labels + 3 * 32 * 32
    if not body.size or body.size % record:
        raise ReadError(
            f"{body.size} bytes are no whole number of records", where=str(path), why=f"{record} bytes each"
        )
    records = body.reshape(-1, record)
    return records[:, labels:].reshape(-1, 3, 32, 32), _classes(path, records[:, labels - 1], classes)


def read_events(path: Path) -> tuple[Labels, Labels, Labels, Labels]:
    """x, y, polarity (1: on) and time in microseconds of an N-MNIST recording (official ``.bin``, or ``.bs2``).

    Five bytes an event, big-endian: x (8 bits), y (8), polarity (1), time (23).
    """
    body = _bytes(path)
    if not body.size or body.size % 5:
        raise ReadError(f"{body.size} bytes are no whole number of events", where=str(path), why="5 bytes each")
    b = body.reshape(-1, 5).astype(np.int64)
    return b[:, 0], b[:, 1], b[:, 2] >> 7, (b[:, 2] & 127) << 16 | b[:, 3] << 8 | b[:, 4]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz``, or the one of an ``.npy`` as ``x``; no pickles."""
    try:
        with path.open("rb") as file:  # opened here: numpy leaves a file open whose archive is damaged
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            return {name: loaded[name] for name in loaded.files}
    except (*UNREADABLE, MemoryError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ReadError("is no array file that can be read", where=str(path), why=why) from error


# Official CIFAR-10 for Python: a pickle, of which only plain containers and one kind of array are admitted


def read_cifar_pickle(path: Path, classes: int = 10) -> tuple[Bytes, Labels]:
    """Images [N, 3, 32, 32] and labels of an official ``data_batch_1`` (Python version), or CIFAR-100's ``train``.

    The pickle may build containers, texts, numbers and arrays of unsigned bytes. Nothing it names is imported or
    called: the three names that an array needs lead to stand-ins of ours, any other name is refused.
    """
    try:
        with path.open("rb") as file:
            content = _Admitting(file, encoding="bytes").load()
    except ReadError:
        raise
    except Exception as error:  # a hostile pickle can raise anything while its opcodes are read
        raise ReadError("is no readable pickle", where=str(path), why=f"{type(error).__name__}: {error}") from error
    data = content.get(b"data") if isinstance(content, dict) else None
    key = "labels" if classes == 10 else "fine_labels"
    labels = content.get(key.encode()) if isinstance(content, dict) else None
    images = data.array if isinstance(data, _Array) else None
    if images is None or images.ndim != 2 or images.shape[1] != 3072 or not isinstance(labels, list):
        raise ReadError(f"is no CIFAR-{classes} batch", where=str(path), why=f"data: bytes [N, 3072], {key}: a list")
    if len(labels) != len(images) or not all(type(label) is int for label in labels):
        raise ReadError(f"has {len(images)} images and {len(labels)} labels", where=str(path))
    return images.reshape(-1, 3, 32, 32), _classes(path, np.array(labels, dtype=object), classes)


class _Array:
    """Stands in for ``numpy.ndarray``: takes the state of an array of bytes."""

    array: Bytes | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _UnsignedByte) or fortran or not isinstance(raw, bytes):
            raise ValueError("an array that is not of unsigned bytes in C order")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape)


class _UnsignedByte:
    """Stands in for ``numpy.dtype``, which may only be ``u1``."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", "|u1", b"u1", b"|u1"):
            raise ValueError(f"an array of type {code!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: nothing for single bytes."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


class _Admitting(pickle.Unpickler):
    admitted: ClassVar[dict[tuple[str, str], Callable[..., object]]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _UnsignedByte,
    }

    def __init__(self, file: io.BufferedReader, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.where = file.name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise ReadError(
                f"its pickle asks for {module}.{name}",
                where=str(self.where),
                why="a data set is bytes and numbers; nothing else is run",
                remedy="use the binary version",
            )
        return self.admitted[module, name]


def _bytes(path: Path) -> Bytes:
    try:
        return np.fromfile(path, np.uint8)
    except (OSError, MemoryError) as error:
        raise ReadError("cannot be read", where=str(path), why=str(error)) from error


def _classes(path: Path, labels: NDArray[Any], count: int) -> Labels:
    """Labels as int64, each from 0 to ``count`` - 1, else ReadError."""
    wrong = [int(label) for label in labels if not 0 <= label < count]
    if wrong:
        raise ReadError(f"label {wrong[0]} is none of {count} classes", where=str(path))
    return labels.astype(np.int64)

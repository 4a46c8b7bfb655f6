"""AEDAT, the files of jAER and cAER: version 2.0 (CIFAR10-DVS) and 3.1 (DVS128 Gesture).

Both begin with lines that start with ``#``; the first names the version.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.train.frames import Events

_POLARITY = 1
_HEADER = struct.Struct("<HHIIIIII")


def read_aedat2(path: Path) -> Events:
    """Events of an AEDAT 2.0 recording of a DVS128, upright, with times from its first event.

    Eight bytes an event, big-endian: an address and a time in microseconds, 32 bits each. In the address, bit 0 is 1
    for off, bits 1 to 7 are x and 8 to 14 are y of a sensor that lay on its side: column 127 - y, row 127 - x.
    """
    body, start = _after_lines(path, b"#!AER-DAT2.0")
    size = len(body) - start
    if not size or size % 8:
        raise ReadError(f"{size} bytes are no whole number of events", where=str(path), why="8 bytes each")
    pairs = np.asarray(body[start:]).view(">u4").reshape(-1, 2).astype(np.int64)
    address, time = pairs[:, 0], pairs[:, 1]
    return Events(
        x=127 - (address >> 8 & 127), y=127 - (address >> 1 & 127), polarity=1 - (address & 1), time=time - time.min()
    )


def read_aedat3(path: Path, start: int = 0, stop: int | None = None) -> Events:
    """Valid polarity events of an AEDAT 3.1 recording with ``start <= time < stop``; times count from ``start``.

    After the lines, which end with ``#!END-HEADER``, come packets: a header of 28 bytes (type, source, bytes an event,
    place of the time in an event, times the clock has run over, room, events, valid events), little-endian, and the
    events. A polarity event is eight bytes: valid (bit 0), polarity (1), y (2 to 16), x (17 to 31), and the time in
    microseconds. Only packets of that time are read from the disk.
    """
    body, packets = _packets(str(path), path.stat().st_mtime_ns if path.is_file() else 0)
    found: list[NDArray[np.int64]] = []
    for offset, count, size, high, first, last in packets:
        if last < start or (stop is not None and first >= stop):
            continue
        events = np.asarray(body[offset : offset + count * size]).reshape(count, size)
        words = np.ascontiguousarray(events[:, :8]).view("<u4").astype(np.int64)
        time = words[:, 1] + high
        kept = (words[:, 0] & 1 == 1) & (time >= start) & (time < stop if stop is not None else True)
        found.append(np.stack([words[kept, 0], time[kept]], axis=1))
    both = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    data, time = both[:, 0], both[:, 1]
    return Events(x=data >> 17 & 0x7FFF, y=data >> 2 & 0x7FFF, polarity=data >> 1 & 1, time=time - start)


@lru_cache(maxsize=4)
def _packets(path: str, _changed: int) -> tuple[Any, list[tuple[int, int, int, int, int, int]]]:
    """A recording on the disk, and its polarity packets: where the events begin, how many, bytes each, what their
    clock has run over, first and last time. Recordings hold many samples, which are read one after another."""
    body, offset = _after_lines(Path(path), b"#!AER-DAT3.1")
    packets = []
    while offset < len(body):
        if offset + _HEADER.size > len(body):
            raise ReadError("ends inside a packet", where=path, remedy="fetch it again")
        kind, _, size, place, over, room, count, _ = _HEADER.unpack(bytes(body[offset : offset + _HEADER.size]))
        offset += _HEADER.size
        if offset + room * size > len(body) or count > room:
            raise ReadError("ends inside a packet", where=path, why=f"{room} events of {size} bytes are announced")
        if kind == _POLARITY and count:
            if size != 8 or place != 4:
                raise ReadError(f"has polarity events of {size} bytes", where=path, why="AEDAT 3.1: 8 bytes")
            times = np.asarray(body[offset : offset + count * size]).reshape(count, size)[:, 4:].copy().view("<u4")
            high = over << 31
            packets.append((offset, count, size, high, int(times.min()) + high, int(times.max()) + high))
        offset += room * size
    return body, packets


def _after_lines(path: Path, version: bytes) -> tuple[Any, int]:
    """The bytes of a file, mapped, and where its lines end. Raises ReadError for another version."""
    try:
        body = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ReadError("cannot be read", where=str(path), why=str(error)) from error
    head = bytes(body[: 1 << 16])
    if not head.startswith(version):
        shown = head.split(b"\n", 1)[0][:20]
        raise ReadError(f"starts with {shown!r}", where=str(path), why=f"expected {version.decode()}")
    place = 0
    while head[place : place + 1] == b"#":
        end = head.find(b"\n", place)
        if end < 0:
            raise ReadError("has no end of its first lines", where=str(path))
        line, place = head[place:end], end + 1
        if line.startswith(b"#!END-HEADER"):
            break
    return body, place

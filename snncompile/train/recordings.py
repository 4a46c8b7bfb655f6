"""Data sets of event cameras: which recordings there are, and what each is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from snncompile.errors import ReadError
from snncompile.train import formats
from snncompile.train.aedat import read_aedat2, read_aedat3
from snncompile.train.frames import Cut, Events
from snncompile.train.places import PLACES, one_of
from snncompile.train.samples import Array, Decoded

SIDES = {"nmnist": 34, "cifar10-dvs": 128, "dvs-gesture": 128}
"""Sensors are square: so many pixels a side."""

GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise"),
    *("left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures"),
)


@dataclass(frozen=True)
class Recording:
    """A sample: the file it is in, how it is read, and its class. ``name`` tells it from the others."""

    path: Path
    label: int
    read: Callable[[Path], Events]
    name: str = ""


def recordings(name: str, folder: Path, split: str, classes: tuple[str, ...]) -> list[Recording]:
    """The recordings of a split, in an order that mixes the classes. Raises ReadError."""
    match name:
        case "nmnist":
            return _listed(folder, split) if (folder / "events").is_dir() else _foldered(folder, split)
        case "cifar10-dvs":
            return _by_class(folder, split, classes)
        case _:
            return _gestures(folder, split)


def framed(name: str, listed: list[Recording], cut: Cut, extent: tuple[int, int] | None) -> Decoded:
    """Their frames [N, T, 2, H, W], decoded when they are asked for; ``extent``: the sensor's own where None."""
    side = SIDES[name]
    height, width = extent or (side, side)
    if max(height, width) > side:
        why = f"its sensor has {side} x {side} pixels"
        raise ReadError(f"frames of {height} x {width}", where=name, why=why)

    def decode(index: int, _: np.random.Generator | None) -> Array:
        one = listed[index]
        return cut.frames(one.read(one.path), side, (height, width), one.path)

    identity = "\n".join(f"{one.path.name} {one.name} {one.label}" for one in listed) + f"\n{cut} {height} {width}"
    return Decoded(len(listed), (cut.steps, 2, height, width), cut.kind, decode, identity.encode())


# N-MNIST


def read_nmnist(path: Path) -> Events:
    """A recording of N-MNIST; its clock begins with it."""
    return Events(*formats.read_events(path))


def _foldered(folder: Path, split: str) -> list[Recording]:
    """The official layout, Train/7/00015.bin, in the order of the file names, which mixes the classes."""
    found = [
        Recording(path, digit, read_nmnist)
        for digit in range(10)
        for path in (folder / split.title() / str(digit)).glob("*.bin")
    ]
    if not found:
        raise ReadError(f"{folder / split.title()} holds no recordings", where="nmnist", remedy=PLACES["nmnist"].source)
    return sorted(found, key=lambda one: one.path.name)


def _listed(folder: Path, split: str) -> list[Recording]:
    """The 1,100-recording subset: events/ID.bs2, and a list of ids and classes."""
    path = one_of("nmnist", folder, ("train1K.txt" if split == "train" else "test100.txt",))
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return [Recording(folder / "events" / f"{int(row[0])}.bs2", int(row[1]), read_nmnist) for row in rows]
    except (OSError, ValueError, IndexError) as error:
        raise ReadError("is no list of ids and classes", where=str(path), why=str(error)) from error


# CIFAR10-DVS


def _by_class(folder: Path, split: str, classes: tuple[str, ...]) -> list[Recording]:
    """The official layout, airplane/cifar10_airplane_0.aedat; of every class, by number, the last 10 % are the test
    split: 9,000 and 1,000 recordings, as TET has them."""
    found: list[tuple[int, Recording]] = []
    for label, name in enumerate(classes):
        paths = [(int(match[1]), path) for path in (folder / name).glob("*.aedat") if (match := _number(path))]
        if not paths:
            remedy = f"the official source is {PLACES['cifar10-dvs'].source}"
            raise ReadError(f"{folder / name} holds no recordings", where="cifar10-dvs", remedy=remedy)
        paths.sort()
        first = len(paths) - len(paths) // 10
        chosen = paths[:first] if split == "train" else paths[first:]
        found += [(number, Recording(path, label, read_aedat2)) for number, path in chosen]
    return [one for _, one in sorted(found, key=lambda item: (item[0], item[1].label))]


def _number(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r".*?_(\d{1,9})\.aedat", path.name)


# DVS128 Gesture


def _gestures(folder: Path, split: str) -> list[Recording]:
    """The official layout: trials_to_train.txt and trials_to_test.txt name recordings, user01_led.aedat; beside each is
    user01_led_labels.csv with class (1 to 11), begin and end in microseconds of every gesture in it."""
    path = one_of("dvs-gesture", folder, (f"trials_to_{split}.txt",))
    names = [line.strip() for line in _lines(path) if line.strip()]
    found = []
    for name in names:
        recording = folder / Path(name).name
        table = recording.with_name(f"{recording.stem}_labels.csv")
        for row in _lines(table)[1:]:
            if row.strip():
                label, start, stop = _row(table, row)
                read = partial(read_aedat3, start=start, stop=stop)
                found.append(Recording(recording, label - 1, read, name=f"{start}-{stop}"))
    if not found:
        raise ReadError("names no recordings", where=str(path), remedy=PLACES["dvs-gesture"].source)
    return found


def _row(path: Path, row: str) -> tuple[int, int, int]:
    try:
        label, start, stop = (int(field) for field in row.split(","))
    except ValueError as error:
        raise ReadError(f"{row!r} is no class, begin and end", where=str(path)) from error
    if not 1 <= label <= len(GESTURES) or not 0 <= start < stop:
        raise ReadError(f"{row!r} is no gesture", where=str(path), why="class 1 to 11, then begin before end")
    return label, start, stop


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ReadError("cannot be read", where=str(path), why=str(error)) from error

"""Which data a recipe trains on, and how the network sees them: the table ``[data]``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from math import isfinite

from snncompile.recipe.architecture import Shape
from snncompile.sheet import Sheet

DATA_SETS = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar10-subset", "nmnist", "cifar10-dvs")
EVENT_SETS = ("nmnist", "cifar10-dvs")
"""Data sets that come as event frames, one frame a step; the others are images shown at every step."""


@dataclass(frozen=True)
class DataSettings:
    """Which data, and how the network sees them.

    Images are scaled to [0, 1], then ``(x - mean) / std`` per channel where given. Event frames hold counts, clipped
    at ``most`` (1: spikes; 0 for images).
    """

    name: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    most: int = 0

    @property
    def static(self) -> bool:
        """Whether one image is shown at every step."""
        return self.name not in EVENT_SETS


def read_data(sheet: Sheet, shape: Shape) -> DataSettings:
    """The table, checked against the network's input [channels, height, width]. Raises SheetError."""
    sheet.known("data", ("name", "mean", "std", "most"))
    name = sheet.text("data.name")
    if name not in DATA_SETS:
        close = difflib.get_close_matches(name, DATA_SETS, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"one of {', '.join(DATA_SETS)}"
        raise sheet.error("data.name", f"no data set {name!r}", remedy=remedy)
    most = sheet.integer("data.most") if sheet.has("data.most") else int(name in EVENT_SETS)
    if (name in EVENT_SETS) != (1 <= most <= 255):
        raise sheet.error("data.most", f"{most} is out of range", why="1 to 255 for event frames, 0 for images")
    mean, std = (_per_channel(sheet, f"data.{key}", shape[0]) for key in ("mean", "std"))
    if len(mean) != len(std) or min(std, default=1.0) <= 0.0:
        raise sheet.error("data.std", "mean and std go together, and std is positive")
    if mean and most:
        raise sheet.error("data.mean", "event counts are not normalised", why="they would stop being events")
    return DataSettings(name, mean, std, most)


def _per_channel(sheet: Sheet, key: str, channels: int) -> tuple[float, ...]:
    value = sheet.table("data").get(key.rpartition(".")[2], [])
    numbers = isinstance(value, list | tuple) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and isfinite(item) for item in value
    )
    if not isinstance(value, list | tuple) or not numbers or len(value) not in (0, channels):
        raise sheet.error(key, f"expected {channels} numbers, one a channel, found {value!r}")
    return tuple(float(item) for item in value)

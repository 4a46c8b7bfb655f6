"""Recordings of event cameras, cut into frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError

Array = NDArray[Any]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Events of a recording, in its order: pixel (x, y), polarity (1: on), time in microseconds from its start."""

    x: Integers
    y: Integers
    polarity: Integers
    time: Integers


@dataclass(frozen=True)
class Cut:
    """How a recording becomes ``steps`` frames::

        time           event at time t of 0 .. end goes to frame floor(t steps / (end + 1))
        count          of n events, number i goes to frame floor(i / k), k = max(1, floor(n / steps)); the up to
                       steps - 1 events that are left over are not seen (as TET's code has it)
        milliseconds   event at time t goes to frame floor(t / milliseconds); what comes after the last is not seen

    A frame counts the events of each polarity in each cell, channel 1: on. The pixel x of a sensor of width S is in
    cell floor(x W / S) of a frame of width W, and so with y: a smaller frame adds neighbours up and loses no event.
    With a ``window`` the pixels from there on are not seen, and S is the window.
    Counts are clipped at ``most``, or each frame is divided by its largest count (``division``).
    """

    steps: int
    most: int = 1
    by: Literal["time", "count", "milliseconds"] = "time"
    milliseconds: float = 0.0
    division: Literal["none", "maximum"] = "none"
    window: int = 0

    @property
    def kind(self) -> type[np.generic]:
        """What a frame is made of."""
        return np.uint8 if self.division == "none" else np.float32

    def counts(self, events: Events, side: int, extent: tuple[int, int], where: Path) -> Integers:
        """Events in each cell [T, 2, *extent] of a recording from a sensor of ``side`` by ``side`` pixels."""
        x, y = events.x, events.y
        if len(x) and max(x.max(), y.max()) >= side:
            what = f"an event at ({x.max()}, {y.max()}) is off the sensor"
            raise ReadError(what, where=str(where), why=f"{side} x {side} pixels")
        height, width = extent
        frame, side = self._frame(events), self.window or side
        seen = (frame < self.steps) & (x < side) & (y < side)
        cell = ((frame * 2 + events.polarity) * height + y * height // side) * width + x * width // side
        cells = self.steps * 2 * height * width
        found = np.bincount(cell[seen], minlength=cells)
        frames: Integers = found.reshape(self.steps, 2, height, width)
        return frames

    def frames(self, events: Events, side: int, extent: tuple[int, int], where: Path) -> Array:
        """What the network is shown, [T, 2, *extent]: counts as uint8, or shares of the largest as float32."""
        return self.limited(self.counts(events, side, extent, where))

    def limited(self, counts: Array) -> Array:
        """The same of counts [T, 2, H, W] that have been taken already."""
        if self.division == "none":
            return np.minimum(counts, self.most).astype(np.uint8)
        largest = np.maximum(counts.max(axis=(1, 2, 3), keepdims=True), 1)
        shares: Array = (counts / largest).astype(np.float32)
        return shares

    def _frame(self, events: Events) -> Integers:
        match self.by:
            case "time":
                frame: Integers = events.time * self.steps // (events.time.max(initial=0) + 1)
            case "count":
                size = max(1, len(events.time) // self.steps)
                frame = np.arange(len(events.time), dtype=np.int64) // size
            case "milliseconds":
                frame = np.minimum(events.time / (1000.0 * self.milliseconds), self.steps).astype(np.int64)
        return frame

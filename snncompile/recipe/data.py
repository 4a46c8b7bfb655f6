"""Which data a recipe trains on, and how the network sees them: the table ``[data]``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from snncompile.recipe.architecture import Shape
from snncompile.recipe.methods import MODERATE, MOST, moderate
from snncompile.sheet import Sheet

DATA_SETS = (
    *("digits", "mnist", "fashion-mnist", "cifar10", "cifar10-subset", "cifar100", "imagenet"),
    *("nmnist", "cifar10-dvs", "dvs-gesture"),
)
EVENT_SETS = ("nmnist", "cifar10-dvs", "dvs-gesture")
"""Data sets that come as event frames, one frame a step; the others are images shown at every step."""


@dataclass(frozen=True)
class DataSettings:
    """Which data, and how the network sees them.

    Images are scaled to [0, 1], then ``(x - mean) / std`` per channel where given. Recordings are cut into ``frames``,
    one a step: of equal time, of an equal count of events, or of ``milliseconds`` each. Event frames hold counts,
    clipped at ``most`` (1: spikes; 0 for images); with ``division = "maximum"`` each is divided by its largest count
    instead, and is no longer made of events. Of a sensor only the first ``window`` pixels each way are seen (0: all).
    ``augment`` is what training samples undergo:

        crop-flip           images: 4 black pixels around, a random window of the old size, a mirror image half the time
        roll                frames: shifted round by up to 5 pixels each way
        roll-flip           frames: the same, and mirrored half the time; not for gestures of a left or right arm
        resized-crop-flip   imagenet: a window of 8 to 100 % of the area, sides 3:4 to 4:3, mirrored half the time
    """

    name: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    most: int = 0
    frames: Literal["time", "count", "milliseconds"] = "time"
    milliseconds: float = 0.0
    division: Literal["none", "maximum"] = "none"
    window: int = 0
    augment: Literal["none", "crop-flip", "roll", "roll-flip", "resized-crop-flip"] = "none"

    @property
    def static(self) -> bool:
        """Whether one image is shown at every step."""
        return self.name not in EVENT_SETS

    @property
    def counts(self) -> bool:
        """Whether the network is shown counts of events."""
        return not self.static and self.division == "none"


def read_data(sheet: Sheet, shape: Shape) -> DataSettings:
    """The table, checked against the network's input [channels, height, width]. Raises SheetError."""
    data = sheet.record("data", DataSettings)
    events = data.name in EVENT_SETS
    if data.name not in DATA_SETS:
        close = difflib.get_close_matches(data.name, DATA_SETS, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"one of {', '.join(DATA_SETS)}"
        raise sheet.error("data.name", f"no data set {data.name!r}", remedy=remedy)
    if data.counts and not sheet.has("data.most"):
        data = sheet.record("data", DataSettings, most=1)
    if data.counts != (1 <= data.most <= 255):
        why = "1 to 255 for counts of events, 0 for images and divided frames"
        raise sheet.error("data.most", f"{data.most} is out of range", why=why)
    for key, numbers in (("mean", data.mean), ("std", data.std)):
        if len(numbers) not in (0, shape[0]):
            raise sheet.error(f"data.{key}", f"expected {shape[0]} numbers, one a channel, found {list(numbers)}")
    if len(data.mean) != len(data.std) or min(data.std, default=1.0) <= 0.0:
        raise sheet.error("data.std", "mean and std go together, and std is positive")
    if not all(map(moderate, data.std)) or any(abs(mean) > MOST for mean in data.mean):
        raise sheet.error("data.std", "out of range", remedy=f"it must be {MODERATE}, and no mean beyond {MOST:.0f}")
    if data.mean and events:
        raise sheet.error("data.mean", "event frames are not normalised", why="they would stop being events")
    if not events and (data.frames != "time" or data.division != "none"):
        raise sheet.error("data.frames", f"{data.name} has no recordings to cut")
    if data.window and not (events and max(shape[1:]) <= data.window <= 128):
        why = "of a recording, at least as many pixels as the network's input and 128 at most"
        raise sheet.error("data.window", f"{data.window} is out of range", why=why)
    if not moderate(data.milliseconds) if data.frames == "milliseconds" else data.milliseconds != 0.0:
        raise sheet.error("data.milliseconds", "a positive length of a frame where frames are cut by it, else none")
    if data.augment not in ("none", *_augmentations(data)):
        remedy = f"{' or '.join(_augmentations(data))} is"
        raise sheet.error("data.augment", f"{data.augment} is not for {data.name}", remedy=remedy)
    return data


def _augmentations(data: DataSettings) -> tuple[str, ...]:
    if data.static:
        return ("resized-crop-flip",) if data.name == "imagenet" else ("crop-flip",)
    return ("roll",) if data.name == "dvs-gesture" else ("roll", "roll-flip")

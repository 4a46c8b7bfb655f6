"""Data sets as the network sees them. NumPy only."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.recipe import DATA_SETS, EVENT_SETS, DataSettings, Recipe
from snncompile.train import formats
from snncompile.train.augmentation import Augment, crop_and_flip, drawn_for, roll, roll_and_flip
from snncompile.train.formats import Labels
from snncompile.train.frames import Cut
from snncompile.train.images import CIFAR100, images
from snncompile.train.photographs import photographs
from snncompile.train.places import ROOT_VARIABLE, folder_of, one_of
from snncompile.train.recordings import GESTURES, framed, recordings
from snncompile.train.samples import Decoded, gathered
from snncompile.train.stored import Stored
from snncompile.train.streamed import described

__all__ = ["CLASSES", "ROOT_VARIABLE", "SPLITS", "Split", "load", "load_for"]

SPLITS = ("train", "test")

_DIGITS = tuple("0123456789")
CLASSES: dict[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "nmnist": _DIGITS,
    "fashion-mnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": CIFAR100,
    "dvs-gesture": GESTURES,
}
CLASSES["cifar10-subset"] = CLASSES["cifar10-dvs"] = CLASSES["cifar10"]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples of a data set.

    ``x`` is float32 [N, C, H, W] (``static``: shown at every step; images in [0, 1], so that black stays zero and costs
    no event) or frames [N, T, C, H, W], uint8 event counts where the data set counts events. Large sets are decoded
    when they are indexed. ``y`` int64 [N], None where there are no labels. Where it ``draws``, the
    epochs of a training see samples changed at random, from ``seed``: by ``augment``, or as they are decoded.
    """

    name: str
    split: str
    x: NDArray[Any] | Decoded
    y: Labels | None
    static: bool
    classes: tuple[str, ...]
    draws: bool = False
    augment: Augment | None = None
    seed: int = 0

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of samples and labels; where samples are decoded when indexed, of what they are called."""
        found = hashlib.sha256(f"{self.x.dtype} {self.x.shape}".encode())
        found.update(self.x.identity if isinstance(self.x, Decoded) else np.ascontiguousarray(self.x).data)
        if self.y is not None:
            found.update(np.ascontiguousarray(self.y).data)
        return found.hexdigest()

    @property
    def held(self) -> bool:
        """Whether the samples are in memory."""
        return not isinstance(self.x, Decoded)

    def batch(self, indices: NDArray[Any], epoch: int | None = None) -> NDArray[Any]:
        """The samples of these indices: as they are, or as an epoch of a training sees them.

        What is drawn for a sample is a function of (seed, epoch, index), so no batch, thread or process changes it.
        """
        drawn = None
        if epoch is not None and self.draws:
            drawn = [drawn_for(self.seed, epoch, int(index)) for index in indices]
        x = self.x.at(indices, drawn) if isinstance(self.x, Decoded) else self.x[indices]
        if drawn is None or self.augment is None:
            return x
        return np.stack([self.augment(one, generator) for one, generator in zip(x, drawn, strict=True)])

    def __len__(self) -> int:
        return len(self.x)


def load(
    spec: str,
    root: Path | None = None,
    *,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    most: int = 1,
    settings: DataSettings | None = None,
    dt: float | None = None,
    node: str = "input",
    held: bool = True,
) -> Split:
    """Reads ``NAME[:split[:count]]`` (split: train or test, default test) or a file ``x.npz[:count]``, ``.npy``, or
    ``.nir`` (NIR data).

    Args:
        spec: what to read; ``count`` takes the first so many samples.
        root: the folder of the data sets; default: the environment variable SNNCOMPILE_DATA. ``digits`` needs none.
        shape: the network's input [C, H, W]; needed for files, where it tells images from frames, and for photographs;
            recordings are scaled down to it; else checked.
        steps: how many frames a recording is cut into.
        most: event counts above it are clipped; 1 makes spikes of them.
        settings: how recordings are cut, where that is not by equal time; its ``most`` is then the one that counts.
        dt: the length of a step, where the network says one: that of NIR data must be the same.
        node: whose data are read, where NIR data hold those of several.
        held: whether what fits into memory is there; without, samples of a data set are made when they are indexed.

    Raises:
        ReadError: no such data, not where it should be, truncated, of another format or shape.
    """
    if file := re.fullmatch(r"(.+\.(?:np[yz]|nir))(?::(\d+))?", spec):
        from snncompile.train.files import from_file

        return from_file(Path(file[1]), _count(spec, file[2]), shape, steps, dt, node)
    name, _, rest = spec.partition(":")
    split, _, count = rest.partition(":")
    split = split or "test"
    if name not in DATA_SETS:
        close = difflib.get_close_matches(name, DATA_SETS, n=1)
        remedy = (
            f"did you mean {close[0]}?" if close else f"one of {', '.join(DATA_SETS)}, or a path to .npz, .npy or .nir"
        )
        raise ReadError("no such data set", where=spec, remedy=remedy)
    if split not in SPLITS:
        raise ReadError(f"no split {split!r}", where=spec, remedy="train or test, as in fashion-mnist:test:256")
    number = _count(spec, count)
    if name in EVENT_SETS:
        found = _recorded(name, root, split, number, shape, _cut(spec, steps, most, settings), held=held)
    elif name == "imagenet":
        if shape is None or len(shape) != 3:
            raise ReadError("needs the network's input shape", where=spec, why="photographs are cut to it")
        photos, labels, classes = photographs(folder_of(name, root), split, (shape[1], shape[2]), number)
        found = Split(name, split, photos, labels, True, classes)
    else:
        pixels, labels = images(name, root, split)
        pixels, white = pixels[:number], 16.0 if name == "digits" else 255.0
        x = _scaled(pixels, white) if held else _scaled_later(pixels, white)
        found = Split(name, split, x, labels[:number], True, CLASSES[name])
    expected = found.x.shape[1:] if found.static else found.x.shape[2:]
    if shape is not None and tuple(shape) != expected:
        raise ReadError(f"samples are {list(expected)}", where=spec, why=f"the network takes {list(shape)}")
    return found


def load_for(
    recipe: Recipe, spec: str, root: Path | None = None, steps: int | None = None, *, held: bool = True
) -> Split:
    """``load`` as the network of a recipe sees it: its input shape, its steps, its normalisation, its augmentation.

    ``spec`` may also be ``train`` or ``test``: that split of the recipe's own data set. Files are taken as they are.
    ``steps`` are those of the recipe, unless a stage of its training has others. ``held`` as in ``load``.
    """
    own = spec.partition(":")[0] in SPLITS
    settings = recipe.data
    full = f"{settings.name}:{spec}" if own else spec
    similar = full.partition(":")[0] in EVENT_SETS and not settings.static
    found = load(
        full,
        root,
        shape=recipe.input,
        steps=steps or recipe.steps,
        most=settings.most or 1,
        settings=settings if similar else None,
        held=held,
    )
    if found.name != settings.name:
        return found
    black = np.zeros((recipe.input[0], 1, 1), np.float32)
    if settings.mean:
        mean, std = (np.array(value, np.float32)[:, None, None] for value in (settings.mean, settings.std))
        black = (black - mean) / std
        x = found.x
        normal = x.changed(lambda one: (one - mean) / std, np.float32) if isinstance(x, Decoded) else (x - mean) / std
        found = replace(found, x=normal)
    augment: dict[str, Augment] = {"crop-flip": crop_and_flip(black), "roll": roll, "roll-flip": roll_and_flip}
    draws = settings.augment != "none"
    return replace(found, draws=draws, augment=augment.get(settings.augment), seed=recipe.training.seed)


def _scaled(pixels: NDArray[np.uint8], white: float) -> NDArray[np.float32]:
    return np.ascontiguousarray(pixels, np.float32) / np.float32(white)


def _scaled_later(pixels: NDArray[np.uint8], white: float) -> Decoded:
    """``_scaled``, an image when it is asked for: a quarter of the memory."""
    identity = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
    return Decoded(len(pixels), pixels.shape[1:], np.float32, lambda at, _: _scaled(pixels[at], white), identity)


def _count(spec: str, text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text[:12]) < 10**11:
        raise ReadError(f"{text!r} is no count", where=spec, remedy="as in fashion-mnist:test:256")
    return int(text)


# Events


def _cut(spec: str, steps: int | None, most: int, settings: DataSettings | None) -> Cut:
    if steps is None or steps < 1:
        raise ReadError("recordings need a number of steps to be cut into", where=spec, remedy="say steps")
    if settings is None:
        return Cut(steps, most)
    return Cut(steps, settings.most, settings.frames, settings.milliseconds, settings.division, settings.window)


def _recorded(
    name: str, root: Path | None, split: str, count: int | None, shape: Sequence[int] | None, cut: Cut, *, held: bool
) -> Split:
    folder = folder_of(name, root)
    if name == "cifar10-dvs" and not (folder / CLASSES[name][0]).is_dir():
        x, y = _frames(name, folder, split, cut, count, held=held)
        return Split(name, split, x, y, False, CLASSES[name])
    extent = (shape[1], shape[2]) if shape is not None and len(shape) == 3 else None
    listed = recordings(name, folder, split, CLASSES[name])[:count]
    labels = np.array([one.label for one in listed], np.int64)
    frames = framed(name, listed, cut, extent)
    return Split(name, split, gathered(frames) if held else frames, labels, False, CLASSES[name])


def _frames(
    name: str, folder: Path, split: str, cut: Cut, count: int | None, *, held: bool
) -> tuple[NDArray[Any] | Decoded, Labels]:
    """Event counts uint8 [N, T, 2, H, W] that somebody has cut into frames already, clipped or divided, and labels."""
    path = one_of(name, folder, (f"{split}.npz",))
    found = None if held else described(path)
    if found is not None and found.y is not None and found.dtype == "|u1" and found.shape[:1] == (cut.steps,):
        few = found.first(len(found) if count is None else min(count, len(found)))
        if len(few.shape) == 4:
            return Stored(few, cut.limited, cut.kind), found.y[:count]
    arrays = formats.read_arrays(path)
    x, y = arrays.get("x"), arrays.get("y")
    if x is None or y is None or x.dtype != np.uint8 or x.ndim != 5 or y.dtype.kind not in "iu" or len(x) != len(y):
        raise ReadError("does not hold frames", where=str(path), why="x uint8 [N, T, 2, H, W] and y, a label each")
    if x.shape[1] != cut.steps:
        why = f"steps are {cut.steps}"
        raise ReadError(f"its recordings are cut into {x.shape[1]} frames", where=str(path), why=why)
    x = x[:count]
    limited: NDArray[Any] = np.empty(x.shape, cut.kind)
    for place, counts in enumerate(x):
        limited[place] = cut.limited(counts)
    return limited, y.astype(np.int64)[:count]

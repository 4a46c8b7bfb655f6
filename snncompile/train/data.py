"""Data sets as the network sees them. NumPy only."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.recipe import DATA_SETS, EVENT_SETS, Recipe
from snncompile.train import formats
from snncompile.train.formats import Labels

SPLITS = ("train", "test")
ROOT_VARIABLE = "SNNCOMPILE_DATA"
NMNIST_SIDE = 34

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
}
CLASSES["cifar10-subset"] = CLASSES["cifar10-dvs"] = CLASSES["cifar10"]

_FOLDERS = {
    "mnist": ("mnist", "MNIST/raw", "MNIST"),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar10"),
    "cifar10-subset": ("cifar10-subset",),
    "nmnist": ("N-MNIST", "NMNIST", "nmnist-small"),
    "cifar10-dvs": ("cifar10-dvs", "CIFAR10DVS"),
}
_SOURCES = {
    "mnist": "the four .gz files of yann.lecun.com/exdb/mnist",
    "fashion-mnist": "the four .gz files of github.com/zalandoresearch/fashion-mnist, data/fashion",
    "cifar10": "the unpacked binary version from www.cs.toronto.edu/~kriz/cifar.html",
    "cifar10-subset": "cifar10_subset_10k_2k.npz (x_train, y_train, x_test, y_test as uint8)",
    "nmnist": "Train/ and Test/ of N-MNIST from www.garrickorchard.com/datasets/n-mnist",
    "cifar10-dvs": "train.npz and test.npz, x uint8 [N, T, 2, H, W] event counts and y [N], made of the recordings of "
    "figshare.com, CIFAR10-DVS: New,",
}


@dataclass(frozen=True, eq=False)
class Split:
    """Samples of a data set.

    ``x`` is float32 [N, C, H, W] (``static``: shown at every step; images in [0, 1], so that black stays zero and costs
    no event) or frames [N, T, C, H, W], uint8 event counts where the data set counts events. ``y`` int64 [N], None
    where there are no labels. ``digest`` is the SHA-256 of both.
    """

    name: str
    split: str
    x: NDArray[Any]
    y: Labels | None
    static: bool
    classes: tuple[str, ...]

    @property
    def digest(self) -> str:
        found = hashlib.sha256(f"{self.x.dtype} {self.x.shape}".encode())
        found.update(np.ascontiguousarray(self.x).data)
        if self.y is not None:
            found.update(np.ascontiguousarray(self.y).data)
        return found.hexdigest()

    @property
    def held(self) -> bool:
        """Whether the samples are in memory."""
        return True

    def batch(self, indices: NDArray[Any], epoch: int | None = None) -> NDArray[Any]:
        """The samples of these indices, as they are."""
        found: NDArray[Any] = self.x[indices]
        return found

    def __len__(self) -> int:
        return len(self.x)


def load(
    spec: str,
    root: Path | None = None,
    *,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    most: int = 1,
) -> Split:
    """Reads ``NAME[:split[:count]]`` (split: train or test, default test) or a file ``x.npz[:count]``, ``.npy``.

    Args:
        spec: what to read; ``count`` takes the first so many samples.
        root: the folder of the data sets; default: the environment variable SNNCOMPILE_DATA. ``digits`` needs none.
        shape: the network's input [C, H, W]; needed for files, where it tells images from frames; else checked.
        steps: how many frames a recording is cut into (N-MNIST).
        most: event counts above it are clipped; 1 makes spikes of them.

    Raises:
        ReadError: no such data, not where it should be, truncated, of another format or shape.
    """
    if file := re.fullmatch(r"(.+\.np[yz])(?::(\d+))?", spec):
        return _from_file(Path(file[1]), _count(spec, file[2]), shape, steps)
    name, _, rest = spec.partition(":")
    split, _, count = rest.partition(":")
    split = split or "test"
    if name not in DATA_SETS:
        close = difflib.get_close_matches(name, DATA_SETS, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"one of {', '.join(DATA_SETS)}, or a path to .npz or .npy"
        raise ReadError("no such data set", where=spec, remedy=remedy)
    if split not in SPLITS:
        raise ReadError(f"no split {split!r}", where=spec, remedy="train or test, as in fashion-mnist:test:256")
    number = _count(spec, count)
    x: NDArray[Any]
    if name == "nmnist":
        x, y = _nmnist(_folder(name, root), split, number, _steps(spec, steps), most)
    elif name == "cifar10-dvs":
        x, y = _frames(name, _folder(name, root), split, _steps(spec, steps), most)
        x = x[:number]
    else:
        pixels, y = _images(name, root, split)
        x = _scaled(pixels[:number], 16.0 if name == "digits" else 255.0)
    found = Split(name, split, x, y[:number], name not in EVENT_SETS, CLASSES[name])
    expected = x.shape[1:] if found.static else x.shape[2:]
    if shape is not None and tuple(shape) != expected:
        raise ReadError(f"samples are {list(expected)}", where=spec, why=f"the network takes {list(shape)}")
    return found


def load_for(recipe: Recipe, spec: str, root: Path | None = None, steps: int | None = None) -> Split:
    """``load`` as the network of a recipe sees it: its input shape, its steps, its normalisation.

    ``spec`` may also be ``train`` or ``test``: that split of the recipe's own data set. Files are taken as they are.
    """
    own = spec.partition(":")[0] in SPLITS
    settings = recipe.data
    full = f"{settings.name}:{spec}" if own else spec
    found = load(full, root, shape=recipe.input, steps=steps or recipe.steps, most=settings.most or 1)
    if settings.mean and found.name == settings.name:
        mean, std = (np.array(value, np.float32)[:, None, None] for value in (settings.mean, settings.std))
        return replace(found, x=(found.x - mean) / std)
    return found


def _scaled(pixels: NDArray[np.uint8], white: float) -> NDArray[np.float32]:
    return np.ascontiguousarray(pixels, np.float32) / np.float32(white)


def _count(spec: str, text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text[:12]) < 10**11:
        raise ReadError(f"{text!r} is no count", where=spec, remedy="as in fashion-mnist:test:256")
    return int(text)


def _steps(spec: str, steps: int | None) -> int:
    if steps is None or steps < 1:
        raise ReadError("recordings need a number of steps to be cut into", where=spec, remedy="say steps")
    return steps


# Where the files are


def _folder(name: str, root: Path | None) -> Path:
    """The data set's folder under the root, the first of the names it is known by."""
    given = root or (Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else None)
    wanted = f"put {_SOURCES[name]} into ROOT/{_FOLDERS[name][0]}/"
    if given is None:
        raise ReadError(
            "no data folder is named", where=name, remedy=f"{wanted} and name ROOT: --data-root or {ROOT_VARIABLE}"
        )
    for folder in _FOLDERS[name]:
        if (given / folder).is_dir():
            return given / folder
    searched = ", ".join(_FOLDERS[name])
    raise ReadError(f"the data are not in {given}", where=name, why=f"looked for {searched}", remedy=wanted)


def _one_of(name: str, folder: Path, candidates: Sequence[str]) -> Path:
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise ReadError(
        f"{folder} lacks {' or '.join(candidates)}",
        where=name,
        remedy=f"the official source is {_SOURCES[name]}",
    )


def _images(name: str, root: Path | None, split: str) -> tuple[NDArray[np.uint8], Labels]:
    match name:
        case "digits":
            return _digits(split)
        case "cifar10":
            return _cifar10(_folder(name, root), split)
        case "cifar10-subset":
            return _cifar10_subset(_folder(name, root), split)
        case _:
            return _mnist(name, _folder(name, root), split)


# The data sets


def _digits(split: str) -> tuple[NDArray[np.uint8], Labels]:
    """The shipped UCI digits; of every class, in the original order, the last 20 % are the test split."""
    with resources.as_file(resources.files("snncompile.train") / "digits.npz") as path:
        arrays = formats.read_arrays(path)
    labels = arrays["labels"].astype(np.int64)
    chosen = np.zeros(len(labels), bool)
    for digit in range(10):
        of_class = np.flatnonzero(labels == digit)
        chosen[of_class[len(of_class) - len(of_class) // 5 :]] = True
    chosen = chosen if split == "test" else ~chosen
    return arrays["images"][chosen][:, None], labels[chosen]


def _mnist(name: str, folder: Path, split: str) -> tuple[NDArray[np.uint8], Labels]:
    start = "train" if split == "train" else "t10k"
    stems = [f"{start}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    paths = [_one_of(name, folder, (f"{stem}.gz", stem)) for stem in stems]
    images, labels = formats.read_idx(paths[0], 3), formats.read_idx(paths[1], 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or labels.max(initial=0) > 9:
        raise ReadError(f"images {list(images.shape)} and labels {list(labels.shape)} do not match", where=str(folder))
    return images[:, None], labels.astype(np.int64)


def _cifar10(folder: Path, split: str) -> tuple[NDArray[np.uint8], Labels]:
    stems = [f"data_batch_{part}" for part in range(1, 6)] if split == "train" else ["test_batch"]
    parts = []
    for stem in stems:
        path = _one_of("cifar10", folder, (f"{stem}.bin", stem))
        parts.append(formats.read_cifar_binary(path) if path.suffix else formats.read_cifar_pickle(path))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _cifar10_subset(folder: Path, split: str) -> tuple[NDArray[np.uint8], Labels]:
    path = _one_of("cifar10-subset", folder, ("cifar10_subset_10k_2k.npz",))
    arrays = formats.read_arrays(path)
    x, y = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
    if x is None or y is None or x.dtype != np.uint8 or x.shape[1:] != (3, 32, 32) or y.shape != x.shape[:1]:
        raise ReadError(
            "does not hold the subset", where=str(path), why=f"x_{split} uint8 [N, 3, 32, 32], y_{split} [N]"
        )
    return x, y.astype(np.int64)


def _nmnist(folder: Path, split: str, count: int | None, steps: int, most: int) -> tuple[NDArray[np.uint8], Labels]:
    """Frames uint8 [N, T, 2, 34, 34] (channel 1: on) and labels."""
    listed = _listed(folder, split) if (folder / "events").is_dir() else _foldered(folder, split)
    listed = listed[:count]
    frames = np.empty((len(listed), steps, 2, NMNIST_SIDE, NMNIST_SIDE), np.uint8)
    for index, (path, _) in enumerate(listed):
        frames[index] = np.minimum(event_frames(path, steps), most)
    return frames, np.array([label for _, label in listed], np.int64)


def _frames(name: str, folder: Path, split: str, steps: int, most: int) -> tuple[NDArray[np.uint8], Labels]:
    """Event counts uint8 [N, T, 2, H, W] that somebody has cut into frames already, clipped at ``most``, and labels."""
    path = _one_of(name, folder, (f"{split}.npz",))
    arrays = formats.read_arrays(path)
    x, y = arrays.get("x"), arrays.get("y")
    if x is None or y is None or x.dtype != np.uint8 or x.ndim != 5 or y.dtype.kind not in "iu" or len(x) != len(y):
        raise ReadError("does not hold frames", where=str(path), why="x uint8 [N, T, 2, H, W] and y, a label each")
    if x.shape[1] != steps:
        raise ReadError(f"its recordings are cut into {x.shape[1]} frames", where=str(path), why=f"steps are {steps}")
    return np.minimum(x, np.uint8(most)), y.astype(np.int64)


def _foldered(folder: Path, split: str) -> list[tuple[Path, int]]:
    """The official layout, Train/7/00015.bin, in the order of the file names, which mixes the classes."""
    found = [(path, digit) for digit in range(10) for path in (folder / split.title() / str(digit)).glob("*.bin")]
    if not found:
        raise ReadError(f"{folder / split.title()} holds no recordings", where="nmnist", remedy=_SOURCES["nmnist"])
    return sorted(found, key=lambda item: item[0].name)


def _listed(folder: Path, split: str) -> list[tuple[Path, int]]:
    """The 1,100-recording subset: events/ID.bs2, and a list of ids and classes."""
    path = _one_of("nmnist", folder, ("train1K.txt" if split == "train" else "test100.txt",))
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return [(folder / "events" / f"{int(row[0])}.bs2", int(row[1])) for row in rows]
    except (OSError, ValueError, IndexError) as error:
        raise ReadError("is no list of ids and classes", where=str(path), why=str(error)) from error


def event_frames(path: Path, steps: int) -> NDArray[np.int64]:
    """Event counts [T, 2, 34, 34] of a recording, cut into ``steps`` windows of equal time from 0 to its last event."""
    x, y, polarity, time = formats.read_events(path)
    if max(x.max(), y.max()) >= NMNIST_SIDE:
        raise ReadError(f"an event at ({x.max()}, {y.max()}) is off the sensor", where=str(path), why="34 x 34 pixels")
    window = time * steps // (time.max() + 1)
    cell = ((window * 2 + polarity) * NMNIST_SIDE + y) * NMNIST_SIDE + x
    cells = steps * 2 * NMNIST_SIDE**2
    return np.bincount(cell, minlength=cells).reshape(steps, 2, NMNIST_SIDE, NMNIST_SIDE)


# Files


def _from_file(path: Path, count: int | None, shape: Sequence[int] | None, steps: int | None) -> Split:
    where = str(path)
    if shape is None:
        raise ReadError("needs the network's input shape", where=where, why="it tells images from frames")
    arrays = formats.read_arrays(path)
    if "x" not in arrays:
        raise ReadError(f"holds {', '.join(arrays) or 'nothing'}", where=where, why="the samples are called x")
    x = arrays["x"]
    if x.dtype.kind not in "buif" or not np.isfinite(x).all():
        raise ReadError(f"x ({x.dtype}) holds something that is not a finite number", where=where)
    static = x.shape[1:] == tuple(shape)
    if not static and x.shape[2:] != tuple(shape):
        wanted = ", ".join(map(str, shape))
        raise ReadError(
            f"x is {list(x.shape)}", where=where, why=f"the network takes [N, {wanted}] or [N, T, {wanted}]"
        )
    if not static and steps is not None and x.shape[1] != steps:
        raise ReadError(f"x has {x.shape[1]} steps", where=where, why=f"the network runs {steps}")
    y = arrays.get("y")
    if y is not None and (y.dtype.kind not in "iu" or y.shape != x.shape[:1]):
        raise ReadError(f"y is {y.dtype} {list(y.shape)}", where=where, why=f"integers [{len(x)}], one label a sample")
    labels = None if y is None else y[:count].astype(np.int64)
    return Split(where, "", np.ascontiguousarray(x[:count], np.float32), labels, static, ())

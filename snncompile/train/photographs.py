"""ImageNet: folders of JPEG files, decoded by Pillow when they are asked for."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.errors import ReadError, ToolError
from snncompile.train.places import PLACES
from snncompile.train.samples import Array, Decoded

SUFFIXES = (".jpeg", ".jpg")


def photographs(
    folder: Path, split: str, extent: tuple[int, int], count: int | None
) -> tuple[Decoded, Array, tuple[str, ...]]:
    """Images float32 [N, 3, H, W] in [0, 1], labels, and the names of the classes, which are those of the folders.

    ``train/`` is the training split and ``val/`` the test split; classes count in the order of their names. With
    ``count`` the first so many, taken from the classes in turn.
    """
    pillow = _pillow(folder)
    place = folder / ("train" if split == "train" else "val")
    classes = tuple(sorted(entry.name for entry in _entries(place) if entry.is_dir()))
    found = []
    for label, name in enumerate(classes):
        files = sorted(entry.name for entry in _entries(place / name) if entry.name.lower().endswith(SUFFIXES))
        found += [(number, label, file) for number, file in enumerate(files)]
    if not found:
        raise ReadError(f"{place} holds no classes with images", where="imagenet", remedy=PLACES["imagenet"].source)
    if count is not None:
        found = sorted(found)[:count]
    names = [(classes[label], file) for _, label, file in found]

    def decode(index: int, drawn: np.random.Generator | None) -> Array:
        path = place.joinpath(*names[index])
        try:
            with pillow.open(path) as image:
                return _decoded(pillow, image, extent, drawn)
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise ReadError("is no image that can be read", where=str(path), why=str(error)) from error

    identity = "\n".join("/".join(name) for name in names).encode()
    samples = Decoded(len(names), (3, *extent), np.float32, decode, identity, drawn=True)
    return samples, np.array([label for _, label, _ in found], np.int64), classes


def _decoded(pillow: Any, image: Any, extent: tuple[int, int], drawn: np.random.Generator | None) -> Array:
    """For training a window of 8 to 100 % of the area and of sides 3:4 to 4:3, scaled to [H, W] and mirrored half the
    time; else the shorter side is scaled to 256/224 of the frame's, and the middle is cut out.

    Both scale by Pillow's bilinear filter, which widens with the factor when it makes smaller.
    """
    height, width = extent
    image = image.convert("RGB")
    if drawn is None:
        factor = max(math.floor(height * 256 / 224) / image.height, math.floor(width * 256 / 224) / image.width)
        size = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        image = image.resize(size, pillow.Resampling.BILINEAR).crop((left, top, left + width, top + height))
        pixels = np.asarray(image)
    else:
        left, top, right, bottom = window(image.width, image.height, drawn)
        image = image.resize((width, height), pillow.Resampling.BILINEAR, box=(left, top, right, bottom))
        pixels = np.asarray(image)
        pixels = pixels[:, ::-1] if drawn.random() < 0.5 else pixels
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255.0)


def window(width: int, height: int, drawn: np.random.Generator) -> tuple[int, int, int, int]:
    """A random window (left, top, right, bottom): area uniform in 8 to 100 %, logarithm of the ratio of the sides
    uniform in 3:4 to 4:3; after ten windows that do not fit, the largest middle one whose sides are within 3:4 to 4:3.
    """
    for _ in range(10):
        area = width * height * drawn.uniform(0.08, 1.0)
        ratio = math.exp(drawn.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(drawn.integers(0, width - w + 1)), int(drawn.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise ReadError("cannot be read", where=str(folder), why=str(error)) from error


def _pillow(folder: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        remedy = "pip install 'snncompile[images]'"
        raise ToolError("Pillow, which reads JPEG, is not installed", where=str(folder), remedy=remedy) from error
    return Image

"""Data sets of small images, held in memory."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from snncompile.errors import ReadError
from snncompile.train import formats
from snncompile.train.formats import Bytes, Labels
from snncompile.train.places import folder_of, one_of

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_CIFAR100.split())


def images(name: str, root: Path | None, split: str) -> tuple[Bytes, Labels]:
    """Pixels uint8 [N, C, H, W] and labels of a split. Raises ReadError."""
    match name:
        case "digits":
            return _digits(split)
        case "cifar10":
            return _cifar10(folder_of(name, root), split)
        case "cifar100":
            return _cifar100(folder_of(name, root), split)
        case "cifar10-subset":
            return _cifar10_subset(folder_of(name, root), split)
        case _:
            return _mnist(name, folder_of(name, root), split)


def _digits(split: str) -> tuple[Bytes, Labels]:
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


def _mnist(name: str, folder: Path, split: str) -> tuple[Bytes, Labels]:
    start = "train" if split == "train" else "t10k"
    stems = [f"{start}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    paths = [one_of(name, folder, (f"{stem}.gz", stem)) for stem in stems]
    images, labels = formats.read_idx(paths[0], 3), formats.read_idx(paths[1], 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or labels.max(initial=0) > 9:
        raise ReadError(f"images {list(images.shape)} and labels {list(labels.shape)} do not match", where=str(folder))
    return images[:, None], labels.astype(np.int64)


def _cifar10(folder: Path, split: str) -> tuple[Bytes, Labels]:
    stems = [f"data_batch_{part}" for part in range(1, 6)] if split == "train" else ["test_batch"]
    parts = []
    for stem in stems:
        path = one_of("cifar10", folder, (f"{stem}.bin", stem))
        parts.append(formats.read_cifar_binary(path) if path.suffix else formats.read_cifar_pickle(path))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _cifar100(folder: Path, split: str) -> tuple[Bytes, Labels]:
    path = one_of("cifar100", folder, (f"{split}.bin", split))
    return formats.read_cifar_binary(path, 100) if path.suffix else formats.read_cifar_pickle(path, 100)


def _cifar10_subset(folder: Path, split: str) -> tuple[Bytes, Labels]:
    path = one_of("cifar10-subset", folder, ("cifar10_subset_10k_2k.npz",))
    arrays = formats.read_arrays(path)
    x, y = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
    if x is None or y is None or x.dtype != np.uint8 or x.shape[1:] != (3, 32, 32) or y.shape != x.shape[:1]:
        raise ReadError(
            "does not hold the subset", where=str(path), why=f"x_{split} uint8 [N, 3, 32, 32], y_{split} [N]"
        )
    return x, y.astype(np.int64)

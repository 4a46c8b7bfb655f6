"""Where data sets are: their folders, their official sources, and fetching them from there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from snncompile.errors import ReadError
from snncompile.train.progress import Progress

ROOT_VARIABLE = "SNNCOMPILE_DATA"
_BLOCK = 1 << 20
_MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"  # where the authors of N-MNIST put it


@dataclass(frozen=True)
class Archive:
    """A file of a data set on the network: its sources in the order they are tried, and the MD5 of its content."""

    name: str
    sources: tuple[str, ...]
    md5: str


@dataclass(frozen=True)
class Place:
    """A data set: the folders it may lie in, what belongs there, and what can be fetched (into the first folder)."""

    folders: tuple[str, ...]
    source: str
    archives: tuple[Archive, ...] = ()


def _archives(bases: Sequence[str], sums: dict[str, str]) -> tuple[Archive, ...]:
    return tuple(Archive(name, tuple(base + name for base in bases), md5) for name, md5 in sums.items())


# Where each MD5 was read:
#   MNIST, Fashion-MNIST    taken of the original files; torchvision, datasets/mnist.py, states the same
#   CIFAR-10                www.cs.toronto.edu/~kriz/cifar.html, the column md5sum of the binary version
#   CIFAR-100               copies of the same table, and loaders that state the same; not the page itself
#   N-MNIST                 tonic, datasets/nmnist.py, with the address; SpikingJelly, datasets/n_mnist.py, the same
#   CIFAR10-DVS             SpikingJelly, datasets/cifar10_dvs.py, with the addresses
#   DVS128 Gesture          SpikingJelly, datasets/dvs128_gesture.py; its page gives files to a browser only
PLACES: dict[str, Place] = {
    "mnist": Place(
        ("mnist", "MNIST/raw", "MNIST"),
        "the four .gz files of yann.lecun.com/exdb/mnist",
        _archives(
            ("http://yann.lecun.com/exdb/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
            {
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
        ),
    ),
    "fashion-mnist": Place(
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        "the four .gz files of github.com/zalandoresearch/fashion-mnist, data/fashion",
        _archives(
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            {
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
        ),
    ),
    "cifar10": Place(
        ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar10"),
        "the unpacked binary version from www.cs.toronto.edu/~kriz/cifar.html",
        _archives(
            ("https://www.cs.toronto.edu/~kriz/",), {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
        ),
    ),
    "cifar10-subset": Place(
        ("cifar10-subset",), "cifar10_subset_10k_2k.npz (x_train, y_train, x_test, y_test as uint8)"
    ),
    "cifar100": Place(
        ("cifar-100-binary", "cifar-100-python", "cifar100"),
        "the unpacked binary version from www.cs.toronto.edu/~kriz/cifar.html",
        _archives(
            ("https://www.cs.toronto.edu/~kriz/",), {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"}
        ),
    ),
    "imagenet": Place(
        ("imagenet", "ImageNet", "ILSVRC2012"),
        "the folders train/ and val/ of image-net.org, ILSVRC 2012, one folder of JPEG files a class in each",
    ),
    "nmnist": Place(
        ("N-MNIST", "NMNIST", "nmnist-small"),
        "Train/ and Test/ of N-MNIST from www.garrickorchard.com/datasets/n-mnist",
        tuple(
            Archive(f"{name}.zip", (f"{_MENDELEY}{number}/file_downloaded",), md5)
            for name, number, md5 in (
                ("Train", "39c25547-014b-4137-a934-9d29fa53c7a0", "20959b8e626244a1b502305a9e6e2031"),
                ("Test", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "69ca8762b2fe404d9b9bad1103e97832"),
            )
        ),
    ),
    "cifar10-dvs": Place(
        ("CIFAR10DVS", "cifar10-dvs", "DVS-CIFAR10"),
        "the ten unpacked folders of .aedat files of figshare.com, CIFAR10-DVS: New; or train.npz and test.npz, "
        "x uint8 [N, T, 2, H, W] event counts and y [N], made of them",
        tuple(
            Archive(f"{name}.zip", (f"https://ndownloader.figshare.com/files/{number}",), md5)
            for name, number, md5 in (
                ("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
                ("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
                ("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
                ("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
                ("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
                ("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
                ("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
                ("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
                ("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
                ("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
            )
        ),
    ),
    "dvs-gesture": Place(
        ("DvsGesture", "DVS128Gesture", "dvs-gesture"),
        "the unpacked DvsGesture.tar.gz (MD5 8a5c71fb11e24e5ca5b11866ca6c00a1) of "
        "research.ibm.com/interactive/dvsgesture (trials_to_train.txt and the like)",
    ),
}


def folder_of(name: str, root: Path | None) -> Path:
    """The data set's folder under the root, the first of the names it is known by. Raises ReadError."""
    given = _root(name, root)
    for folder in PLACES[name].folders:
        if (given / folder).is_dir():
            return given / folder
    remedy = f"{_by_hand(name, given)}, or train with --download" if PLACES[name].archives else _by_hand(name, given)
    searched = ", ".join(PLACES[name].folders)
    raise ReadError(f"the data are not in {given}", where=name, why=f"looked for {searched}", remedy=remedy)


def one_of(name: str, folder: Path, candidates: Sequence[str]) -> Path:
    """The first of these files that is in the folder. Raises ReadError."""
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    remedy = f"the official source is {PLACES[name].source}"
    raise ReadError(f"{folder} lacks {' or '.join(candidates)}", where=name, remedy=remedy)


def _root(name: str, root: Path | None) -> Path:
    given = root or (Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else None)
    if given is None:
        remedy = f"set {ROOT_VARIABLE} or say --data-root: a folder that holds {PLACES[name].folders[0]}/"
        raise ReadError("no data folder is named", where=name, remedy=remedy)
    return given


def _by_hand(name: str, root: Path) -> str:
    return f"put {PLACES[name].source} into {root / PLACES[name].folders[0]}"


# Fetching


def fetch(name: str, root: Path | None) -> Path:
    """The folder of a data set, fetched from its official source where it is not there yet.

    Every file is checked against its MD5 before it is unpacked, everything is made beside its place and renamed.

    Raises:
        ReadError: a set that cannot be fetched, a source out of reach, a content that is not the official one.
    """
    if name == "digits":
        return Path()  # travels with the package
    given, place = _root(name, root), PLACES[name]
    for folder in place.folders:
        if (given / folder).is_dir():
            return given / folder
    if not place.archives:
        why = "its authors ask for it to be fetched by hand, or state no checksum"
        raise ReadError("cannot be fetched", where=name, why=why, remedy=_by_hand(name, given))
    target = given / place.folders[0]
    beside = given / f".{place.folders[0]}.{os.getpid()}"
    try:
        beside.mkdir(parents=True)
        for archive in place.archives:
            _fetch(name, archive, beside / archive.name, _by_hand(name, given))
            _unpack(beside / archive.name, beside, place.folders[0])
        os.replace(beside, target)
    except OSError as error:
        raise ReadError("cannot be written", where=str(target), why=str(error)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _fetch(name: str, archive: Archive, path: Path, remedy: str) -> None:
    reasons = []
    for source in archive.sources:
        try:
            found = _copied(source, path)
        except (OSError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{source}: {error}")
            continue
        if found == archive.md5:
            return
        reasons.append(f"{source}: MD5 {found}, not {archive.md5}")
    raise ReadError(f"{archive.name} cannot be fetched", where=name, why="; ".join(reasons), remedy=remedy)


def _copied(source: str, path: Path) -> str:
    """Copies a source to a file; its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(source, timeout=60) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        done = 0
        with Progress(max(1, total // _BLOCK)) as progress:
            while block := answer.read(_BLOCK):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress.update(min(done, total) // _BLOCK, f"{path.name}: {done / 1e6:.0f} MB")
    if total and done != total:
        raise ValueError(f"{done} of {total} bytes came")
    return digest.hexdigest()


def _unpack(path: Path, folder: Path, own: str) -> None:
    """Unpacks an archive of folders into ``folder`` and removes it; its top folder, where it is the set's, is left out.

    MNIST's .gz files are read as they are.
    """
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (content := tar.extractfile(member)) is not None:
                    _store(folder, member.name, own, content)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    with archive.open(entry) as content:
                        _store(folder, entry.filename, own, content)
    else:
        return
    path.unlink()


def _store(folder: Path, name: str, own: str, content: Any) -> None:
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
    if ".." in parts:
        raise OSError(f"the archive names {name!r}")
    parts = parts[1:] if len(parts) > 1 and parts[0] == own else parts
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, _BLOCK)

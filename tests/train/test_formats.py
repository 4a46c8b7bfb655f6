"""The original formats, on small files written by hand here, byte by byte."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from snncompile.errors import ReadError
from snncompile.train import formats
from snncompile.train.data import load
from snncompile.train.frames import Cut
from snncompile.train.recordings import read_nmnist

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
IDX_IMAGES = struct.pack(">IIII", 2051, 3, 28, 28) + IMAGES.tobytes()
IDX_LABELS = struct.pack(">II", 2049, 3) + bytes([4, 9, 0])
CIFAR = np.random.default_rng(1).integers(0, 256, (2, 3072), dtype=np.uint8)


def write_mnist(folder: Path, images: bytes = IDX_IMAGES, labels: bytes = IDX_LABELS, zipped: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        name, body = (f"{stem}.gz", gzip.compress(content)) if zipped else (stem, content)
        (folder / name).write_bytes(body)


@pytest.mark.parametrize(("folder", "zipped"), [("fashion-mnist", True), ("FashionMNIST/raw", False)])
def test_idx(tmp_path: Path, folder: str, zipped: bool) -> None:
    write_mnist(tmp_path / folder, zipped=zipped)
    found = load("fashion-mnist:test:2", tmp_path)
    assert np.array_equal(found.x, IMAGES[:2, None].astype(np.float32) / np.float32(255))
    assert found.y is not None
    assert found.y.tolist() == [4, 9]
    assert found.classes[9] == "ankle boot"


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IDX_IMAGES[:-1], IDX_LABELS, "holds 2351 values, its header says [3, 28, 28]"),
        (IDX_IMAGES + b"\0", IDX_LABELS, "holds more values"),
        (IDX_IMAGES[:10], IDX_LABELS, "its header says"),
        (IDX_LABELS, IDX_LABELS, "starts with 00 00 08 01 (IDX: 00 00 08 03)"),
        (IDX_IMAGES, IDX_LABELS[:-1], "holds 2 values"),
        (IDX_IMAGES, IDX_LABELS[:-1] + b"\x0a", "do not match"),
        (struct.pack(">IIII", 2051, 2**31, 2**31, 2**31), IDX_LABELS, "t10k-images"),
    ],
)
def test_idx_that_is_refused(tmp_path: Path, images: bytes, labels: bytes, message: str) -> None:
    write_mnist(tmp_path / "mnist", images, labels)
    with pytest.raises(ReadError, match=re.escape(message)):
        load("mnist", tmp_path)


def test_a_truncated_gzip(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:5], b"not a gzip file", b""):
        path.write_bytes(damaged)
        with pytest.raises(ReadError, match=r"t10k-images-idx3-ubyte\.gz"):
            load("mnist", tmp_path)


def test_cifar_binary(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(b"".join(bytes([3 + i]) + CIFAR[i].tobytes() for i in range(2)))
    found = load("cifar10", tmp_path)
    assert np.array_equal(found.x, CIFAR.reshape(2, 3, 32, 32).astype(np.float32) / np.float32(255))
    assert found.y is not None
    assert found.y.tolist() == [3, 4]
    (folder / "test_batch.bin").write_bytes(bytes(3072))
    with pytest.raises(ReadError, match="3072 bytes are no whole number of records"):
        load("cifar10", tmp_path)
    (folder / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(ReadError, match="label 10 is none of 10 classes"):
        load("cifar10", tmp_path)


def official(module: bytes = b"numpy.core.multiarray", kind: bytes = b"u1") -> bytes:
    """A batch as Python 2 pickled it: texts and bytes are both opcode T (or U), protocol 2."""
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    array = b"c" + module + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + text(kind)
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    raw = b"T" + struct.pack("<I", CIFAR.size) + CIFAR.tobytes()
    state = b"(K\x01K\x02M\x00\x0c\x86" + dtype + b"\x89" + raw + b"tb"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + b"](K\x07K\x01eu."


def cifar_python(tmp_path: Path, content: bytes) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        official(),
        official(b"numpy._core.multiarray"),
        pickle.dumps({b"data": CIFAR, b"labels": [7, 1], b"filenames": [b"a.png"]}, protocol=3),
    ],
)
def test_cifar_pickle(tmp_path: Path, content: bytes) -> None:
    found = load("cifar10:test", cifar_python(tmp_path, content))
    assert np.array_equal(found.x, CIFAR.reshape(2, 3, 32, 32).astype(np.float32) / np.float32(255))
    assert found.y is not None
    assert found.y.tolist() == [7, 1]


class _Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    content = pickle.dumps({b"data": CIFAR, b"labels": [7, 1], b"more": _Hostile(victim)}, protocol=3)
    with pytest.raises(ReadError, match=r"its pickle asks for (posix|nt)\.mkdir"):
        load("cifar10", cifar_python(tmp_path, content))
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        official()[:200],
        official(kind=b"O8"),
        official(module=b"builtins"),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": CIFAR}, protocol=3),
        pickle.dumps({b"data": CIFAR, b"labels": [7]}, protocol=3),
        pickle.dumps({b"data": CIFAR, b"labels": [7, 10]}, protocol=3),
        pickle.dumps({b"data": CIFAR, b"labels": [7, "one"]}, protocol=3),
        pickle.dumps({b"data": CIFAR.astype(float), b"labels": [7, 1]}, protocol=3),
        pickle.dumps({b"data": CIFAR[:, :5], b"labels": [7, 1]}, protocol=3),
        pickle.dumps({b"data": eval, b"labels": [7, 1]}, protocol=3),
    ],
)
def test_pickles_that_are_refused(tmp_path: Path, content: bytes) -> None:
    root = cifar_python(tmp_path, content)
    with pytest.raises(ReadError) as caught:
        load("cifar10", root)
    assert caught.value.where == str(root / "cifar-10-batches-py" / "test_batch")
    assert "\n" not in str(caught.value)


def event(x: int, y: int, on: int, time: int) -> bytes:
    return bytes([x, y, on << 7 | time >> 16, time >> 8 & 255, time & 255])


def test_events(tmp_path: Path) -> None:
    path = tmp_path / "1.bin"
    path.write_bytes(event(1, 2, 0, 5) + event(33, 0, 1, 70_000) + event(1, 2, 0, 6) + event(7, 8, 1, 299_999))
    x, y, polarity, time = formats.read_events(path)
    assert (x.tolist(), y.tolist(), polarity.tolist()) == ([1, 33, 1, 7], [2, 0, 2, 8], [0, 1, 0, 1])
    assert time.tolist() == [5, 70_000, 6, 299_999]
    frames = Cut(3, 9).counts(read_nmnist(path), 34, (34, 34), path)  # windows of 100 ms
    assert frames.sum() == 4
    assert frames[0, 0, 2, 1] == 2
    assert frames[0, 1, 0, 33] == 1
    assert frames[2, 1, 8, 7] == 1
    seen = Cut(3, 9, window=30).counts(read_nmnist(path), 34, (15, 15), path)  # cells of 2 x 2, pixel 33 outside
    assert seen.sum() == 3
    assert (seen[0, 0, 1, 0], seen[2, 1, 4, 3]) == (2, 1)


def test_both_layouts_of_nmnist(tmp_path: Path) -> None:
    official_root, subset_root = tmp_path / "a", tmp_path / "b"
    for digit, name in ((7, "00001"), (2, "00002")):
        folder = official_root / "N-MNIST" / "Test" / str(digit)
        folder.mkdir(parents=True)
        (folder / f"{name}.bin").write_bytes(event(digit, 0, 1, 10) + event(digit, 0, 1, 11))
    (subset_root / "nmnist-small" / "events").mkdir(parents=True)
    (subset_root / "nmnist-small" / "test100.txt").write_text("#id\tclass\n60001\t7\n60002\t2\n")
    for number, digit in ((60001, 7), (60002, 2)):
        path = subset_root / "nmnist-small" / "events" / f"{number}.bs2"
        path.write_bytes(event(digit, 0, 1, 10) + event(digit, 0, 1, 11))
    left, right = (load("nmnist:test", root, steps=2, most=2) for root in (official_root, subset_root))
    assert np.array_equal(left.x, right.x)
    assert left.y is not None
    assert left.y.tolist() == [7, 2]
    assert left.x[0, :, 1, 0, 7].tolist() == [0, 2]
    assert load("nmnist:test", official_root, steps=2, most=1).x.max() == 1
    with pytest.raises(ReadError, match="Train holds no recordings"):
        load("nmnist:train", official_root, steps=2)
    with pytest.raises(ReadError, match=r"lacks train1K\.txt"):
        load("nmnist:train", subset_root, steps=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"1234", "4 bytes are no whole number of events"), (event(34, 0, 0, 0), "off the sensor")],
)
def test_recordings_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "1.bin"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=message):
        Cut(3).counts(read_nmnist(path), 34, (34, 34), path)

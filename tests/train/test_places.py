"""Fetching data sets, from a server on this machine."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from snncompile.errors import ReadError
from snncompile.train.data import load
from snncompile.train.places import PLACES, Archive, Place, fetch
from tests.train.test_formats import CIFAR, IDX_IMAGES, IDX_LABELS


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def offered(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path, base: str, files: dict[str, bytes]) -> None:
    """The set's place with these files, served here; the first source of each is out of order."""
    archives = []
    for file, content in files.items():
        (folder / file).write_bytes(content)
        md5 = hashlib.md5(content).hexdigest()
        archives.append(Archive(file, (f"{base}not-there/{file}", base + file), md5))
    monkeypatch.setitem(PLACES, name, dataclasses.replace(PLACES[name], archives=tuple(archives)))


def mnist() -> dict[str, bytes]:
    return {
        f"{start}-{kind}-ubyte.gz": gzip.compress(content)
        for start in ("train", "t10k")
        for kind, content in (("images-idx3", IDX_IMAGES), ("labels-idx1", IDX_LABELS))
    }


def test_files_are_fetched_and_read(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "mnist", *served, mnist())
    root = tmp_path / "data"
    assert fetch("mnist", root) == root / "mnist"
    assert len(load("mnist:train", root)) == 3
    assert [path.name for path in root.iterdir()] == ["mnist"]
    monkeypatch.setitem(PLACES, "mnist", Place(("mnist",), "nowhere"))
    assert fetch("mnist", root) == root / "mnist"  # it is there: nothing is fetched


def tar(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


def test_archives_are_unpacked(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = bytes([3]) + CIFAR[0].tobytes()
    content = tar({f"cifar-10-batches-bin/{name}.bin": batch for name in ("test_batch", "data_batch_1")})
    offered(monkeypatch, "cifar10", *served, {"cifar-10-binary.tar.gz": content})
    fetch("cifar10", tmp_path)
    assert np.array_equal(load("cifar10:test", tmp_path).x[0] * 255, CIFAR[0].reshape(3, 32, 32))
    assert sorted(path.name for path in (tmp_path / "cifar-10-batches-bin").iterdir()) == [
        "data_batch_1.bin",
        "test_batch.bin",
    ]


def test_zips_of_class_folders(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.train.test_recordings import aedat2

    files = {}
    for name in ("airplane", *["automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr(f"{name}/cifar10_{name}_0.aedat", aedat2((1, 1, 1, 1)))
        files[f"{name}.zip"] = whole.getvalue()
    offered(monkeypatch, "cifar10-dvs", *served, files)
    fetch("cifar10-dvs", tmp_path)
    assert load("cifar10-dvs:train", tmp_path, steps=1).y.tolist() == list(range(10))


def test_zips_of_splits(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = bytes([5, 6, 0x80, 0, 1])  # x, y, polarity and time
    files = {}
    for split in ("Train", "Test"):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for digit in (0, 7):
                archive.writestr(f"{split}/{digit}/0000{digit}.bin", event)
        files[f"{split}.zip"] = whole.getvalue()
    assert [archive.name for archive in PLACES["nmnist"].archives] == list(files)
    offered(monkeypatch, "nmnist", *served, files)
    fetch("nmnist", tmp_path)
    found = load("nmnist:test", tmp_path, steps=1)
    assert found.y.tolist() == [0, 7]
    assert np.argwhere(found.x[0, 0]).tolist() == [[1, 6, 5]]


def test_every_archive_has_a_checksum_and_an_address() -> None:
    for place in PLACES.values():
        for archive in place.archives:
            assert len(bytes.fromhex(archive.md5)) == 16
            assert all(source.startswith(("https://", "http://")) for source in archive.sources)
    every = [archive.md5 for place in PLACES.values() for archive in place.archives]
    assert len(set(every)) == len(every) == 22


def test_a_content_that_is_not_the_official_one(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "mnist", *served, mnist())
    (served[0] / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    root = tmp_path / "data"
    said = rf"t10k-labels-idx1-ubyte\.gz cannot be fetched .*MD5 .*, not .*; put .* into {root}/mnist$"
    with pytest.raises(ReadError, match=said):
        fetch("mnist", root)
    assert list(root.iterdir()) == []


def test_an_archive_that_leaves_its_place(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "cifar100", *served, {"cifar-100-binary.tar.gz": tar({"../../escaped": b"x"})})
    root = tmp_path / "deep" / "data"
    with pytest.raises(ReadError, match="cannot be written"):
        fetch("cifar100", root)
    assert not list(tmp_path.rglob("escaped"))
    assert list(root.iterdir()) == []


def test_what_cannot_be_fetched_says_what_to_put_where(tmp_path: Path) -> None:
    for name, place in (("imagenet", "imagenet"), ("dvs-gesture", "DvsGesture")):
        with pytest.raises(ReadError, match=rf"cannot be fetched .*put .* into {tmp_path}/{place}"):
            fetch(name, tmp_path)
    with pytest.raises(ReadError, match=rf"put .*into {tmp_path}/mnist, or train with --download"):
        load("mnist", tmp_path)


def test_cifar_100(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    record = bytes([19, 99]) + CIFAR[1].tobytes()
    (folder / "test.bin").write_bytes(record)
    found = load("cifar100:test", tmp_path)
    assert found.y is not None
    assert found.y.tolist() == [99]
    assert (len(found.classes), found.classes[99], found.classes[0]) == (100, "worm", "apple")
    assert np.array_equal(found.x[0] * 255, CIFAR[1].reshape(3, 32, 32))
    (folder / "test.bin").write_bytes(bytes([19, 100]) + CIFAR[1].tobytes())
    with pytest.raises(ReadError, match="label 100 is none of 100 classes"):
        load("cifar100:test", tmp_path)


def test_cifar_100_for_python(tmp_path: Path) -> None:
    import pickle

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    content = {b"data": CIFAR, b"fine_labels": [98, 0], b"coarse_labels": [1, 2], b"batch_label": b"testing batch"}
    (folder / "test").write_bytes(pickle.dumps(content, protocol=3))
    assert load("cifar100:test", tmp_path).y.tolist() == [98, 0]


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_checksums_are_those_of_the_real_files(name: str) -> None:
    from snncompile.train.places import folder_of

    folder = folder_of(name, None)
    for archive in PLACES[name].archives:
        content = (folder / archive.name).read_bytes()
        assert hashlib.md5(content).hexdigest() == archive.md5
        assert struct.unpack(">I", gzip.decompress(content)[:4])[0] in (0x0803, 0x0801)

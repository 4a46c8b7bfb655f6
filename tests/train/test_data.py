"""Data sets: the shipped one, the real ones where they are at hand, files, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from snncompile.errors import ReadError
from snncompile.recipe import DataSettings, Recipe
from snncompile.train.data import ROOT_VARIABLE, load, load_for
from snncompile.train.frames import Cut
from snncompile.train.streamed import described


def test_digits_are_shipped_and_split_by_class() -> None:
    train, test = load("digits:train"), load("digits:test")
    assert train.x.shape == (1442, 1, 8, 8)
    assert test.x.shape == (355, 1, 8, 8)
    assert train.y is not None
    assert test.y is not None
    # the class counts of the UCI test file
    assert (np.bincount(train.y) + np.bincount(test.y)).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(test.y).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert (train.x.min(), train.x.max()) == (0.0, 1.0)
    assert not set(map(bytes, train.x)) & set(map(bytes, test.x))
    # the first sample of the file, a zero: row 1 is 0 0 5 13 9 1 0 0
    assert (train.x[0, 0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert train.y[0] == 0
    assert train.static


def test_counts_take_the_first() -> None:
    few, all_of_them = load("digits:test:7"), load("digits")
    assert len(few) == 7
    assert np.array_equal(few.x, all_of_them.x[:7])
    assert few.digest != all_of_them.digest
    assert few.digest == load("digits:test:7").digest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "no such data set; did you mean digits?"),
        ("digits:valid", "no split 'valid'"),
        ("digits:test:none", "'none' is no count"),
        ("digits:test:0", "'0' is no count"),
    ],
)
def test_specs_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ReadError, match=re.escape(message)):
        load(spec)


def test_missing_data_say_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    with pytest.raises(ReadError, match="no data folder is named"):
        load("mnist")
    with pytest.raises(ReadError, match=r"looked for fashion-mnist, FashionMNIST/raw.*github.com/zalandoresearch"):
        load("fashion-mnist", tmp_path)
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(ReadError, match=r"lacks t10k-images-idx3-ubyte.gz or t10k-images-idx3-ubyte;"):
        load("mnist")


def test_a_network_of_another_shape_is_told() -> None:
    with pytest.raises(ReadError, match=r"samples are \[1, 8, 8\] \(the network takes \[1, 28, 28\]\)"):
        load("digits", shape=(1, 28, 28))


def test_normalisation_is_that_of_the_recipe(small) -> None:
    recipe = small(data={"mean": [0.5], "std": [0.25]})
    assert np.array_equal(load_for(recipe, "test").x, (load("digits").x - 0.5) / 0.25)
    assert np.array_equal(load_for(recipe, "digits:test:3").x, (load("digits:test:3").x - 0.5) / 0.25)
    assert np.array_equal(load_for(small(), "test").x, load("digits").x)


def test_arrays_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    images, frames = np.arange(12.0).reshape(3, 1, 2, 2), np.ones((3, 4, 1, 2, 2), np.uint8)
    np.savez(path, x=images, y=np.array([2, 1, 0]))
    found = load(f"{path}:2", shape=(1, 2, 2), steps=4)
    assert found.static
    assert found.x.dtype == np.float32
    assert np.array_equal(found.x, images[:2])
    assert found.y is not None
    assert found.y.tolist() == [2, 1]
    np.savez(path, x=frames)
    found = load(str(path), shape=(1, 2, 2), steps=4)
    assert not found.static
    assert found.y is None
    np.save(tmp_path / "mine.npy", frames)
    assert np.array_equal(load(str(tmp_path / "mine.npy"), shape=(1, 2, 2)).x, frames)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "holds z (the samples are called x)"),
        ({"x": np.zeros((3, 2, 2, 2))}, "x is [3, 2, 2, 2] (the network takes [N, 1, 2, 2] or [N, T, 1, 2, 2])"),
        ({"x": np.zeros((3, 5, 1, 2, 2))}, "x has 5 steps (the network runs 4)"),
        ({"x": np.full((3, 1, 2, 2), np.nan)}, "not a finite number"),
        ({"x": np.array(["a"])}, "not a finite number"),
        ({"x": np.zeros((3, 1, 2, 2)), "y": np.zeros(2, int)}, "y is int64 [2]"),
        ({"x": np.array([{}], dtype=object)}, "is no array file that can be read"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(ReadError, match=re.escape(message)) as caught:
        load(str(path), shape=(1, 2, 2), steps=4)
    assert caught.value.where == str(path)


def test_truncated_array_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.zeros((3, 1, 2, 2)))
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError, match="is no array file"):
            load(str(path), shape=(1, 2, 2))
    with pytest.raises(ReadError, match="needs the network's input shape"):
        load(str(path))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_header_whose_bracket_has_no_other_end(tmp_path: Path, name: str) -> None:
    """NumPy says it with an error of its tokenizer."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8), ".ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(24)
    path = tmp_path / name
    if path.suffix == ".npy":
        path.write_bytes(array)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", array)
    assert described(path) is None
    with pytest.raises(ReadError, match="is no array file that can be read"):
        load(str(path), shape=(8,))


def test_an_archive_that_asks_for_a_password(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((2, 8)))
    content = bytearray(path.read_bytes())
    for begin, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(begin) + flags] |= 1
    path.write_bytes(content)
    assert described(path) is None
    with pytest.raises(ReadError, match=r"is no array file that can be read \(.*password"):
        load(str(path), shape=(8,))


def test_data_need_no_torch() -> None:
    code = "import snncompile.train.data, snncompile.recipe, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# The real data sets


@pytest.mark.data
@pytest.mark.parametrize(
    ("spec", "shape", "labels", "mean"),
    [
        ("mnist:train", (60000, 1, 28, 28), [5, 0, 4, 1, 9], 0.1307),
        ("mnist:test", (10000, 1, 28, 28), [7, 2, 1, 0, 4], 0.1325),
        ("fashion-mnist:train", (60000, 1, 28, 28), [9, 0, 0, 3, 0], 0.2860),
        ("cifar10-subset:train:1000", (1000, 3, 32, 32), [0, 1, 2, 3, 4], 0.4753),
    ],
)
def test_real_images(spec: str, shape: tuple[int, ...], labels: list[int], mean: float) -> None:
    found = load(spec)
    assert found.x.shape == shape
    assert found.y is not None
    assert found.y[:5].tolist() == labels
    assert found.x.mean(dtype=np.float64) == pytest.approx(mean, abs=0.02 if shape[0] == 1000 else 1e-4)
    assert len(found.classes) == 10


@pytest.mark.data
def test_real_events() -> None:
    spikes = load("nmnist:test:20", steps=10)
    counts = load("nmnist:test:20", steps=10, most=255)
    assert spikes.x.shape == (20, 10, 2, 34, 34)
    assert not spikes.static
    assert spikes.x.max() == 1
    assert np.array_equal(spikes.x, counts.x > 0)
    # about 4,108 events a recording, says the data's description; every one is in some frame
    assert 2000 < counts.x.sum() / 20 < 6000
    assert load_for(Recipe.load("nmnist-tet"), "test:20").digest == spikes.digest
    with pytest.raises(ReadError, match="need a number of steps"):
        load("nmnist")


def test_frames_that_were_cut_before(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10-dvs"
    folder.mkdir()
    x = np.random.default_rng(1).integers(0, 4, (3, 2, 2, 8, 8)).astype(np.uint8)
    np.savez(folder / "test.npz", x=x, y=np.array([7, 0, 2]))
    split = load("cifar10-dvs:test:2", tmp_path, shape=(2, 8, 8), steps=2, most=1)
    assert not split.static
    assert np.array_equal(split.x, x[:2] > 0)
    assert split.y.tolist() == [7, 0]
    with pytest.raises(ReadError, match="cut into 2 frames"):
        load("cifar10-dvs:test", tmp_path, steps=3)
    for spec, cut in (("", Cut(2, division="maximum", most=0)), (":2", Cut(2, most=3))):
        settings = DataSettings("cifar10-dvs", most=cut.most, division=cut.division, frames="count")
        expected = np.stack([cut.limited(one) for one in x])[: int(spec[1:] or 3)]
        assert expected.any()
        for held in (True, False):
            found = load(f"cifar10-dvs:test{spec}", tmp_path, shape=(2, 8, 8), steps=2, settings=settings, held=held)
            assert found.held == held
            assert found.x.dtype == expected.dtype
            assert np.array_equal(np.asarray(found.x), expected)
    np.savez(folder / "test.npz", x=x.astype(float), y=np.array([7, 0, 2]))
    with pytest.raises(ReadError, match="does not hold frames"):
        load("cifar10-dvs", tmp_path, steps=2)
    with pytest.raises(ReadError, match=r"train\.npz"):
        load("cifar10-dvs:train", tmp_path, steps=2)

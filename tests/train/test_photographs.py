"""ImageNet's folders, on JPEG files made here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snncompile.errors import ReadError, ToolError
from snncompile.train.data import load, load_for

COLOURS = {"n01440764": (200, 30, 60), "n01443537": (20, 180, 90)}


def imagenet(root: Path, size: tuple[int, int] = (90, 70)) -> Path:
    """Two classes of one colour each, three pictures for training and one for the test."""
    for split, count in (("train", 3), ("val", 1)):
        for name, colour in COLOURS.items():
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", size, colour).save(folder / f"{name}_{number}.JPEG", quality=95)
    return root


def gradient(path: Path, size: tuple[int, int]) -> None:
    """Red grows to the right, green downwards."""
    red = np.linspace(0, 255, size[0], dtype=np.uint8)[None, :].repeat(size[1], 0)
    green = np.linspace(0, 255, size[1], dtype=np.uint8)[:, None].repeat(size[0], 1)
    Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=2)).save(path, quality=100, subsampling=0)


def test_folders_are_classes(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    train, test = (load(f"imagenet:{split}", root, shape=(3, 32, 32)) for split in ("train", "test"))
    assert train.x.shape == (6, 3, 32, 32)
    assert train.y is not None
    assert train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.y is not None
    assert test.y.tolist() == [0, 1]
    assert train.classes == tuple(COLOURS)
    assert not train.held
    for image, colour in zip(test.batch(np.arange(2)), COLOURS.values(), strict=True):
        assert np.abs(image * 255 - np.array(colour)[:, None, None]).max() <= 3
    few = load("imagenet:train:2", root, shape=(3, 32, 32))
    assert few.y is not None
    assert few.y.tolist() == [0, 1]


def test_the_middle_is_cut_out_of_a_scaled_picture(tmp_path: Path) -> None:
    """100 x 70 for a frame of 56: the shorter side becomes 64, so red goes from (91 - 56) / 2 of 91 on."""
    root = imagenet(tmp_path)
    gradient(tmp_path / "imagenet" / "val" / "n01440764" / "n01440764_0.JPEG", (100, 70))
    x = load("imagenet:test", root, shape=(3, 56, 56)).batch(np.array([0]))[0]
    assert x.dtype == np.float32
    columns = (np.arange(56) + 0.5 + 17.5) / 91 * 100 - 0.5
    assert np.abs(x[0].mean(axis=0) - columns / 99).max() < 0.02
    rows = (np.arange(56) + 0.5 + 4) / 64 * 70 - 0.5
    assert np.abs(x[1].mean(axis=1) - rows / 69).max() < 0.02


def test_training_sees_windows_that_epoch_and_sample_choose(small, tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    gradient(tmp_path / "imagenet" / "train" / "n01440764" / "n01440764_0.JPEG", (100, 70))
    network = {"input": [3, 16, 16], "architecture": "2FC"}
    plain = load_for(small(network=network, data={"name": "imagenet"}), "train", root)
    drawn = load_for(small(network=network, data={"name": "imagenet", "augment": "resized-crop-flip"}), "train", root)
    chosen = np.array([0, 3])
    assert np.array_equal(plain.batch(chosen, 1), plain.batch(chosen))
    assert np.array_equal(drawn.batch(chosen), plain.batch(chosen))  # outside of training
    one = drawn.batch(chosen, 1)
    assert np.array_equal(one, drawn.batch(chosen, 1))
    assert np.array_equal(one[:1], drawn.batch(np.array([0]), 1))
    assert not np.array_equal(one[0], drawn.batch(chosen, 2)[0])
    mirrored = [bool(x[0, 8, 15] < x[0, 8, 0]) for x in (drawn.batch(np.array([0]), epoch)[0] for epoch in range(60))]
    assert 15 < sum(mirrored) < 45


def test_files_that_are_refused(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    path = tmp_path / "imagenet" / "val" / "n01440764" / "n01440764_0.JPEG"
    whole = path.read_bytes()
    for damaged in (b"", b"no image", whole[:300]):
        path.write_bytes(damaged)
        with pytest.raises(ReadError, match="is no image that can be read"):
            load("imagenet:test", root, shape=(3, 32, 32)).batch(np.array([0]))
    with pytest.raises(ReadError, match="needs the network's input shape"):
        load("imagenet:test", root)
    (tmp_path / "empty" / "imagenet" / "val").mkdir(parents=True)
    with pytest.raises(ReadError, match=r"holds no classes with images; .*image-net\.org"):
        load("imagenet:test", tmp_path / "empty", shape=(3, 32, 32))


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = imagenet(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ToolError, match=r"Pillow, which .* not installed; pip install 'snncompile\[images\]'"):
        load("imagenet:test", root, shape=(3, 32, 32))

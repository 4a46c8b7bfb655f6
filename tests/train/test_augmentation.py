"""What training samples undergo: what it does, and that it is a function of (seed, epoch, sample) alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import ReadError
from snncompile.train.augmentation import crop_and_flip, drawn_for, roll_and_flip
from snncompile.train.batches import Ahead
from snncompile.train.data import load, load_for
from snncompile.train.photographs import window
from snncompile.train.samples import Decoded

IMAGE = np.arange(1.0, 127.0, dtype=np.float32).reshape(3, 6, 7)


def shifted(x: np.ndarray, down: int, right: int, black: float) -> np.ndarray:
    """The picture moved, pixel by pixel."""
    out = np.full_like(x, black)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            if 0 <= row - down < x.shape[1] and 0 <= column - right < x.shape[2]:
                out[:, row, column] = x[:, row - down, column - right]
    return out


def test_crops_and_mirrors_of_images() -> None:
    black = np.full((3, 1, 1), -0.5, np.float32)
    possible = {}
    for down in range(-4, 5):
        for right in range(-4, 5):
            moved = shifted(IMAGE, down, right, -0.5)
            possible[moved.tobytes()] = possible[moved[..., ::-1].tobytes()] = (down, right)
    augment, seen, mirrored = crop_and_flip(black), set(), 0
    for index in range(2000):
        found = augment(IMAGE, drawn_for(1, 2, index))
        seen.add(possible[np.ascontiguousarray(found).tobytes()])
        mirrored += bool((np.diff(found[0], axis=1) == -1).any())
    assert {down for down, _ in seen} == {right for _, right in seen} == set(range(-4, 5))
    assert 700 < mirrored < 1300


@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(0, 2**31))
def test_rolls_keep_every_event_and_all_frames_alike(seed: int, epoch: int, index: int) -> None:
    x = np.random.default_rng(0).integers(0, 5, (3, 2, 16, 16)).astype(np.uint8)
    x[1:] = x[0]
    found = roll_and_flip(x, drawn_for(seed, epoch, index))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(np.sort(found, axis=None), np.sort(x, axis=None))
    moves = [
        np.roll(one, (down, right), (-2, -1))
        for one in (x, x[..., ::-1])
        for down in range(-5, 6)
        for right in range(-5, 6)
    ]
    assert any(np.array_equal(found, move) for move in moves)


def test_it_is_a_function_of_seed_epoch_and_sample(small) -> None:
    split = load_for(small(data={"augment": "crop-flip"}), "train")
    chosen = np.array([3, 77, 500])
    one = split.batch(chosen, 4)
    assert np.array_equal(one, split.batch(chosen, 4))
    assert np.array_equal(one[[1]], split.batch(np.array([77]), 4))  # whatever the batch
    assert not np.array_equal(one, split.batch(chosen, 5))
    assert not np.array_equal(one, dataclasses.replace(split, seed=8).batch(chosen, 4))
    assert np.array_equal(split.batch(chosen), load("digits:train").x[chosen])  # outside of training: as it is
    assert load_for(small(), "train").augment is None


def test_the_first_epoch_and_sample_do_not_share_their_draws_with_the_order() -> None:
    order = np.random.default_rng([5, 0]).integers(0, 2**60)
    assert drawn_for(5, 0, 0).integers(0, 2**60) != order


def test_black_stays_black_behind_a_normalisation(small) -> None:
    recipe = small(data={"augment": "crop-flip", "mean": [0.5], "std": [0.25]})
    split = load_for(recipe, "train")
    x = dataclasses.replace(split, x=np.full((1, 1, 8, 8), 2.0, np.float32)).batch(np.zeros(20, int), 0)
    assert set(np.unique(x).tolist()) <= {-2.0, 2.0}


def test_threads_change_nothing(small) -> None:
    split = load_for(small(data={"augment": "crop-flip"}), "train")
    x = np.asarray(split.x)
    decoded = Decoded(len(x), x.shape[1:], x.dtype, lambda index, _: x[index], b"")
    batches = np.array_split(np.arange(60), 7)
    for one, other in zip(
        Ahead(split, batches, 1), Ahead(dataclasses.replace(split, x=decoded), batches, 1), strict=True
    ):
        assert np.array_equal(one, other)


def test_an_error_in_a_thread_is_told_and_ends_the_epoch(small) -> None:
    def damaged(index: int, _: object) -> np.ndarray:
        raise ReadError("is damaged", where=f"file {index}")

    split = dataclasses.replace(load_for(small(), "train"), x=Decoded(9, (1,), np.uint8, damaged, b""))
    with pytest.raises(ReadError, match="is damaged"), Ahead(split, [np.array([1])] * 5, 0) as ahead:
        list(ahead)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 999))
def test_windows_of_photographs_are_inside(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = window(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height

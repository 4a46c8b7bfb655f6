"""Data sets batch by batch: the samples of the whole set, and nothing of them kept."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AsfSettings
from snncompile.train.data import load, load_for
from snncompile.train.encoders import encoded
from snncompile.train.samples import Decoded
from snncompile.train.set_batches import SetBatches, nir_batches, set_batches
from snncompile.train.stored import Stored
from tests import tiny

DIGITS = tiny.recipe()
NORMAL = replace(DIGITS, data=replace(DIGITS.data, mean=(0.3,), std=(0.4,)))
ASF = Recipe.load("mnist-mini-asf-cpu")
SPIKES = replace(ASF, input=(1, 8, 8), data=replace(ASF.data, name="digits"))  # drawn, of the index of a sample


def opened(spec: str, recipe: Recipe) -> SetBatches:
    found = set_batches(spec, None, recipe, recipe.input, recipe.steps)
    assert found is not None
    return found


@pytest.mark.parametrize("recipe", [DIGITS, NORMAL, SPIKES], ids=["plain", "normalised", "drawn"])
@pytest.mark.parametrize("spec", ["digits:test:37", "test:37", "train:37"])
def test_batches_are_the_set_wherever_they_begin(spec: str, recipe: Recipe) -> None:
    split = load_for(recipe, spec)
    whole = encoded(recipe, np.asarray(split.x))
    found = opened(spec, recipe)
    assert len(found) == 37
    assert found.y is not None
    np.testing.assert_array_equal(found.y, split.y)
    for source in (found, pickle.loads(pickle.dumps(found))):
        np.testing.assert_array_equal(np.concatenate(list(source.batches(0, 37, 10))), whole)
        parts = list(source.batches(5, 23, 7))
        assert [len(part) for part in parts] == [7, 7, 4]
        np.testing.assert_array_equal(np.concatenate(parts), whole[5:23])
        assert parts[0].dtype == whole.dtype
    assert (recipe is SPIKES) == (whole.dtype == np.int8)
    if recipe is SPIKES:
        assert isinstance(recipe.settings, AsfSettings)


def test_nothing_is_kept() -> None:
    found = opened("test:37", NORMAL)
    made: list[int] = []
    assert isinstance(found.split.x, Decoded)
    decode = found.split.x.decode
    found.split.x.decode = lambda index, drawn: (made.append(index), decode(index, drawn))[1]
    for _ in range(2):
        list(found.batches(0, 37, 10))
    assert made == [*range(37)] * 2
    assert found.split.x._kept is None


def test_a_network_without_a_recipe_is_shown_the_set_as_it_is() -> None:
    found = set_batches("digits:test:9", None, None, (1, 8, 8), 4)
    assert found is not None
    np.testing.assert_array_equal(np.concatenate(list(found.batches(0, 9, 4))), load("digits:test:9").x)


@pytest.mark.data
def test_recordings_are_cut_one_by_one() -> None:
    recipe = Recipe.load("nmnist-tet")
    whole = np.asarray(load_for(recipe, "test:12").x)
    np.testing.assert_array_equal(np.concatenate(list(opened("test:12", recipe).batches(0, 12, 5))), whole)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("recipe", [True, False])
def test_frames_that_are_cut_already(packed: bool, recipe: bool, tmp_path: Path) -> None:
    """Clipped, normalised where the recipe says so, wherever a batch begins; refused as the whole set is."""
    draw = np.random.default_rng(2)
    x, y = draw.integers(0, 5, (23, 4, 2, 48, 48)).astype(np.uint8), draw.integers(0, 10, 23)
    (tmp_path / "cifar10-dvs").mkdir()
    path = tmp_path / "cifar10-dvs" / "test.npz"
    (np.savez_compressed if packed else np.savez)(path, x=x, y=y)
    own = Recipe.load("cifar10dvs-vggsnn-tet")
    own = replace(own, data=replace(own.data, mean=(0.3, 0.1), std=(0.4, 0.2)), settings=replace(own.settings, steps=4))
    spec = "cifar10-dvs:test:21"
    found = set_batches(spec, str(tmp_path), own if recipe else None, (2, 48, 48), 4)
    split = load_for(own, spec, tmp_path) if recipe else load(spec, tmp_path, shape=(2, 48, 48), steps=4)
    whole = np.asarray(split.x)
    assert found is not None
    assert (len(found), found.steps) == (21, 4)
    assert found.y is not None
    np.testing.assert_array_equal(found.y, y[:21])
    assert isinstance(found.split.x, Stored)
    for source in (found, pickle.loads(pickle.dumps(found))):
        np.testing.assert_array_equal(np.concatenate(list(source.batches(0, 21, 8))), whole)
        np.testing.assert_array_equal(np.concatenate(list(source.batches(5, 19, 8))), whole[5:19])
    np.testing.assert_array_equal(found.split.x[np.array([7, 2])], whole[[7, 2]])
    for wrong in ({"x": x.astype(np.int16), "y": y}, {"x": x, "y": y[:3]}, {"x": x}, {"x": x[:, :3], "y": y}):
        np.savez(path, **wrong)
        with pytest.raises(ReadError):
            set_batches(spec, str(tmp_path), None, (2, 48, 48), 4)


@pytest.fixture(params=["grid", "events"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray[Any, Any]]:
    """NIR data of 11 samples, 6 steps and 8 neurons."""
    grid = np.random.default_rng(1).random((11, 6, 8)) < 0.3
    seen = nir.TimeGriddedData(grid, 1e-3)
    shown = seen if request.param == "grid" else seen.to_event(48, 0.0)
    nir.write_data(tmp_path / "x.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"spikes": shown})}))
    return tmp_path / "x.nir", grid.reshape(11, 6, 2, 2, 2)


def test_nir_data_batch_by_batch(recorded: tuple[Path, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    path, grid = recorded
    np.testing.assert_array_equal(load(str(path), shape=(2, 2, 2), steps=6).x, grid)
    found = nir_batches(str(path), "input", (2, 2, 2), 6)
    few = nir_batches(f"{path}:4", "input", (2, 2, 2), 6)
    assert found is not None
    assert few is not None
    assert (len(found), len(few), found.y) == (11, 4, None)
    monkeypatch.setattr("snncompile.frontends.nir_data.MOST_NUMBERS", 4 * 48)  # of events, no more are put on a grid
    for source in (found, pickle.loads(pickle.dumps(found))):
        np.testing.assert_array_equal(np.concatenate(list(source.batches(0, 11, 4))), grid)
        np.testing.assert_array_equal(np.concatenate(list(source.batches(2, 9, 3))), grid[2:9])


def test_nir_data_that_do_not_fit_are_read_whole(recorded: tuple[Path, np.ndarray[Any, Any]]) -> None:
    path, _ = recorded
    assert nir_batches("x.npz", "input", (2, 2, 2), 6) is None
    assert nir_batches(str(path.with_name("none.nir")), "input", (2, 2, 2), 6) is None
    assert nir_batches(str(path), "input", (2, 2, 3), 6) is None


@pytest.mark.parametrize("spec", ["a.npz", "b.npy:3", "c.nir", "digit:test", "cats"])
def test_what_is_no_data_set(spec: str) -> None:
    assert set_batches(spec, None, DIGITS, DIGITS.input, DIGITS.steps) is None
    assert set_batches("test", None, None, DIGITS.input, DIGITS.steps) is None


def test_refusals_are_those_of_the_whole_set(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("digits:other", {}),
        ("digits:test:none", {}),
        ("mnist", {"root": str(tmp_path)}),
        ("digits:test", {"shape": (3, 8, 8), "recipe": None}),
    ]
    for spec, other in cases:
        words = {"root": None, "recipe": DIGITS, "shape": DIGITS.input, "steps": 3} | other
        with pytest.raises(ReadError):
            set_batches(spec, **words)

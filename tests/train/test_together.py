"""Several processes train every method as the rule says: gradients in float64, and resuming through the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from snncompile.recipe import Recipe
from snncompile.train.checkpoint import load_checkpoint, save_checkpoint
from snncompile.train.data import load_for
from snncompile.train.networks import Network
from snncompile.train.teachers import teacher_recipe
from tests.train import one_step
from tests.train.every_method import METHODS, recipe_of
from tests.train.one_step import SAMPLES, gradient
from tests.train.test_processes import KEEPING, together
from tests.train.test_resuming import same, written

TERMS = 2.0**16
"""More numbers than are added up, one after the other, on the way to any of these gradients."""
NORMED = [name for name in METHODS if not name.startswith(("asf", "ide"))]  # asf has no norm; ide iterates together


def teacher_for(recipe: Recipe, weights: Path) -> Path | None:
    if recipe.method != "idsnn":
        return None
    torch.manual_seed(1)
    save_checkpoint(weights, Network(teacher_recipe(recipe)), {"finished": True}, load_for(recipe, "train"))
    return weights


@dataclass(frozen=True)
class Shared:
    """A recipe, its teacher's weights, and the gradients that two processes have; equal to the bit."""

    recipe: Recipe
    teacher: Path | None
    gradients: dict[str, Tensor]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Shared]:
    """Of every method, with batch norm and without: all in one start of two processes."""
    folder = tmp_path_factory.mktemp("together")
    wanted = [(name, False) for name in METHODS] + [(name, True) for name in NORMED]
    files, recipes = {}, {}
    for name, norm in wanted:
        (folder / f"{name}-{norm}").mkdir()
        recipes[name, norm] = recipe_of(name, folder / f"{name}-{norm}", norm=norm)
        files[name, norm] = written(recipes[name, norm], folder / f"{name}-{norm}.toml")
        teacher_for(recipes[name, norm], Path(f"{files[name, norm]}.teacher"))
    assert together(folder, one_step.__file__, *files.values()) == [0, 0], (folder / "log0").read_text()
    found = {}
    for key, file in files.items():
        left, right = (torch.load(f"{file}.gradients{rank}", weights_only=True) for rank in range(2))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
        teacher = Path(f"{file}.teacher")
        found[key] = Shared(recipes[key], teacher if teacher.is_file() else None, left)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_without_batch_norm_two_processes_have_the_gradient_of_one(
    name: str, shared: dict[tuple[str, bool], Shared]
) -> None:
    """Sums in another order differ by ``terms u sum |terms|`` at most; magnitudes are those of single samples."""
    own = shared[name, False]
    whole = gradient(own.recipe, own.teacher, np.arange(SAMPLES))
    size = dict.fromkeys(whole, 0.0)
    for index in range(SAMPLES):
        alone = gradient(own.recipe, own.teacher, np.array([index]))
        size = {key: size[key] + float(alone[key].abs().max()) for key in size}
    for key, expected in whole.items():
        assert expected.abs().max() > 0 or not key.endswith(".weight"), key
        assert float((own.gradients[key] - expected).abs().max()) <= TERMS * 2.0**-53 * size[key], key


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes have: sums of several threads go in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NORMED)
def test_with_batch_norm_the_gradient_is_that_of_the_parts(name: str, shared: dict[tuple[str, bool], Shared]) -> None:
    own, chosen = shared[name, True], np.arange(SAMPLES)
    parts = [gradient(own.recipe, own.teacher, chosen[rank::2]) for rank in range(2)]
    left, right = (len(chosen[rank::2]) * 2 / SAMPLES / 2 for rank in range(2))
    for key, value in own.gradients.items():
        assert torch.equal(value, parts[0][key] * left + parts[1][key] * right), key


@pytest.mark.parametrize("name", ["tit", "asf", "idsnn", "ide-lif"])
def test_two_processes_resume_every_method_to_the_bit(name: str, tmp_path: Path) -> None:
    changes = {"training": {"samples": 200, "epochs": 2}}
    if not name.startswith(("tit", "asf")):
        changes["network"] = {"dropout": 0.2}
    recipe = recipe_of(name, tmp_path, **changes)
    whole, parted, kept = tmp_path / "whole.pt", tmp_path / "parted.pt", tmp_path / "parted.pt.resume"
    if recipe.method == "idsnn":
        teacher = teacher_for(recipe, tmp_path / "teacher.pt")
        recipe = recipe_of(name, tmp_path, idsnn={"weights": str(teacher)}, **changes)
    file = written(recipe, tmp_path / "recipe.toml")
    (tmp_path / "keeping.py").write_text(KEEPING)
    done = together(tmp_path, tmp_path / "keeping.py", kept, "train", file, "-o", whole)
    assert done == [0, 0], (tmp_path / "log0").read_text()
    assert kept.is_file()
    assert (tmp_path / "log1").read_text() == ""
    resumed = together(tmp_path, "-m", "snncompile", "train", file, "-o", parted, "--resume")
    assert resumed == [0, 0], (tmp_path / "log0").read_text()
    assert same(whole, parted)
    left, right = (load_checkpoint(path).metrics for path in (whole, parted))
    assert {key: left[key] for key in ("loss", "train_accuracy", "test_accuracy")}.items() <= right.items()


def test_two_processes_train_a_teacher_and_then_its_student(tmp_path: Path) -> None:
    recipe = recipe_of("idsnn", tmp_path, training={"samples": 200, "epochs": 1})
    file, out = written(recipe, tmp_path / "recipe.toml"), tmp_path / "student.pt"
    assert together(tmp_path, "-m", "snncompile", "train", file, "-o", out) == [0, 0], (tmp_path / "log0").read_text()
    assert load_checkpoint(tmp_path / "student.teacher.pt").metrics["finished"]
    assert load_checkpoint(out).metrics["teacher"] == "small-ann"

"""TIT and teachers in one command: two stages, and an interruption inside and between them changes no bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.loop import Outcome, resume_path, train
from snncompile.train.methods import course_of
from snncompile.train.methods.tet import Tet


def recipe(**changes: dict[str, Any]) -> Recipe:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "staged", "summary": "a test", "method": "tet", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": "4C3S2-10FC"},
        "tet": {"steps": 2, "lambda": 0.05, "phi": 1.0},
        "tit": {"steps": 4, "epochs": 2, "learning_rate": 0.001},
        "training": {"epochs": 2, "batch": 128, "learning_rate": 0.01, "seed": 7},
        "data": {"name": "digits"},
    }
    for table, entries in changes.items():
        tables[table].update(entries)
    return Recipe.from_dict(tables, "a test")


def quiet(line: str) -> None:
    pass


def stopped_after(epoch: int, of: Recipe, out: Path) -> Outcome:
    """Interrupted while the epoch behind ``epoch`` runs."""

    def stop(line: str) -> None:
        if line.startswith(f"epoch {epoch}/"):
            raise KeyboardInterrupt

    return train(of, None, out, log=stop)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).weights


def test_the_second_stage_inherits_weights_and_statistics_and_has_its_own_steps_and_optimiser() -> None:
    course = course_of(recipe())
    assert isinstance(course, Tet)
    assert (course.steps, course.total_epochs, course.training.learning_rate) == (2, 4, 0.01)
    course.begin_epoch(0)
    course.network.train()
    course.step(torch.rand(16, 1, 8, 8), torch.arange(16) % 10)
    before = {name: value.clone() for name, value in course.network.state_dict().items()}
    assert course.optimiser.state
    course.history = [{}, {}]
    course.begin_epoch(2)
    assert (course.steps, course.network.steps, course.training.learning_rate) == (4, 4, 0.001)
    assert not course.optimiser.state
    assert all(torch.equal(value, before[name]) for name, value in course.network.state_dict().items())
    assert course.learning_rate(0, 10) == pytest.approx(0.001)
    assert recipe().steps == 4
    assert Recipe.from_dict(recipe().to_dict(), "again") == recipe()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resuming_inside_and_between_the_stages_gives_the_same_bits(tmp_path: Path, epoch: int) -> None:
    whole, parted = tmp_path / "whole.pt", tmp_path / "parted.pt"
    assert train(recipe(), None, whole, log=quiet).finished
    assert not stopped_after(epoch, recipe(), parted).finished
    assert resume_path(parted).is_file()
    assert train(recipe(), None, parted, resume=True, log=quiet).finished
    one, other = weights(whole), weights(parted)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_recipe_without_a_second_stage_has_one() -> None:
    tables = recipe().to_dict()
    del tables["tit"]
    course = course_of(Recipe.from_dict(tables, "a test"))
    assert isinstance(course, Tet)
    assert (course.total_epochs, course.steps) == (2, 2)


def test_the_baseline_learns_from_the_mean(tmp_path: Path) -> None:
    tables = recipe(tet={"loss": "sdt"}).to_dict()
    del tables["tit"]
    done = train(Recipe.from_dict(tables, "a test"), None, tmp_path / "sdt.pt", log=quiet)
    assert done.metrics["train_accuracy"] > 0.5


# Teachers


def taught(tmp_path: Path, **student: Any) -> Recipe:
    common: dict[str, Any] = {
        "training": {"epochs": 2, "batch": 128, "learning_rate": 0.01, "seed": 7},
        "data": {"name": "digits"},
    }
    teacher: dict[str, dict[str, Any]] = {
        "recipe": {"name": "teacher", "summary": "a test", "method": "ann", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": "8C3S2-10FC"},
        "ann": {"steps": 1},
        **common,
    }
    lines = []
    for table, entries in teacher.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
    (tmp_path / "teacher.toml").write_text("\n".join(lines), encoding="utf-8")
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "student", "summary": "a test", "method": "idsnn", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": "4C3S2-10FC"},
        "neuron": {"decay": 0.25, "threshold": 0.5, "surrogate": "rectangle", "surrogate_width": 0.5},
        "idsnn": {"steps": 2, "teacher": str(tmp_path / "teacher.toml")} | student,
        **common,
    }
    return Recipe.from_dict(tables, "a test")


def test_one_command_trains_the_teacher_and_then_the_student(tmp_path: Path) -> None:
    said: list[str] = []
    done = train(taught(tmp_path), None, tmp_path / "out.pt", log=said.append)
    assert done.finished
    assert said[0].startswith("student: its teacher teacher first")
    assert load_checkpoint(tmp_path / "out.teacher.pt").metrics["finished"]
    assert done.metrics["teacher"] == "teacher"
    named = taught(tmp_path, weights=str(tmp_path / "out.teacher.pt"))
    assert train(named, None, tmp_path / "named.pt", log=quiet).finished
    one, other = weights(tmp_path / "out.pt"), weights(tmp_path / "named.pt")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("where", ["teacher", "student"])
def test_an_interruption_of_either_changes_no_bit(tmp_path: Path, where: str) -> None:
    of = taught(tmp_path)
    assert train(of, None, tmp_path / "whole.pt", log=quiet).finished
    seen = 0

    def stop(line: str) -> None:
        nonlocal seen
        seen += line.startswith("epoch 1/")
        if line.startswith("epoch 1/") and seen == (1 if where == "teacher" else 2):
            raise KeyboardInterrupt

    assert not train(of, None, tmp_path / "parted.pt", log=stop).finished
    assert train(of, None, tmp_path / "parted.pt", resume=True, log=quiet).finished
    one, other = weights(tmp_path / "whole.pt"), weights(tmp_path / "parted.pt")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_student_without_a_teacher_of_its_own_has_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"out.pt: there is nothing to resume"):
        train(taught(tmp_path), None, tmp_path / "out.pt", resume=True, log=quiet)
    assert not (tmp_path / "out.teacher.pt").exists()


def test_resuming_gives_up_no_other_checkpoint_nor_trains_a_teacher_before_it_says_so(tmp_path: Path) -> None:
    student, out = taught(tmp_path), tmp_path / "out.pt"
    assert train(Recipe.load(str(tmp_path / "teacher.toml")), None, out, log=quiet).finished
    before = out.read_bytes()
    (tmp_path / "out.teacher.pt.resume").write_bytes(b"begun")
    said: list[str] = []
    with pytest.raises(ReadError, match=r"out.pt: exists"):
        train(student, None, out, resume=True, log=said.append)
    assert out.read_bytes() == before
    assert said == []

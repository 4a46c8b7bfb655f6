"""Who taught a network stands in its checkpoint, in what is exported from it, and in what is shown of both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from snncompile.cli import main
from tests.train.every_method import recipe_of
from tests.train.test_resuming import written


def shown(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words), "-q"]) == 0
    return capfd.readouterr().out


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    recipe = recipe_of("idsnn", folder, training={"epochs": 1, "samples": 200})
    file = written(recipe, folder / "student.toml")
    assert main(["train", str(file), "-o", str(folder / "student.pt"), "-q"]) == 0
    return folder / "student.pt"


@pytest.mark.parametrize("target", [["loihi"], ["onnx"], ["onnx", "--float"], ["nir"]], ids=" ".join)
def test_the_manifest_names_it(
    target: list[str], taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sha256 = hashlib.sha256(taught.with_name("student.teacher.pt").read_bytes()).hexdigest()
    checks = [] if "--float" in target else ["--no-verify"]
    assert main(["export", str(taught), "--target", *target, "-o", str(tmp_path / "out"), *checks, "-q"]) == 0
    capfd.readouterr()
    source = json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]
    assert source["teacher"] == {"name": "small-ann", "sha256": sha256}
    assert source["sha256"] == hashlib.sha256(taught.read_bytes()).hexdigest()
    if target == ["loihi"]:
        assert f"taught by small-ann, SHA-256 {sha256}\n" in shown(capfd, "show", tmp_path / "out")
        assert f"Taught by small-ann (SHA-256 {sha256[:12]})" in (tmp_path / "out" / "report.md").read_text()
    assert f"taught by small-ann, SHA-256 {sha256}\n" in shown(capfd, "show", taught)
    assert json.loads(shown(capfd, "show", taught, "--format", "json"))["teacher"] == source["teacher"]


def test_training_in_integers_keeps_it(taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "integers.pt"
    recipe = taught.with_name("student.toml")
    words = ["train", str(recipe), "--quantise", "loihi", "--from", str(taught), "-o", str(out)]
    assert main([*words, "-q"]) == 0
    capfd.readouterr()
    assert shown(capfd, "show", out).splitlines()[1] == shown(capfd, "show", taught).splitlines()[1]


def test_a_network_that_nobody_taught(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "taught by" not in shown(capfd, "show", saved)
    assert "teacher" not in json.loads(shown(capfd, "show", saved, "--format", "json"))


@pytest.mark.parametrize("damage", [{"teacher": 3}, {"teacher_sha256": "f00"}, {"teacher_sha256": None}])
def test_a_teacher_that_is_damaged(
    damage: dict[str, object], taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(taught, weights_only=True)
    content["metrics"] |= damage
    torch.save(content, tmp_path / "damaged.pt")
    assert main(["show", str(tmp_path / "damaged.pt"), "-q"]) == 4
    assert "does not say who taught it (table metrics); train again" in capfd.readouterr().err

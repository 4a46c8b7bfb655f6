"""``export --equilibrium``: refused without it, said and measured with it; and teachers are not exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snncompile.cli import main
from snncompile.recipe import Recipe
from snncompile.train.checkpoint import save_checkpoint
from snncompile.train.data import load_for
from tests.tiny import network

THREE = "Loop(4C3-6C3S2-6C3|4T3S2)-10FC"


def saved(path: Path, method: str, architecture: str, settings: dict[str, Any]) -> Path:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "loop", "summary": "a test", "method": method, "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": architecture},
        "neuron": {"decay": 1.0, "threshold": 2.0, "fires": ">=", "reset": "subtract"},
        method: settings,
        "training": {"epochs": 1, "batch": 16, "learning_rate": 0.05, "seed": 3},
        "data": {"name": "digits"},
    }
    of = Recipe.from_dict(tables, "a test")
    train = load_for(of, "train")
    assert train.y is not None
    save_checkpoint(path, network(of), {"epoch": 1}, replace(train, x=train.x[:8], y=train.y[:8]))
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    return saved(tmp_path / "loop.pt", "ide", THREE, {"steps": 10})


def test_a_short_loop_is_refused_unless_the_equilibrium_is_asked_for(
    loop: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    said = refused(6, "export", loop, "--target", "loihi-custom", "-o", tmp_path / "out")
    assert "has a delay of 1 step and needs 3" in said


def test_the_bundle_says_that_it_is_not_spike_exact_and_by_how_much(
    loop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(loop), "--target", "loihi-custom", "-o", str(out), "--equilibrium", "-q"]) == 0
    assert "EQUILIBRIUM-EQUIVALENT, not spike-exact" in capfd.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["spike_exact"] is False
    rungs = {rung["level"]: rung for rung in manifest["verification"]["rungs"]}
    assert set(rungs["fixed"]["rate_error"]) == {"lif1", "lif2", "lif3"}
    assert rungs["timed"]["verdict"] == "bit-equal"
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "conv2 arrives 1 step later than trained" in report
    assert "mean rate error lif1" in report


def test_what_needs_no_equilibrium_is_spike_exact_with_it(tmp_path: Path) -> None:
    single, out = saved(tmp_path / "single.pt", "ide", "Loop(8FC|8FC)-10FC", {"steps": 6}), tmp_path / "out"
    assert main(["export", str(single), "--target", "loihi-custom", "-o", str(out), "--equilibrium", "-q"]) == 0
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["spike_exact"] is True


def test_a_teacher_has_no_spikes_to_export(tmp_path: Path, refused: Callable[..., str]) -> None:
    teacher = saved(tmp_path / "teacher.pt", "ann", "4C3-10FC", {"steps": 1})
    assert "ReLU is no spiking neuron" in refused(4, "export", teacher, "-o", tmp_path / "out")

"""``--quantise`` goes on in a target's integers whatever method trained the reals, and what it leaves is deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snncompile.cli import main
from tests.train.test_resuming import written

SUBTRACT = {"reset": "subtract", "fires": ">="}
BARE = {"norm": False, "bias": False, "dense_bias": False}
CASES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "tet": ("loihi", {"tet": {"steps": 4, "lambda": 0.05, "phi": 1.0}}),
    "sdt": ("loihi", {"tet": {"steps": 4, "lambda": 0.0, "phi": 1.0, "loss": "sdt"}}),
    "asf": ("loihi", {"asf": {"steps": 8}, "network": BARE}),
    "dsr": ("loihi-custom", {"dsr": {"steps": 8}, "neuron": SUBTRACT}),
    "ide": ("loihi-custom", {"ide": {"steps": 8}, "neuron": SUBTRACT | {"decay": 1.0}}),
    "idsnn": ("loihi", {"idsnn": {"steps": 4, "teacher": "teacher.toml"}, "network": {"bias": False}}),
}


@pytest.mark.parametrize("method", CASES)
def test_every_method_goes_on_in_integers(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNNCOMPILE_NO_LAVA", "1")
    target, tables = CASES[method]
    named = {"method": "tet" if method == "sdt" else method}
    shape = {"architecture": "Loop(4C3S2|4C3)-10FC"} if method == "ide" else {}
    network = shape | tables.get("network", {})
    common = {"training": {"epochs": 1}, "quantise": {"target": target, "samples": 256}}
    if method == "idsnn":
        teacher = small(recipe={"method": "ann", "name": "teacher"}, ann={}, network=network, training={"epochs": 1})
        written(teacher, Path("teacher.toml"))
    given: dict[str, Any] = common | tables | {"recipe": named, "network": network}
    file, out = written(small(**given), Path("small.toml")), tmp_path / "out.pt"
    assert main(["train", str(file), "-o", str(out), "-q"]) == 0
    capsys.readouterr()
    words = ["verify", str(out), "--target", target, "--data", "digits:test:8", "--format", "json", "-q"]
    assert main(words) == 0
    rungs = json.loads(capsys.readouterr().out)["rungs"]
    assert {rung["verdict"] for rung in rungs[1:6]} == {"bit-equal"}, rungs

"""Bundles for onnxruntime: exported, proven, run, compared; what does not belong together is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from snncompile.backends import net
from snncompile.backends import onnx as backend
from snncompile.cli import main
from snncompile.fixed import FixedPoint
from snncompile.frontends.onnx import load, read_program
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Neuron, Output
from snncompile.ir.signals import Spike
from snncompile.ir.text import same
from snncompile.run import integer
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target

DATA = ["--data", "test:6"]


def told(capfd: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    capfd.readouterr()
    assert main([*map(str, words), "--format", "json", "-q"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    found: dict[str, object] = json.loads(said.out)
    return found


@pytest.mark.parametrize("options", [["--target", "onnx"], ["--target", "loihi", "--device", "onnx"]])
def test_a_bundle_is_proven_run_and_compared(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    out = tmp_path / "out"
    rungs = told(capfd, "export", saved, *options, "-o", out, "--scan")["rungs"]
    assert isinstance(rungs, list)
    assert [rung["verdict"] for rung in rungs[4:]] == ["bit-equal"] * 3
    assert rungs[6]["run_by"] == "onnxruntime"
    assert rungs[6]["compared"] == rungs[5]["compared"] > 0
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"model.onnx", "initial.npz", "test_data_set_0/input_0.pb", "scan/model.onnx"} <= names
    assert not names & {"run_lava.py", "network.net"}
    assert set(json.loads((out / "manifest.json").read_text())["files"]) == names - {"manifest.json"}
    ran = told(capfd, "run", out, *DATA, "--trace", tmp_path / "onnx.npz")
    simulated = told(capfd, "simulate", out, *DATA, "--trace", tmp_path / "cpu.npz")
    assert ran["answers"] == simulated["answers"]
    assert ran["spikes"] == simulated["spikes"]
    one, other = Trace.load(tmp_path / "onnx.npz"), Trace.load(tmp_path / "cpu.npz")
    assert one.potentials.keys() == other.potentials.keys()
    for name, potentials in one.potentials.items():
        np.testing.assert_array_equal(potentials, other.potentials[name])
    assert told(capfd, "verify", out, *DATA)["equal"] is True
    program = read_program(out / "model.onnx")
    backend.demand_same(load(out / "model.onnx"), program, Target.load(options[1]))
    assert same(program.graph, read_program(out / "scan/model.onnx").graph)


def test_what_is_run_does_not_depend_on_the_batches(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large network goes through sample by sample, and what is not asked for is not kept."""
    out = tmp_path / "out"
    told(capfd, "export", saved, "--target", "onnx", "-o", out, "--no-verify")
    whole = told(capfd, "run", out, *DATA, "--trace", tmp_path / "whole.npz")
    monkeypatch.setattr("snncompile.backends.onnxruntime.BATCH_NUMBERS", 1)
    single = told(capfd, "run", out, *DATA)
    assert (single["answers"], single["spikes"]) == (whole["answers"], whole["spikes"])
    assert told(capfd, "run", out, *DATA, "--trace", tmp_path / "single.npz")["spikes"] == whole["spikes"]
    one, other = (Trace.load(tmp_path / f"{name}.npz") for name in ("whole", "single"))
    assert first_divergence(one, other, one.potentials) is None
    assert one.samples == 6


def test_the_float_form_says_what_it_is(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = told(capfd, "export", saved, "--target", "onnx", "--float", "-o", out)
    assert found["guarantee"] == backend.NOT_GUARANTEED
    compared = found["compared"]
    assert isinstance(compared, list)
    assert [entry["against"] for entry in compared] == ["folded", "checkpoint"]
    assert all(entry["compared"] > 0 for entry in compared)
    assert "not bit-guaranteed" in (out / "report.md").read_text()
    assert len(told(capfd, "run", out, *DATA)["answers"]) == 6  # type: ignore[arg-type]
    assert main(["simulate", str(out), *DATA, "-q"]) == 4
    assert "is in reals; `snncompile run` executes it" in capfd.readouterr().err


def test_a_damaged_model_is_refused(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export", str(saved), "--target", "onnx", "-o", str(out), "-q", "--no-verify"]) == 0
    example = out / "test_data_set_0/input_0.pb"
    example.write_bytes(example.read_bytes()[:-1])
    assert main(["run", str(out), *DATA, "-q"]) == 4
    assert "input_0.pb: is not what was exported" in capfd.readouterr().err


def test_what_belongs_to_onnx_alone(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    for option in ("--float", "--scan"):
        said = refused(4, "export", saved, option, "-o", tmp_path / "out")
        assert "belong to ONNX" in said


def test_without_onnxruntime(
    saved: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "install onnx and onnxruntime" in refused(7, "export", saved, "--target", "onnx", "-o", tmp_path / "out")


@pytest.mark.parametrize("options", [["--device", "onnx"], ["--target", "onnx"], ["--target", "onnx", "--float"]])
def test_a_network_of_lava_dl_becomes_a_step_graph(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    weight = FixedPoint(2 * np.arange(-18, 18).reshape(3, 12))
    lif = Neuron(
        (3,),
        alpha=FixedPoint.number(4096, -12),
        beta=FixedPoint.number(300, -12),
        threshold=FixedPoint.number(7),
        bias=FixedPoint.number(3, 1),
        phase=1,
    )
    graph = Graph(
        {"x": Input((12,), Spike()), "fc": Dense(weight), "lif": lif, "out": Output()},
        [Edge("x", "fc", 1), Edge("fc", "lif"), Edge("lif", "out")],
    )
    assert net.export(graph, tmp_path / "network.net", steps=5) is None
    x = np.random.default_rng(0).integers(0, 2, (4, 5, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    given = ["--data", tmp_path / "x.npz"]
    told(capfd, "export", tmp_path / "network.net", *options, "-o", tmp_path / "out", *given)
    spikes = integer.run(graph, {"x": x.astype(np.int64)}, Target.load("loihi")).spikes["lif"]
    ran = told(capfd, "run", tmp_path / "out", *given)
    assert list(ran["spikes"].values()) == [spikes.sum()]  # type: ignore[attr-defined]
    assert 0 < spikes.mean() < 1

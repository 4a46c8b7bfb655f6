"""``network.net`` on the command line: shown, simulated, verified, exported, refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cli import main
from tests.frontends.test_net import Layers, cuba, dense, even, write
from tests.frontends.test_net_neurons import sdnn

Run = Callable[..., Any]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Any:
        assert main([*map(str, words), "-q", "--format", "json"]) == 0
        return json.loads(capfd.readouterr().out)

    return run


@pytest.fixture
def recurrent(tmp_path: Path) -> Path:
    generator = np.random.default_rng(21)
    layers: Layers = [
        {"type": b"input", "shape": [5]},
        dense(even(generator, 6, 5), cuba(3000, 500), weight_rec=even(generator, 6, 6)) | {"type": b"dense_rec"},
        dense(generator.integers(-99, 100, (3, 6)), None),
    ]
    np.savez(tmp_path / "data.npz", x=generator.integers(0, 2, (4, 12, 5)), y=generator.integers(0, 3, 4))
    return write(tmp_path / "network.net", layers)


def test_it_is_shown_and_simulated(recurrent: Path, run: Run) -> None:
    shown = run("show", recurrent)
    assert [node["name"] for node in shown["nodes"]] == [
        *("input", "dense1", "dense1_again", "lif1", "dense2", "readout2", "output")
    ]
    assert shown["neurons"] == 6
    found = run("simulate", recurrent, "--data", recurrent.parent / "data.npz", "--trace", recurrent.parent / "t.npz")
    assert found["samples"] == 4
    assert 0 <= found["accuracy"] <= 1
    with np.load(recurrent.parent / "t.npz") as trace:
        assert trace["lif1.s"].shape == (4, 12, 6)
        assert int(trace["lif1.s"].sum()) == found["spikes"]["lif1"] > 0


@pytest.mark.parametrize("data", ["data.npz", "x.npy", "data.npz:3", "images.npy"])
def test_data_are_read_batch_by_batch(
    data: str, recurrent: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(tmp_path / "data.npz") as arrays:
        np.save(tmp_path / "x.npy", arrays["x"])
        np.save(tmp_path / "images.npy", arrays["x"][:, 0])
    whole = run("simulate", recurrent, "--data", tmp_path / data, "--trace", tmp_path / "t.npz")  # keeps everything
    monkeypatch.setattr("snncompile.commands.imported.by_shape", lambda *_: pytest.fail("they were read whole"))
    monkeypatch.setattr("snncompile.run.shards.BATCH", 2)
    assert run("simulate", recurrent, "--data", tmp_path / data) == whole
    assert run("simulate", recurrent, "--data", tmp_path / data, "--jobs", 2) == whole
    assert sum(whole["operations"].values()) > 0


def test_its_ladder_begins_in_integers(recurrent: Path, run: Run) -> None:
    data = recurrent.parent / "data.npz"
    rungs = run("verify", recurrent, "--data", data)["rungs"]
    assert [(rung["level"], rung["verdict"]) for rung in rungs] == [
        *(("fixed", "recorded"), ("timed", "bit-equal"), ("placed", "bit-equal"), ("device", "left out"))
    ]
    assert rungs[1]["compared"] == 4 * 12 * (6 + 6 + 3)
    assert run("verify", recurrent, f"{recurrent}@cpu", "--data", data)["equal"]


def test_a_bundle_of_it_runs_without_a_recipe(recurrent: Path, run: Run) -> None:
    data, out = recurrent.parent / "data.npz", recurrent.parent / "out"
    run("export", recurrent, "--data", data, "-o", out)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["source"]["name"] == "network.net"
    assert manifest["steps"] == 12
    assert manifest["recipe"] == {}
    left, right = (run("simulate", artifact, "--data", data) for artifact in (recurrent, out))
    assert left["spikes"] == right["spikes"]
    assert left["answers"] == right["answers"]


@pytest.mark.lava
def test_feedback_and_odd_weights_are_the_same_on_lava(recurrent: Path, run: Run) -> None:
    device = run("verify", recurrent, "--data", recurrent.parent / "data.npz")["rungs"][-1]
    assert (device["level"], device["verdict"], device["compared"]) == ("device", "bit-equal", 4 * 12 * 15)


@pytest.mark.lava
def test_images_into_input_neurons_are_the_same_on_lava(tmp_path: Path, run: Run) -> None:
    generator = np.random.default_rng(23)
    image = {"type": b"input", "shape": [1, 4, 4], "weight": 37, "bias": -3, "neuron": cuba(2000, 900, 30)}
    kernel = {"type": b"conv", "shape": [2, 3, 3], "weight": even(generator, 2, 1, 2, 2), "bias": [9, -4]}
    path = write(tmp_path / "n.net", [image, kernel | {"neuron": cuba(2500, 300, 35)}])
    np.savez(tmp_path / "data.npz", x=generator.random((3, 1, 4, 4)))
    device = run("verify", path, "--data", tmp_path / "data.npz")["rungs"][-1]
    assert (device["verdict"], device["compared"]) == ("bit-equal", 3 * (16 + 18) * 2)


def test_what_cannot_be_done_with_it_is_one_line(recurrent: Path, refused: Callable[..., str]) -> None:
    out, data = recurrent.parent / "out", recurrent.parent / "data.npz"
    assert "carries no data; name some with --data" in refused(4, "simulate", recurrent)
    assert "has no level 'torch'" in refused(4, "verify", f"{recurrent}@torch", recurrent, "--data", data)
    said = refused(4, "export", recurrent, "--data", data, "-o", out, "--calibration", data)
    assert "has its integers already" in said
    recurrent.write_bytes(recurrent.read_bytes()[:900])
    assert "is no .net, or a damaged one" in refused(4, "show", recurrent)


def test_neurons_that_are_not_lif_are_simulated_and_not_exported(tmp_path: Path, run: Run, capfd: Any) -> None:
    generator = np.random.default_rng(22)
    layers: Layers = [
        {"type": b"input", "shape": [5], "neuron": sdnn(1)},
        dense(even(generator, 6, 5), sdnn(2)),
        dense(even(generator, 2, 6), sdnn(0, sigma_output=True)),
    ]
    path = write(tmp_path / "n.net", layers)
    np.savez(tmp_path / "data.npz", x=generator.normal(size=(3, 7, 5)))
    found = run("simulate", path, "--data", tmp_path / "data.npz")
    assert set(found["spikes"]) == {"sdnn0", "sdnn1"}
    assert all(found["spikes"].values())
    assert run("show", path)["neurons"] == 13
    assert main(["export", str(path), "--data", str(tmp_path / "data.npz"), "-o", str(tmp_path / "out"), "-q"]) == 6
    said = capfd.readouterr().err
    assert said.count("stock neurons are LIF") == 3
    assert "Output" not in said
    assert not (tmp_path / "out").exists()


def test_integers_that_are_not_the_machines_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = write(tmp_path / "n.net", [dense(np.array([[255, 3, 2]]), cuba())])
    np.savez(tmp_path / "data.npz", x=np.ones((1, 5, 3)))
    said = refused(6, "export", path, "--data", tmp_path / "data.npz", "-o", tmp_path / "out")
    assert "its integers are none of loihi" in said
    assert "`snncompile simulate` runs it as it stands" in said

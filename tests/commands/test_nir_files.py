"""``.nir`` on the command line: shown, simulated, verified, priced, exported, refused; NIR data in and out.

The file is written by the package ``nir``, not by this program.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snncompile.cli import main

Run = Callable[..., Any]
STEPS = 6


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Any:
        assert main([*map(str, words), "-q", "--format", "json"]) == 0, capfd.readouterr().err
        return json.loads(capfd.readouterr().out)

    return run


def lif(*shape: int, threshold: float = 1.0) -> nir.LIF:
    ones = np.ones(shape)
    return nir.LIF(tau=2e-4 * ones, r=2 * ones, v_leak=0 * ones, v_threshold=threshold * ones, v_reset=0 * ones)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Convolution, residual block, average pool, feedback: in float32, as exporters write it."""
    generator = np.random.default_rng(31)

    def drawn(*shape: int) -> Any:
        return (generator.normal(size=shape) * 1.5 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def conv(*shape: int) -> nir.Conv2d:
        bias = -0.1 * generator.random(shape[0], dtype=np.float32)  # Loihi admits no other in front of a loop
        return nir.Conv2d((6, 6), drawn(*shape), 1, 1, 1, 1, bias)

    nodes = {
        "input": nir.Input(np.array([2, 6, 6])),
        "conv1": conv(4, 2, 3, 3),
        "lif1": lif(4, 6, 6, threshold=0.6),
        "conv2": conv(4, 4, 3, 3),
        "lif2": lif(4, 6, 6, threshold=0.5),
        "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flatten": nir.Flatten(np.array([4, 3, 3]), 0, -1),
        "fc": nir.Linear(drawn(8, 36) * 2),
        "lif3": lif(8, threshold=0.5),
        "output": nir.Output(np.array([8])),
    }
    edges = [*pairwise(nodes), ("lif1", "lif2"), ("lif3", "back"), ("back", "lif3")]
    nodes["back"] = nir.Linear(drawn(8, 8))
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes=nodes, edges=edges))
    x = generator.integers(0, 2, (5, STEPS, 2, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=generator.integers(0, 8, 5))
    return tmp_path / "net.nir"


def test_it_is_shown_at_every_level(network: Path, run: Run, capfd: Any) -> None:
    found = run("show", network)
    assert [node["name"] for node in found["nodes"]][:3] == ["input", "conv1", "lif1"]
    assert "r = tau/dt: a step is 0.0001, of Euler" in found["notes"]
    assert run("show", network, "--level", "folded")["neurons"] == 144 + 144 + 8
    placed = run("show", network, "--level", "placed", "--calibration", network.parent / "x.npz")
    assert "read: r = tau/dt: a step is 0.0001, of Euler" in placed["notes"]
    assert main(["show", str(network)]) == 0
    assert "net.nir: r = tau/dt: a step is 0.0001, of Euler" in capfd.readouterr().err


def test_its_ladder_and_its_energy(network: Path, run: Run) -> None:
    data = network.parent / "x.npz"
    rungs = run("verify", network, "--data", data)["rungs"]
    assert [(rung["level"], rung["verdict"]) for rung in rungs] == [
        *(("read", "recorded"), ("folded", "same"), ("fixed", "measured")),
        *(("timed", "bit-equal"), ("placed", "bit-equal"), ("device", "left out")),
    ]
    assert rungs[1]["different"] == 0
    assert run("verify", f"{network}@folded", network, "--data", data)["equal"]
    counted = run("energy", network, "--data", data)
    assert counted["level"] == "folded"
    assert run("energy", network, "--data", data, "--level", "fixed")["level"] == "fixed"


@pytest.mark.parametrize("target", ["loihi", "onnx"])
def test_it_is_exported_and_runs(network: Path, run: Run, target: str) -> None:
    data, out = network.parent / "x.npz", network.parent / "out"
    done = run("export", network, "--target", target, "--data", data, "-o", out)
    assert done["verified"]
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["source"]["name"], manifest["steps"]) == ("net.nir", STEPS)
    assert "read: r = tau/dt: a step is 0.0001, of Euler" in manifest["notes"]
    left, right = (run("simulate", one, "-t", target, "--data", data) for one in (network, out))
    assert left["spikes"] == right["spikes"]
    assert all(left["spikes"].values())
    if target == "onnx":
        assert run("run", out, "--data", data)["spikes"] == left["spikes"]


def test_its_folded_network_is_exported_in_float32(network: Path, run: Run) -> None:
    data, out = network.parent / "x.npz", network.parent / "out"
    done = run("export", network, "--float", "--target", "onnx", "--data", data, "-o", out)
    assert [entry["against"] for entry in done["compared"]] == ["folded"]


@pytest.mark.lava
def test_a_file_of_others_is_the_same_on_lava(network: Path, run: Run) -> None:
    """Integers of the simulator and of real Lava, every spike and potential of every population."""
    rungs = run("verify", network, "--data", network.parent / "x.npz", "--target", "loihi")["rungs"]
    device = rungs[-1]
    assert (device["level"], device["verdict"], device["different"]) == ("device", "bit-equal", 0)
    assert device["compared"] == 2 * 5 * STEPS * (144 + 144 + 8)


def test_nir_data_in_and_out(network: Path, run: Run, tmp_path: Path) -> None:
    """Grid and events give what the .npz gives; a trace goes out as NIR data, and compares, and is data again."""
    with np.load(network.parent / "x.npz") as content:
        x = content["x"].reshape(5, STEPS, -1).astype(bool)
    grid = nir.TimeGriddedData(x, 1e-4)
    for name, one in (("grid", grid), ("events", grid.to_event(x[0].size))):
        nir.write_data(tmp_path / f"{name}.nir", nir.NIRGraphData({"x": nir.NIRNodeData({"spikes": one})}))
    trace, plain = tmp_path / "trace.nir", tmp_path / "trace.npz"
    runs = [
        run("simulate", network, "--calibration", tmp_path / "x.npz", "--data", tmp_path / name, "--trace", to)
        for name, to in (("x.npz", plain), ("grid.nir", trace), ("events.nir", tmp_path / "t.nir"))
    ]
    assert runs[0]["spikes"] == runs[1]["spikes"] == runs[2]["spikes"]
    assert run("verify", plain, trace)["equal"]
    assert run("verify", trace, f"{network}@cpu", "--data", trace, "--calibration", tmp_path / "x.npz")["equal"]
    assert set(run("show", trace)) == {"lif1", "lif2", "lif3"}
    found = nir.read_data(trace).nodes
    assert set(found) == {"input", "lif1", "lif2", "lif3"}
    assert int(found["lif1"].observables["spikes"].data.sum()) == runs[0]["spikes"]["lif1"]
    assert found["lif1"].observables["voltages"].dt == 1e-4


def test_images_need_steps_and_weights_at_the_end_a_reading(tmp_path: Path, run: Run, refused: Any) -> None:
    generator = np.random.default_rng(32)
    nodes = {
        "input": nir.Input(np.array([6])),
        "fc": nir.Linear(generator.normal(size=(5, 6))),
        "lif": lif(5),
        "last": nir.Affine(generator.normal(size=(3, 5)), generator.normal(size=3)),
        "output": nir.Output(np.array([3])),
    }
    nir.write(tmp_path / "n.nir", nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes))))
    np.savez(tmp_path / "x.npz", x=generator.random((4, 6)))
    words = (tmp_path / "n.nir", "--data", tmp_path / "x.npz")
    assert "are images (a file of NIR does not say how long they are shown); --nir steps=T" in refused(
        4, "verify", *words
    )
    said = refused(6, "verify", *words, "--nir", "steps=4")
    assert "output (Output): reads last (Dense), which no population holds" in said
    assert "--nir readout=sum" in said
    found = run("simulate", *words, "--nir", "steps=4,readout=mean")
    assert len(found["answers"]) == 4


def test_what_the_options_cannot_say_is_refused(network: Path, refused: Any, capfd: Any) -> None:
    data = network.parent / "x.npz"
    assert "carries no data; name some with --data" in refused(4, "simulate", network)
    assert "says dt = 0.0001, --dt says 0.001" in refused(4, "show", network, "--dt", 1e-3)
    assert "a .nir has no level 'torch'" in refused(4, "verify", f"{network}@torch", network, "--data", data)
    assert "torch runs checkpoints alone" in refused(4, "energy", network, "--data", data, "--level", "torch")
    assert "--dt belongs to a .nir" in refused(4, "simulate", data, "--data", data, "--dt", 1)
    for words, said in (
        (("--nir", "r=fast"), "argument --nir: r=fast: one of written, step"),
        (("--dt", "0"), "argument --dt: '0' is no length of time above 0"),
        (("--nir-semantics", "magic"), "no 'magic'; one of euler, exact, loihi, sinabs"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["show", str(network), *words])
        assert caught.value.code == 2
        assert said in capfd.readouterr().err
    network.write_bytes(network.read_bytes()[:2000])
    assert "is no .nir, or a damaged one" in refused(4, "show", network)


def test_several_inputs_are_given_by_name(tmp_path: Path, run: Run, refused: Any) -> None:
    """In an .npz or as NIR data, and the bundle takes the same."""
    generator = np.random.default_rng(33)
    nodes = {
        "left": nir.Input(np.array([4])),
        "right": nir.Input(np.array([3])),
        "fc": nir.Linear(generator.normal(size=(4, 3))),
        "both": lif(4, threshold=0.5),
        "output": nir.Output(np.array([4])),
    }
    edges = [("left", "both"), ("right", "fc"), ("fc", "both"), ("both", "output")]
    path, data = tmp_path / "n.nir", tmp_path / "x.npz"
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges))
    x = {name: generator.integers(0, 2, (6, 9, size)).astype(bool) for name, size in (("left", 4), ("right", 3))}
    np.savez(data, **x)
    seen = {name: nir.NIRNodeData({"spikes": nir.TimeGriddedData(values, 1e-4)}) for name, values in x.items()}
    nir.write_data(tmp_path / "x.nir", nir.NIRGraphData(seen))
    found = run("simulate", path, "--data", data, "--trace", tmp_path / "t.nir")
    assert found["spikes"]["both"] > 0
    assert run("simulate", path, "--data", tmp_path / "x.nir")["spikes"] == found["spikes"]
    assert run("simulate", path, "--data", tmp_path / "t.nir")["spikes"] == found["spikes"]
    assert set(nir.read_data(tmp_path / "t.nir").nodes) == {"left", "right", "both"}
    assert run("verify", path, "--data", f"{data}:4")["samples"] == 4
    assert run("energy", path, "--data", data)["level"] == "folded"
    run("export", path, "--data", data, "--target", "onnx", "-o", tmp_path / "out")
    ran = [run("run", tmp_path / "out", "--data", tmp_path / name)["spikes"] for name in ("x.npz", "x.nir")]
    assert ran[0] == ran[1]
    np.savez(tmp_path / "one.npz", left=x["left"])
    assert "has no array 'right'" in refused(4, "simulate", path, "--data", tmp_path / "one.npz")
    assert "is no file for 2 inputs; an .npz with the arrays left, right, or NIR data" in refused(
        4, "show", path, "--calibration", "digits", "--level", "fixed"
    )


def test_a_potential_that_goes_on_runs_in_reals_and_on_no_machine(
    tmp_path: Path, run: Run, refused: Callable[..., str]
) -> None:
    """An LI in front of weights with a bias: counted, run by onnxruntime, written again; machines name it."""
    generator = np.random.default_rng(33)
    nodes = {
        "input": nir.Input(np.array([5])),
        "li": nir.LI(tau=np.full(5, 2e-4), r=np.full(5, 2.0), v_leak=np.zeros(5)),
        "w": nir.Affine(generator.integers(-8, 9, (4, 5)) / 8, generator.integers(-8, 9, 4) / 8),
        "lif": lif(4, threshold=0.5),
        "output": nir.Output(np.array([4])),
    }
    path, data = tmp_path / "li.nir", tmp_path / "x.npz"
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(nodes))))
    np.savez(data, x=generator.integers(0, 2, (3, 20, 5)).astype(np.float32))
    said = refused(6, "simulate", path, "--data", data)
    assert "loihi: li (Readout): its potential goes on to w, the machine's populations send spikes" in said
    onnx = run("export", path, "--target", "onnx", "--float", "--data", data, "-o", tmp_path / "onnx")
    assert [(row["compared"], row["different"]) for row in onnx["compared"]] == [(3 * 20 * 4, 0)]
    again = run("export", path, "--target", "nir", "--data", data, "-o", tmp_path / "out")
    assert [(row["verdict"], row["compared"]) for row in again["rows"][:2]] == [("same", 3 * 20 * 4)] * 2
    spikes = [run("run", tmp_path / out, "--data", data)["spikes"]["lif"] for out in ("onnx", "out")]
    assert spikes[0] == spikes[1] > 0


@pytest.mark.parametrize("form", ["npz", "npy", "grid", "events"])
def test_data_are_read_batch_by_batch(
    form: str, network: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(tmp_path / "x.npz") as arrays:
        x = arrays["x"]
    grid = nir.TimeGriddedData(x.reshape(len(x), STEPS, -1).astype(bool), 1e-4)
    seen = grid.to_event(STEPS * 72) if form == "events" else grid
    nir.write_data(tmp_path / "x.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"spikes": seen})}))
    np.save(tmp_path / "x.npy", x)
    data = tmp_path / f"x.{'nir' if form in ('grid', 'events') else form}"
    whole = run("simulate", network, "--data", data, "--trace", tmp_path / "t.npz")  # keeps everything
    monkeypatch.setattr("snncompile.commands.exchanged.by_shape", lambda *_: pytest.fail("they were read whole"))
    monkeypatch.setattr("snncompile.run.shards.BATCH", 2)
    assert run("simulate", network, "--data", data) == whole
    assert run("simulate", network, "--data", data, "--jobs", 2) == whole
    assert all(whole["spikes"].values())

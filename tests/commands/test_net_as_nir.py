"""``export network.net --target nir``: what is exact and what is not, said and measured; what comes of the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snncompile.backends import nir_gate_integers
from snncompile.cli import main
from snncompile.commands import export_nir
from snncompile.frontends.net import read as read_net
from snncompile.frontends.nir import read
from snncompile.ir.text import same
from snncompile.run.trace import Trace
from tests.commands.test_nir_export import NOBODY
from tests.frontends.test_net import Layers, cuba, dense, even, write
from tests.frontends.test_net_neurons import rf, sdnn
from tests.tiny import nothing_left

Run = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without importers: what they do has tests of its own."""
    script = tmp_path_factory.mktemp("nobody") / "python"
    script.write_text(NOBODY.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("SNNCOMPILE_NIR_PYTHON", str(script))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Any:
        assert main([*map(str, words), "-q", "--format", "json"]) == 0
        return json.loads(capfd.readouterr().out)

    return run


def leaky(folder: Path) -> Path:
    """Input neurons with a bias, a convolution, a recurrent layer with synaptic current, delays, a read-out."""
    generator = np.random.default_rng(41)
    image = {"type": b"input", "shape": [1, 4, 4], "weight": 36, "bias": 34, "neuron": cuba(4096, 1024, 25)}
    kernel = {"type": b"conv", "shape": [2, 3, 3], "weight": even(generator, 2, 1, 2, 2), "bias": [9, -4]}
    layers: Layers = [
        image,
        kernel | {"neuron": cuba(4096, 1024, 35)},
        {"type": b"flatten", "shape": [18, 1, 1]},
        dense(even(generator, 6, 18), cuba(2000, 500), weight_rec=even(generator, 6, 6)) | {"type": b"dense_rec"},
        dense(even(generator, 5, 6), cuba(3000, 700), delay=generator.integers(0, 4, 5)),
        dense(even(generator, 3, 5), None),
    ]
    return write(folder / "leaky.net", layers, simulation={"tSample": 20})


def changes(folder: Path) -> Path:
    generator = np.random.default_rng(42)
    layers: Layers = [
        {"type": b"input", "shape": [5], "neuron": sdnn(1)},
        dense(even(generator, 6, 5), sdnn(2), bias=generator.integers(-9, 9, 6)),
        dense(even(generator, 2, 6), sdnn(0, sigma_output=True)),
    ]
    return write(folder / "changes.net", layers, simulation={"tSample": 9})


def resonating(folder: Path, kind: str) -> Path:
    generator = np.random.default_rng(43)
    weights = {"real": even(generator, 4, 5).astype(np.float32), "imag": even(generator, 4, 5).astype(np.float32)}
    layers: Layers = [
        {"type": b"dense", "shape": [4], "weight": weights, "neuron": rf(kind, 7, 0.2, 25)},
        dense(even(generator, 2, 4), cuba(4096, 0, 20)),
    ]
    return write(folder / "resonating.net", layers, simulation={"tSample": 30})


def test_a_decay_that_rounds_is_said_and_measured(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Every kind of layer: which populations are not the machine's, by how much, on which samples."""
    path, out = leaky(tmp_path), tmp_path / "out"
    found = run("export", path, "--target", "nir", "-o", out)
    assert found["spike_exact"] is False
    assert [row["verdict"] for row in found["rows"]] == [*["same"] * 3, *["not installed"] * 4]
    reasons = found["difference"]["reasons"]
    assert [reason.split(" (")[0] for reason in reasons] == ["lif0", "lif1", "lif3", "lif3", "lif4", "lif4"]
    assert "lif3 (Neuron): its current keeps 0.511719 of itself, which loihi rounds (toward-zero)" in reasons[2]
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["spike_exact"] is False
    assert manifest["difference"] == found["difference"]
    assert manifest["verification"]["data"] == "4 samples drawn with seed 0"
    assert manifest["notes"] == ["input: takes integers, data times 36 to the nearest"]
    measured = {one["population"]: one for one in manifest["difference"]["populations"]}
    assert set(measured) == {"lif0", "lif1", "lif3", "lif4", "readout5"}
    run("simulate", path, "--data", _drawn(path, tmp_path), "--trace", tmp_path / "known.npz")
    run("run", out, "--data", _drawn(path, tmp_path), "--trace", tmp_path / "reals.npz")
    known, reals = Trace.load(tmp_path / "known.npz"), Trace.load(tmp_path / "reals.npz")
    for name, array in known.spikes.items():
        assert measured[name]["compared"] == array.size
        assert measured[name]["different"] == int((array != reals.spikes[name]).sum())
        assert measured[name]["share"] == measured[name]["different"] / array.size
        assert 0 < measured[name]["largest"] <= measured[name]["limit"]
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "NOT spike-exact: the reals of the file are others, because" in report
    assert reasons[0] in report
    assert main(["export", str(path), "--target", "nir", "-o", str(tmp_path / "again"), "-q"]) == 0
    said = capfd.readouterr().out
    assert "NOT SPIKE-EXACT against the integers of loihi:\n  lif0 (Neuron): its potential keeps 0.75 of it" in said
    assert "measured on 4 samples drawn with seed 0:\npopulation  compared  differ " in said


def _drawn(path: Path, folder: Path) -> Path:
    """The samples that are drawn where none are named."""
    graph = read_net(path).graph
    np.savez(folder / "drawn.npz", x=export_nir.drawn.drawn(graph, read_net(path).steps).x)
    return folder / "drawn.npz"


def test_time_constants_are_those_of_the_decays(tmp_path: Path, run: Run) -> None:
    """What users of NIR look for: LIF and CubaLIF, tau from the decays, weights on their lattice."""
    run("export", leaky(tmp_path), "--target", "nir", "-o", tmp_path / "out")
    with h5py.File(tmp_path / "out/model.nir", "r") as file:
        nodes = file["node/nodes"]
        kinds = {name: node["type"][()].decode() for name, node in nodes.items()}
        assert {kinds[name] for name in ("lif0", "lif1")} == {"LIF"}
        assert {kinds[name] for name in ("lif3", "lif4")} == {"CubaLIF"}
        assert np.unique(nodes["lif0/tau"]) == pytest.approx(1e-4 / (1024 / 4096), rel=1e-15)
        assert np.unique(nodes["lif3/tau_syn"]) == pytest.approx(1e-4 / (2000 / 4096), rel=1e-15)
        assert np.unique(nodes["lif3/tau_mem"]) == pytest.approx(1e-4 / (500 / 4096), rel=1e-15)
        assert np.all(np.asarray(nodes["conv1/weight"]) % 2 == 0)
        assert "Scale" not in kinds.values()


@pytest.mark.parametrize(("name", "populations"), [("changes", {"sdnn0", "sdnn1"}), ("RF", {"rf0", "lif1"})])
def test_what_is_drawn_digit_by_digit_is_exact(
    name: str, populations: set[str], tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file, its metadata, its numbers, the bundle: the spikes of the integers, all of them."""
    path = changes(tmp_path) if name == "changes" else resonating(tmp_path, name)
    out, data = tmp_path / "out", _drawn(path, tmp_path)
    found = run("export", path, "--target", "nir", "--data", data, "-o", out)
    assert found["spike_exact"] is True
    assert [(row["reader"], row["verdict"], row["different"]) for row in found["rows"][:2]] == [
        *(("snncompile, integers of loihi", "same", 0), ("snncompile, numbers alone", "same", 0))
    ]
    assert same(read(out / "model.nir").graph, read_net(path).graph)
    runs = [
        run("simulate", path, "--data", data, "--trace", tmp_path / "net.npz"),
        run("simulate", out / "model.nir", "--data", data, "--trace", tmp_path / "nir.npz"),
        run("run", out, "--data", data, "--trace", tmp_path / "run.npz"),
    ]
    assert runs[0]["spikes"] == runs[1]["spikes"] == runs[2]["spikes"]
    assert set(runs[0]["spikes"]) == populations
    assert all(runs[0]["spikes"].values())
    assert run("verify", tmp_path / "net.npz", tmp_path / "nir.npz")["equal"]  # potentials as well
    known, reals = Trace.load(tmp_path / "net.npz"), Trace.load(tmp_path / "run.npz")
    assert all(np.array_equal(reals.spikes[name], array) for name, array in known.spikes.items())
    assert main(["show", str(out / "model.nir"), "-q"]) == 0
    assert "model.nir, NIR, in the integers of loihi, level fixed" in capfd.readouterr().out


def test_a_resonator_in_reals_is_said_and_measured(tmp_path: Path, run: Run) -> None:
    path, out = resonating(tmp_path, "RF_PHASE"), tmp_path / "out"
    found = run("export", path, "--target", "nir", "-o", out)
    assert found["spike_exact"] is False
    (reason,) = found["difference"]["reasons"]
    assert reason.startswith("rf0 (Resonator): its state keeps 0.79")
    first, _ = found["difference"]["populations"]
    assert 0 < first["largest"] <= first["limit"] < 0.3
    with h5py.File(out / "model.nir", "r") as file:
        kinds = {name: node["type"][()].decode() for name, node in file["node/nodes"].items()}
    assert {kinds["rf0_re"], kinds["rf0_im"]} == {"LI"}
    assert kinds["rf0"] == "Threshold"
    assert sorted(kinds.values()).count("Delay") == 3
    data = _drawn(path, tmp_path)
    assert (
        run("simulate", out / "model.nir", "--data", data)["spikes"] == run("simulate", path, "--data", data)["spikes"]
    )
    assert set(run("run", out, "--data", data)["spikes"]) == {"rf0", "lif1"}


def test_the_length_of_a_sample_where_nothing_says_it(tmp_path: Path, run: Run) -> None:
    generator = np.random.default_rng(44)
    path = write(tmp_path / "n.net", [dense(even(generator, 4, 3), cuba(4096, 0))])
    run("export", path, "--target", "nir", "-o", tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["steps"], manifest["spike_exact"]) == (16, True)
    run("export", path, "--target", "nir", "--no-verify", "-o", tmp_path / "quick")
    manifest = json.loads((tmp_path / "quick/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["steps"], manifest["verification"]["rows"]) == (1, [])


def test_large_samples_are_cut_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_nir, "MOST_VALUES", 9 * 3000)
    assert main(["export", str(changes(tmp_path)), "--target", "nir", "-o", str(tmp_path / "out")]) == 0
    said = capfd.readouterr()
    assert "4 samples drawn with seed 0, 9 steps each (--data names others)" in said.err
    assert "of 4 samples; readers run them one by one" in said.err
    assert "spike-exact: every spike is that of the integers of loihi, in samples of 9 steps" in said.out


# What goes wrong leaves nothing


def test_profiles_and_ranges_are_refused_by_name(tmp_path: Path, refused: Refused) -> None:
    path = changes(tmp_path)
    out = tmp_path / "out"
    said = refused(6, "export", path, "--target", "nir", "--nir-profile", "norse", "-o", out)
    assert "sdnn0 (SigmaDelta): is no primitive of NIR" in said
    assert "--nir-profile canonical" in said
    other = resonating(tmp_path, "RF")
    said = refused(6, "export", other, "--target", "nir", "--nir-profile", "snntorch", "-o", out)
    assert "rf0 (Resonator): is no primitive of NIR" in said


def test_a_damaged_file_and_a_wrong_target(tmp_path: Path, refused: Refused, run: Run) -> None:
    path = leaky(tmp_path)
    run("export", path, "--target", "nir", "-o", tmp_path / "good")
    _relabelled(tmp_path / "good/model.nir", "../../etc/passwd")
    said = refused(4, "show", tmp_path / "good/model.nir")
    assert "in the integers of '../../etc/passwd'" in said
    assert "no machine of the catalogue has this name" in said
    path.write_bytes(path.read_bytes()[:900])
    said = refused(4, "export", path, "--target", "nir", "-o", tmp_path / "out")
    assert "is no .net, or a damaged one" in said


def _relabelled(path: Path, target: str) -> None:
    with h5py.File(path, "r+") as file:
        told = json.loads(file["node/metadata/snncompile"][()])
        del file["node/metadata/snncompile"]
        file["node/metadata"].create_dataset("snncompile", data=json.dumps(told | {"integers": target}))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space"), MemoryError])
def test_an_interruption_leaves_nothing(
    error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the gate, when ``model.nir`` is written already: no folder, no part of one; what was there stays."""
    path, out = changes(tmp_path), tmp_path / "out"
    words = ["export", str(path), "--target", "nir", "-o", str(out), "-q"]
    assert main(words) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}

    def stop(*_: object, **__: object) -> None:
        assert list(tmp_path.glob(".*/model.nir"))
        raise error

    monkeypatch.setattr(nir_gate_integers, "in_integers", stop)
    with nothing_left(tmp_path):
        assert main([*words, "--force"]) != 0
        assert main([*words[:-2], str(tmp_path / "other"), "-q"]) != 0
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before


def test_reals_that_are_not_the_integers_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    """A form that is said to be exact and is not: exit code 8, and no bundle."""
    from snncompile.backends import nir_graded

    right = nir_graded._told

    def wrong(draw: Any, v: str, threshold: Any, bias: Any) -> str:
        return right(draw, v, threshold + 1.0, bias)

    monkeypatch.setattr(nir_graded, "_told", wrong)
    said = refused(8, "export", changes(tmp_path), "--target", "nir", "-o", tmp_path / "out")
    assert "is said to be exact; sdnn" in said


def test_snntorch_runs_what_was_a_network_net(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real importer, on a network that the machine rounds: every spike of the reals that were written."""
    monkeypatch.delenv("SNNCOMPILE_NIR_PYTHON")
    generator = np.random.default_rng(45)
    image = {"type": b"input", "shape": [1, 4, 4], "weight": 36, "bias": 34, "neuron": cuba(4096, 1024, 25)}
    kernel = {"type": b"conv", "shape": [2, 3, 3], "weight": even(generator, 2, 1, 2, 2), "bias": [9, -4]}
    layers: Layers = [image, kernel | {"neuron": cuba(4096, 1024, 35)}, dense(even(generator, 5, 18), cuba(2000, 500))]
    path = write(tmp_path / "n.net", layers, simulation={"tSample": 12})
    found = run("export", path, "--target", "nir", "--nir-profile", "snntorch", "-o", tmp_path / "out")
    (row,) = [row for row in found["rows"] if row["reader"] == "snntorch"]
    assert (row["verdict"], row["compared"], row["different"]) == ("same", 4 * 12 * (16 + 18 + 5), 0)
    assert found["spike_exact"] is False

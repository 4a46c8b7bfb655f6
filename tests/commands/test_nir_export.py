"""``export --target nir``: the bundle, the gate on the command line, and what is refused with nothing left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from snncompile.backends import net
from snncompile.backends.nir_file import write
from snncompile.backends.nir_lowering import lower
from snncompile.backends.nir_nodes import written
from snncompile.backends.nir_profiles import PROFILES
from snncompile.cli import main
from snncompile.fixed import FixedPoint
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options
from snncompile.frontends.torch import read as read_checkpoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Dense, Input, Neuron, Output, To
from snncompile.ir.signals import Spike
from snncompile.ir.text import same
from snncompile.passes.fold_norm import fold_norm
from snncompile.run.trace import Trace
from tests.tiny import checkpoint, nothing_left

NOBODY = """#!/bin/sh
exec {python} -c 'print(\"{{}}\")'
"""


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without importers."""
    script = tmp_path_factory.mktemp("nobody") / "python"
    script.write_text(NOBODY.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("SNNCOMPILE_NIR_PYTHON", str(script))


def told(capfd: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert main([*map(str, words), "-q", "--format", "json"]) == 0
    found: dict[str, object] = json.loads(capfd.readouterr().out)
    return found


@pytest.mark.usefixtures("alone")
def test_a_checkpoint_becomes_a_bundle(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The file gives the folded graph of the checkpoint back to the last bit, and runs."""
    out = tmp_path / "out"
    found = told(capfd, "export", saved, "--target", "nir", "-o", out)
    assert found["verified"] is True
    verdicts = [row["verdict"] for row in found["rows"]]  # type: ignore[attr-defined]
    assert verdicts == ["same", "same", *["not installed"] * 4]
    assert same(read(out / "model.nir").graph, fold_norm(read_checkpoint(saved)).graph)
    report = (out / "report.md").read_text()
    assert "Profile canonical" in report
    assert "readout: the mean over the steps" in report
    ran = told(capfd, "run", out, "--data", "digits:test:6")
    known = told(capfd, "run", _onnx(saved, tmp_path, capfd), "--data", "digits:test:6")
    assert ran["answers"] == known["answers"]
    assert main(["simulate", str(out), "--data", "digits:test:6", "-q"]) == 4
    assert "is in reals; `snncompile run` executes it" in capfd.readouterr().err
    (out / "model.nir").write_bytes(b"no")
    assert main(["run", str(out), "--data", "digits:test:6", "-q"]) == 4
    assert "model.nir: is not what was exported" in capfd.readouterr().err


def _onnx(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    told(capfd, "export", saved, "--target", "onnx", "--float", "-o", tmp_path / "onnx")
    return tmp_path / "onnx"


def test_snntorch_is_asked(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The real importer of the extra ``dev``, in a process of its own."""
    words = ["export", str(saved), "--target", "nir", "--nir-profile", "snntorch", "-o", str(tmp_path / "out")]
    assert main([*words, "--data", "digits:test:3", "-q"]) == 0
    said = capfd.readouterr().out
    (row,) = [line for line in said.splitlines() if line.startswith("snntorch ")]
    assert row.split()[4] == "same"
    assert row.split()[3] == "0"
    assert "snntorch.import_nir.import_from_nir" in said


@pytest.mark.usefixtures("alone")
def test_a_file_goes_out_again(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """.nir in, .nir out: the same graph, and for the same profile the same numbers."""
    told(capfd, "export", saved, "--target", "nir", "-o", tmp_path / "one")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 3, 1, 8, 8)).astype(np.float32))
    again = ["--target", "nir", "--data", tmp_path / "x.npy"]
    found = told(capfd, "export", tmp_path / "one/model.nir", *again, "-o", tmp_path / "two")
    assert [row["verdict"] for row in found["rows"]][:2] == ["same", "same"]  # type: ignore[attr-defined]
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert one["numbers"] == two["numbers"]


def test_a_reader_that_parts_leaves_nothing(
    saved: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 8, the first place, and no folder; the reader here answers with nothing but an error."""
    script = tmp_path / "python"
    script.write_text(
        f"""#!{sys.executable}
import json, sys
import numpy as np
if sys.argv[2] == "versions":
    print(json.dumps({{"snntorch": "9"}}))
else:
    np.savez(sys.argv[5], error=np.array(json.dumps(["run", "ValueError", "lost its state"])))
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("SNNCOMPILE_NIR_PYTHON", str(script))
    words = ["export", saved, "--target", "nir", "--nir-profile", "snntorch", "-o", tmp_path / "a/b/out"]
    said = refused(8, *words)
    assert "snntorch 9 is another network: run: ValueError: lost its state" in said
    assert main([*map(str, words[:-2]), "-o", str(tmp_path / "out"), "--nir-profile", "canonical", "-q"]) == 0


@pytest.mark.usefixtures("alone")
def test_soft_resets_are_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    path, x = tmp_path / "soft.nir", _data(tmp_path)
    profile = PROFILES["canonical"]
    write(written(lower(_graph(By(FixedPoint.number(9))), profile, soft=True), profile).net, path)
    said = refused(6, "export", path, "--target", "nir", "--data", x, "-o", tmp_path / "out")
    assert "lif (Neuron): is reset by subtraction" in said
    assert "--soft-reset graph writes it" in said
    found = told(capfd, "export", path, "--target", "nir", "--data", x, "--soft-reset", "graph", "-o", tmp_path / "out")
    assert [row["verdict"] for row in found["rows"]][:2] == ["same", "same"]  # type: ignore[attr-defined]


def _graph(reset: To | By, late: int = 0) -> Graph:
    """A layer in integers; ``late`` for the delay of a machine."""
    lif = Neuron(
        (3,),
        alpha=FixedPoint.number(4096, -12),
        beta=FixedPoint.number(0, -12),
        threshold=FixedPoint.number(9),
        reset=reset,
        phase=late,
    )
    weight = FixedPoint(2 * np.arange(-18, 18).reshape(3, 12))
    return Graph(
        {"x": Input((12,), Spike()), "fc": Dense(weight), "lif": lif, "out": Output()},
        [Edge("x", "fc", late), Edge("fc", "lif"), Edge("lif", "out")],
    )


def _data(folder: Path) -> Path:
    np.savez(folder / "x.npz", x=np.random.default_rng(0).integers(0, 2, (4, 5, 12)).astype(np.float32))
    return folder / "x.npz"


def _network_net(folder: Path) -> Path:
    assert net.export(_graph(To(FixedPoint.number(0)), late=1), folder / "network.net", steps=5) is None
    return folder / "network.net"


@pytest.mark.usefixtures("alone")
def test_integers_of_a_machine_where_reals_are_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A network.net without a leak: the spikes of the chip's integers, from the reals of the file."""
    path, data = _network_net(tmp_path), _data(tmp_path)
    out = tmp_path / "out"
    found = told(capfd, "export", path, "--target", "nir", "--data", data, "-o", out)
    assert [row["verdict"] for row in found["rows"]][:3] == ["same"] * 3  # type: ignore[attr-defined]
    assert found["spike_exact"] is True
    assert found["difference"]["reasons"] == []  # type: ignore[index]
    told(capfd, "run", out, "--data", data, "--trace", tmp_path / "trace.npz")
    known = told(capfd, "simulate", path, "--data", data, "--trace", tmp_path / "known.npz")
    assert known["spikes"]
    one, other = Trace.load(tmp_path / "trace.npz"), Trace.load(tmp_path / "known.npz")
    assert {name: array.tolist() for name, array in one.spikes.items()} == {
        name: array.tolist() for name, array in other.spikes.items()
    }


RECIPE = """
[recipe]
name = "no-leak"
summary = "a test"
method = "tet"
source = "nobody"
[network]
input = [1, 8, 8]
architecture = "4C3-AP2-AP2-10FC"
[neuron]
decay = 1.0
[tet]
steps = 3
lambda = 0.05
phi = 1.0
[training]
epochs = 1
batch = 64
learning_rate = 0.01
seed = 5
[data]
name = "digits"
[quantise]
target = "loihi"
epochs = 1
samples = 100
"""


@pytest.mark.usefixtures("alone")
def test_a_network_trained_in_integers_without_a_leak(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its inputs are integers as well; what it answers is what the chip's integers answer."""
    (tmp_path / "net.toml").write_text(RECIPE)
    path, out = tmp_path / "net.pt", tmp_path / "out"
    assert main(["train", str(tmp_path / "net.toml"), "--quantise", "loihi", "-o", str(path), "-q"]) == 0
    capfd.readouterr()
    found = told(capfd, "export", path, "--target", "nir", "-o", out)
    assert [(row["verdict"], row["different"]) for row in found["rows"]][:3] == [("same", 0)] * 3  # type: ignore[attr-defined]
    ran = told(capfd, "run", out, "--data", "digits:test:30")
    known = told(capfd, "simulate", path, "--data", "digits:test:30")
    assert ran["spikes"] == known["spikes"]
    again = told(capfd, "simulate", out / "model.nir", "--data", "digits:test:30")  # it is in integers still
    assert (again["spikes"], again["answers"]) == (known["spikes"], known["answers"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "nir", "--nir-profile", "nengo"], "no profile is called 'nengo'"),
        (["--target", "nir", "--float"], "belong to machines"),
        (["--target", "nir", "--per-channel"], "belong to machines"),
        (["--target", "loihi", "--nir-profile", "norse"], "belong to NIR"),
        (["--target", "onnx", "--soft-reset", "graph"], "belong to NIR"),
        (["--target", "nir", "--nir-profile", "sinabs"], "lif1 (Neuron): is a leaky population of shape"),
    ],
)
def test_what_does_not_go_together(
    options: list[str], message: str, saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    code = 6 if "leaky" in message else 4
    assert message in refused(code, "export", saved, *options, "-o", tmp_path / "out")


def test_unproven_says_so(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with nothing_left(saved.parent):
        assert main(["export", str(saved), "--target", "nir", "-o", str(tmp_path / "out"), "--no-verify", "-q"]) == 0
    assert "NOT VERIFIED" in capfd.readouterr().out
    assert "Not verified" in (tmp_path / "out/report.md").read_text()
    assert json.loads((tmp_path / "out/manifest.json").read_text())["verification"]["rows"] == []


@pytest.mark.usefixtures("alone")
def test_decays_that_are_not_dyadic(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A network trained with a decay of 0.9: numbers alone give it back to the last bit."""
    path = checkpoint(tmp_path / "net.pt", decay=0.9)
    told(capfd, "export", path, "--target", "nir", "-o", tmp_path / "out")
    beta = read_checkpoint(path).nodes["lif1"].beta  # type: ignore[union-attr]
    found = read(tmp_path / "out/model.nir", Options(metadata="ignore")).graph.nodes["lif1"]
    assert isinstance(found, Neuron)
    assert np.array_equal(found.beta, beta)  # type: ignore[arg-type]

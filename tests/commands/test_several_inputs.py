"""Networks of several inputs and outputs on the command line: an array for each input, by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cli import main
from snncompile.commands import imported
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Output, Readout, To
from snncompile.ir.signals import Fixed, Spike
from snncompile.ir.store import Program
from snncompile.run import integer
from snncompile.target import Target

LOIHI = Target.load("loihi")
STEPS = 6
Run = Callable[..., Any]


def network() -> Graph:
    """An eye (graded image) and an ear (events) meet in a population; two read-outs, and its spikes."""
    numbers = np.random.default_rng(5)

    def even(*shape: int) -> FixedPoint:
        return FixedPoint(2 * numbers.integers(-20, 21, shape))

    def lif(*shape: int) -> Neuron:
        return Neuron(
            shape,
            alpha=FixedPoint.number(4096, -12),
            beta=FixedPoint.number(1024, -12),
            threshold=FixedPoint.number(60),
            bias=FixedPoint.number(3),
            reset=To(FixedPoint.number(0)),
            initial=FixedPoint.number(0),
        )

    nodes = {
        "eye": Input((1, 4, 4), Fixed(5, 0.25)),
        "ear": Input((6,), Spike()),
        "look": Conv(even(3, 1, 3, 3)),
        "seen": lif(3, 2, 2),
        "flat": Flatten(),
        "from_eye": Dense(even(8, 12)),
        "from_ear": Dense(even(8, 6)),
        "both": lif(8),
        "to_what": Dense(even(4, 8)),
        "what": Readout((4,), "sum", FixedPoint.number(0)),
        "to_where": Dense(even(2, 8)),
        "where": Readout((2,), "sum", FixedPoint.number(0)),
        "what_out": Output(),
        "where_out": Output(),
        "spikes": Output(),
    }
    wires = "eye look seen flat from_eye both to_what what what_out", "ear from_ear both to_where where where_out"
    edges = [Edge(a, b) for one in wires for a, b in zip(one.split(), one.split()[1:], strict=False)]
    return Graph(nodes, [*edges, Edge("both", "spikes")])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose network has two inputs: what reads it is put in the place of the reader of ``.net``."""
    program = Program(network(), "fixed", "loihi", STEPS, stream=True)
    monkeypatch.setattr(imported, "read", lambda path: program)
    (tmp_path / "two.net").write_bytes(b"")
    numbers = np.random.default_rng(6)
    eye, ear = numbers.integers(-15, 16, (5, 1, 4, 4)) * 0.25, numbers.integers(0, 2, (5, STEPS, 6))
    np.savez(tmp_path / "data.npz", eye=eye, ear=ear, y=numbers.integers(0, 4, 5))
    return tmp_path / "two.net"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> Any:
        assert main([*map(str, words), "-q", "--format", "json"]) == 0
        return json.loads(capfd.readouterr().out)

    return run


def expected(data: Path) -> dict[str, Any]:
    with np.load(data) as arrays:
        eye, ear = np.rint(arrays["eye"] / 0.25).astype(np.int64), arrays["ear"].astype(np.int64)
    frames = np.broadcast_to(eye[:, None], (5, STEPS, 1, 4, 4))
    trace = integer.run(network(), {"eye": frames, "ear": ear}, LOIHI)
    return {"spikes": trace.spikes, "potentials": trace.potentials}


def test_every_verb_takes_an_array_for_each_input(file: Path, run: Run) -> None:
    data, out = file.parent / "data.npz", file.parent / "out"
    exact = expected(data)
    assert [node["name"] for node in run("show", file)["nodes"] if node["op"] == "Input"] == ["eye", "ear"]
    found = run("simulate", file, "--data", data, "--trace", file.parent / "t.npz")
    assert found["spikes"] == {name: int(spikes.sum()) for name, spikes in exact["spikes"].items()}
    assert min(found["spikes"].values()) > 0
    last = {name: exact["potentials"][name][:, -1].argmax(axis=1).tolist() for name in ("what", "where")}
    assert found["answers"] == last
    with np.load(file.parent / "t.npz") as trace:
        np.testing.assert_array_equal(trace["both.s"], exact["spikes"]["both"])
    verdicts = [rung["verdict"] for rung in run("verify", file, "--data", data)["rungs"]]
    assert verdicts == ["recorded", "bit-equal", "bit-equal", "left out"]
    assert run("verify", f"{file}@fixed", f"{file}@cpu", "--data", data)["equal"]
    first = run("energy", file, "--data", data)["data"]["digest"]
    assert first == run("energy", file, "--data", f"{data}:5")["data"]["digest"]
    assert first != run("energy", file, "--data", f"{data}:4")["data"]["digest"]
    assert run("export", file, "--data", data, "--target", "loihi", "-o", out)["verified"]
    # and the bundle
    assert run("show", out)["nodes"]
    assert run("simulate", out, "--data", data)["answers"] == last
    assert run("simulate", out, "--data", f"{data}:2")["samples"] == 2
    assert run("verify", f"{out}@cpu", f"{out}@placed", "--data", data)["equal"]
    assert run("energy", out, "--data", data)["samples"] == 5
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(manifest["inputs"]) == ["ear", "eye"]


@pytest.mark.parametrize("count", ["", ":3"])
def test_each_array_is_read_batch_by_batch(
    count: str, file: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = f"{tmp_path / 'data.npz'}{count}", tmp_path / "out"
    run("export", file, "--data", data, "--target", "loihi", "-o", out)
    whole = [run("simulate", one, "--data", data, "--trace", tmp_path / "t.npz") for one in (file, out)]
    monkeypatch.setattr(imported, "load_several", lambda *_: pytest.fail("they were read whole"))
    monkeypatch.setattr("snncompile.run.shards.BATCH", 2)
    assert [run("simulate", one, "--data", data) for one in (file, out)] == whole


def test_on_onnxruntime_too(file: Path, run: Run) -> None:
    data, out = file.parent / "data.npz", file.parent / "onnx"
    run("export", file, "--data", data, "--target", "loihi", "--device", "onnx", "-o", out)
    last = {name: expected(data)["potentials"][name][:, -1].argmax(axis=1).tolist() for name in ("what", "where")}
    assert run("run", out, "--data", data)["answers"] == last
    assert run("verify", out, "--data", data)["equal"]


@pytest.mark.lava
def test_on_lava_too(file: Path, run: Run) -> None:
    data, out = file.parent / "data.npz", file.parent / "out"
    rungs = run("export", file, "--data", data, "--target", "loihi", "-o", out)["rungs"]
    assert rungs[-1]["verdict"] == "bit-equal"
    last = {name: expected(data)["potentials"][name][:, -1].argmax(axis=1).tolist() for name in ("what", "where")}
    assert run("run", out, "--data", data)["answers"] == last


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ear": None}, r"has no array 'ear' \(it holds eye, y; the network's inputs are eye, ear\)"),
        ({"ear": np.zeros((4, STEPS, 6))}, r"its inputs differ in samples \(eye 5, ear 4\)"),
        ({"ear": np.zeros((5, STEPS, 7))}, r"ear is \[5, 6, 7\] \(the network takes \[N, 6\] or \[N, T, 6\]\)"),
        ({"ear": np.full((5, STEPS, 6), np.nan)}, r"ear \(float64\) holds something that is not a finite number"),
        ({"eye": np.zeros((5, 3, 1, 4, 4))}, r"its frames differ in steps \(eye 3, ear 6\)"),
        ({"y": np.zeros(4, int)}, r"y is int64 \[4\] \(integers \[5\], one label a sample\)"),
        ({"eye": np.zeros((0, 1, 4, 4)), "ear": np.zeros((0, 6)), "y": None}, r"holds no samples"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    file: Path, refused: Callable[..., str], change: dict[str, Any], said: str
) -> None:
    data = file.parent / "data.npz"
    with np.load(data) as arrays:
        content = {**arrays, **change}
    np.savez(data, **{name: array for name, array in content.items() if array is not None})
    assert re.search(said, refused(4, "simulate", file, "--data", data))


def test_one_array_is_none_for_two_inputs(file: Path, refused: Callable[..., str]) -> None:
    assert "an .npz with the arrays eye, ear" in refused(4, "simulate", file, "--data", "digits:test:4")


def test_frames_of_another_length_than_a_bundle_s_are_refused(
    file: Path, run: Run, refused: Callable[..., str]
) -> None:
    run("export", file, "--data", file.parent / "data.npz", "-o", file.parent / "out")
    np.savez(file.parent / "long.npz", eye=np.zeros((2, 1, 4, 4)), ear=np.zeros((2, STEPS + 1, 6)))
    said = refused(4, "simulate", file.parent / "out", "--data", file.parent / "long.npz")
    assert "its frames differ in steps (ear 7; the network runs 6)" in said

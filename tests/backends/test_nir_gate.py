"""The gate: an importer that is another network closes it, with the first place where it parts; real ones pass it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.backends import nir_gate, nir_runner
from snncompile.backends.nir_file import write
from snncompile.backends.nir_gate import Gate, Row, demand, observed
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_nodes import Written, written
from snncompile.backends.nir_profiles import PROFILES, Profile
from snncompile.errors import Disagreement, NotRepresentable, ToolError
from snncompile.frontends.nir_metadata import pack
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Input, Output
from snncompile.run import reference
from snncompile.run.trace import Trace
from tests.nir_networks import NETWORKS, Torch, conv_net, lif, stimulus

INSTALLED = nir_runner.versions()


def gate(graph: Graph, folder: Path, profile: Profile) -> tuple[Gate, Written]:
    """The gate of a file in ``folder``, on what torch does by hand."""
    lowered = lower(graph, profile, soft=True)
    made = written(lowered, profile)
    base = without_norms(graph)
    write(made.net, folder / "model.nir", pack(base, made.net, dt=profile.dt, profile=profile.name, steps=12))
    x = stimulus(graph)
    top = Trace(Torch(graph).spikes(x))
    return Gate(folder / "model.nir", made, profile, (base, lowered), {"input": x}, top, trained=True), made


class Importer:
    """Stands in for the interpreter that has the importers."""

    def __init__(self, folder: Path, made: Written, judge: Gate) -> None:
        self.folder = folder
        shutil.copy(Path(__file__).with_name("importer.py"), folder / "importer.py")
        script = folder / "python"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {folder / "importer.py"} "$@"\n')
        script.chmod(0o755)
        trace = reference.run(judge.lowered, judge.stimulus)
        right = {f"node.{made.spikes[name]}": array.astype(np.float32) for name, array in trace.spikes.items()}
        value = trace.potentials["output.value"].astype(np.float32)
        np.savez(folder / "right.npz", **right, **{"node.fc2": value})  # type: ignore[arg-type]

    def says(self, **told: Any) -> None:
        versions = dict.fromkeys(told, "9.9")
        (self.folder / "answers.json").write_text(json.dumps({"versions": versions, **told}))


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Gate, Importer]:
    judge, made = gate(conv_net(), tmp_path, PROFILES["spikingjelly"])
    monkeypatch.setenv(nir_gate.INTERPRETER, str(tmp_path / "python"))
    return judge, Importer(tmp_path, made, judge)


def rows(judge: Gate, *importers: str) -> dict[str, Row]:
    return {row.reader: row for row in judge.rows(importers=importers or nir_gate.IMPORTERS)}


def test_what_is_not_installed_has_not_passed(judged: tuple[Gate, Importer]) -> None:
    judge, importer = judged
    importer.says()
    found = rows(judge)
    assert [found[name].verdict for name in nir_gate.IMPORTERS] == ["not installed"] * 4
    assert [row.verdict for row in found.values()][:2] == ["same", "same"]
    neurons = 12 * 3 * (512 + 10)
    assert found["snncompile"].compared == neurons
    assert found["snncompile, numbers alone"].compared == neurons + 12 * 3 * 5


def test_a_reader_that_is_right(judged: tuple[Gate, Importer]) -> None:
    judge, importer = judged
    importer.says(spikingjelly=[])
    row = rows(judge)["spikingjelly"]
    assert (row.verdict, row.different, row.compared) == ("same", 0, 12 * 3 * (512 + 10 + 5))
    demand([row], judge.profile)


def test_the_first_spike_that_differs_closes_the_gate(judged: tuple[Gate, Importer]) -> None:
    """Earliest step first, whatever the order of samples; what follows in a sample is not counted."""
    judge, importer = judged
    importer.says(spikingjelly=[["lif2", 0, 7, 1], ["lif1", 1, 4, 65], ["lif1", 1, 9, 0]])
    row = rows(judge)["spikingjelly"]
    assert (row.verdict, row.different) == ("DIFFERENT", 2)
    assert row.note.startswith("lif1[1, 0, 1], step 4, sample 1: ")
    with pytest.raises(Disagreement, match=r"spikingjelly 9.9 is another network: lif1\[1, 0, 1\], step 4"):
        demand([row], judge.profile)


def test_a_maximum_is_a_population_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its spikes are compared with the maximum of torch's, and no rounding explains one that differs."""
    judge, made = gate(NETWORKS["maximum, overlapping windows, padding"](), tmp_path, PROFILES["spikingjelly"])
    monkeypatch.setenv(nir_gate.INTERPRETER, str(tmp_path / "python"))
    importer = Importer(tmp_path, made, judge)
    importer.says(spikingjelly=[])
    row = rows(judge)["spikingjelly"]
    assert (row.verdict, row.compared) == ("same", 12 * 3 * (512 + 8 * 16 + 10 + 5))
    importer.says(spikingjelly=[["pool", 1, 3, 17]])
    row = rows(judge)["spikingjelly"]
    assert (row.verdict, row.different) == ("DIFFERENT", 1)
    assert row.note.startswith("pool[1, 0, 1], step 3, sample 1: ")


def test_a_tie_inside_its_rounding_bound_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A potential that meets its threshold may go either way in float32; one that does not may not."""
    judge, made = gate(conv_net(), tmp_path, PROFILES["spikingjelly"])
    monkeypatch.setenv(nir_gate.INTERPRETER, str(tmp_path / "python"))
    importer = Importer(tmp_path, made, judge)
    trace = reference.run(judge.graph, judge.stimulus)
    sample, step, *neuron = np.argwhere(trace.potentials["lif1"] == 1.0)[0]
    flat = int(np.ravel_multi_index(neuron, (8, 8, 8)))
    importer.says(spikingjelly=[["lif1", int(sample), int(step), flat]])
    row = rows(judge)["spikingjelly"]
    assert (row.verdict, row.different) == ("explained", 1)
    assert f"step {step}, sample {sample}: 1 spikes here, 0 there" in row.note
    demand([row], judge.profile)


def test_values_of_a_plain_output_count(judged: tuple[Gate, Importer], tmp_path: Path) -> None:
    """A last layer that nobody hears in spikes."""
    judge, importer = judged
    importer.says(spikingjelly=[["fc2", 2, 3, 4]])
    row = rows(judge)["spikingjelly"]
    assert row.verdict == "DIFFERENT"
    assert row.note.startswith("output[4], step 3, sample 2: ")


@pytest.mark.parametrize(
    ("told", "note"),
    [
        ("dies", "MemoryError: out of it"),
        ({"stage": "import", "error": "Unknown node\nand more"}, "import: ValueError: Unknown node"),
    ],
)
def test_a_reader_that_fails(told: object, note: str, judged: tuple[Gate, Importer]) -> None:
    """Closes the gate where the profile answers for it, and is told where it does not."""
    judge, importer = judged
    importer.says(spikingjelly=told, norse=told)
    found = rows(judge)
    assert (found["spikingjelly"].verdict, found["spikingjelly"].note) == ("DIFFERENT", note)
    assert (found["norse"].verdict, found["norse"].note) == ("unreadable", note)


def test_others_are_declared(judged: tuple[Gate, Importer]) -> None:
    judge, importer = judged
    importer.says(snntorch=[["lif1", 0, 0, 0]])
    row = rows(judge)["snntorch"]
    assert row.verdict == "differs"
    assert row.note.startswith("declared: takes > where this file means >=; first lif1[0, 0, 0], step 0")
    demand([row], judge.profile)


def test_an_interpreter_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, _ = gate(conv_net(), tmp_path, PROFILES["canonical"])
    monkeypatch.setenv(nir_gate.INTERPRETER, str(tmp_path / "nothing"))
    with pytest.raises(ToolError, match=r"cannot be run.*SNNCOMPILE_NIR_PYTHON"):
        list(judge.rows())
    monkeypatch.setenv(nir_gate.INTERPRETER, "/bin/true")
    with pytest.raises(ToolError, match=r"does not tell its importers"):
        list(judge.rows())


def test_a_file_of_other_numbers_is_found_by_this_package(tmp_path: Path) -> None:
    """The written file is read again, not what was to be written."""
    judge, _ = gate(conv_net(), tmp_path, PROFILES["canonical"])
    lowered = lower(conv_net(threshold=np.asarray(1.25)), PROFILES["canonical"])
    write(written(lowered, PROFILES["canonical"]).net, tmp_path / "model.nir")
    row = next(row for row in judge.rows() if row.reader == "snncompile, numbers alone")
    assert row.verdict == "DIFFERENT"


def test_several_inputs_are_for_this_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canonical profile writes them, no importer takes them."""
    nodes = {"a": Input((3,)), "b": Input((3,)), "n": lif(3), "output": Output()}
    graph = Graph(nodes, [Edge("a", "n"), Edge("b", "n"), Edge("n", "output")])
    profile = PROFILES["canonical"]
    lowered = lower(graph, profile)
    made = written(lowered, profile)
    write(made.net, tmp_path / "model.nir", pack(graph, made.net, dt=profile.dt, profile=profile.name, steps=4))
    given = {name: np.random.default_rng(0).integers(0, 2, (2, 4, 3)).astype(np.float64) for name in ("a", "b")}
    top = reference.run(graph, given)
    judge = Gate(tmp_path / "model.nir", made, profile, (graph, lowered), given, top, trained=False)
    monkeypatch.delenv(nir_gate.INTERPRETER, raising=False)
    found = rows(judge, "snntorch")
    assert [row.verdict for row in found.values()] == ["same", "same", "unreadable"]
    assert found["snntorch"].note == "takes one input"


def test_outputs_are_observed() -> None:
    graph = conv_net()
    assert [edge.target for edge in observed(graph).out_of("fc2")] == ["output", "output.value"]


# The importers themselves, where they are installed: snnTorch with the extra ``dev``, all but sinabs with ``gate``


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("importer", [name for name in nir_gate.IMPORTERS if name in INSTALLED])
def test_real_importers(importer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is refused for the importer's profile, or is the same network in it, spike by spike."""
    monkeypatch.delenv(nir_gate.INTERPRETER, raising=False)
    try:
        judge, _ = gate(NETWORKS[name](), tmp_path, PROFILES[importer])
    except NotRepresentable:
        return
    row = rows(judge, importer)[importer]
    if importer == "sinabs":  # may fire twice in a step, which only a run can tell
        assert row.verdict in ("same", "DIFFERENT")
        return
    assert (row.verdict, row.different) == ("same", 0), row.note


def test_snntorch_reads_ties_lost_where_thresholds_are_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the canonical profile does not answer for snnTorch, and the other one exists."""
    monkeypatch.delenv(nir_gate.INTERPRETER, raising=False)
    judge, _ = gate(conv_net(), tmp_path, PROFILES["canonical"])
    row = rows(judge, "snntorch")["snntorch"]
    assert row.different > 0
    assert row.verdict in ("explained", "differs")  # every one of them is a tie

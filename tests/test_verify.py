"""The ladder: it holds on a network that is right, and every rung falls where its level is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.backends import lava
from snncompile.cli import main
from snncompile.compile import Compiled, compile_graph, shown
from snncompile.errors import Disagreement
from snncompile.fixed import FixedPoint
from snncompile.frontends.torch import read_module
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Norm, Output, Readout, real
from snncompile.ir.signals import Spike
from snncompile.run import integer, reference
from snncompile.run.bounds import FLOAT32, FLOAT64, bounds
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Trace
from snncompile.rungs import Rung
from snncompile.target import Target
from snncompile.train.recording import record
from snncompile.verify import Ladder, after_reset
from tests.tiny import STEPS, checkpoint, images, network, recipe

Array = np.ndarray[Any, np.dtype[Any]]
LOIHI = Target.load("loihi")
X = images(6)
LABELS = np.arange(6)
RUNGS = ["recorded", "same", "same", "measured", "bit-equal", "bit-equal", "left out"]


@pytest.fixture(scope="module")
def trained() -> Trace:
    return record(network(recipe()), X)


@pytest.fixture(scope="module")
def right() -> Compiled:
    graph = read_module(network(recipe()))
    return compile_graph(graph, LOIHI, {"input": shown(graph, X, STEPS)["input"].astype(np.float64)})


def climbed(compiled: Compiled, trained: Trace | None) -> list[Rung]:
    return list(Ladder(compiled, X, LABELS, trained).rungs(with_lava=False))


def wrong(compiled: Compiled, level: str, graph: Graph) -> Compiled:
    """With another graph at one level."""
    return replace(compiled, levels={**compiled.levels, level: graph})


def fallen(rung: Rung) -> str:
    """What a rung that does not hold says."""
    assert not rung.holds
    with pytest.raises(Disagreement) as caught:
        rung.demand()
    assert f"rung {rung.number}, {rung.level}" in str(caught.value)
    assert rung.note in str(caught.value)
    return rung.note


# --- the ladder that holds --------------------------------------------------------------------------------------------


def test_the_ladder_holds(right: Compiled, trained: Trace) -> None:
    rungs = climbed(right, trained)
    assert [rung.verdict for rung in rungs] == RUNGS
    for rung in rungs:
        rung.demand()
    spikes = sum(array.size for array in trained.spikes.values())
    values = spikes + sum(array.size for array in trained.potentials.values())
    assert [rung.compared for rung in rungs] == [0, values, values, spikes, values, values, 0]
    assert all(0.02 < array.mean() < 0.98 for array in trained.spikes.values()), "silence would test nothing"
    assert rungs[3].distance is not None
    assert rungs[3].distance.keys() == trained.spikes.keys()
    assert re.search(r"accuracy [\d.]+% before, [\d.]+% after, n = 6", rungs[3].note)


def test_a_graph_without_torch_starts_at_the_second_rung(right: Compiled) -> None:
    rungs = climbed(right, None)
    assert [(rung.number, rung.verdict) for rung in rungs] == list(enumerate(["recorded", *RUNGS[2:]], start=1))


@pytest.mark.lava
def test_the_ladder_holds_on_lava(right: Compiled, trained: Trace) -> None:
    assert lava.find_interpreter() is not None
    rung = Ladder(right, X, None, trained).device()
    assert (rung.verdict, rung.different) == ("bit-equal", 0)
    assert rung.compared == sum(array.size for array in (*trained.spikes.values(), *trained.potentials.values()))
    assert rung.note.startswith("lava-nc 0.10")


# --- ties -------------------------------------------------------------------------------------------------------------


def tie() -> tuple[float, tuple[int, ...], float]:
    """A threshold that torch's potential meets exactly while the exact potential lies above it, by rounding alone.

    The first population's first step does not depend on the threshold, so this is known before.
    """
    net = network(recipe())
    torch_v = record(net, X).potentials["lif1"]
    exact = reference.run(read_module(net), shown(read_module(net), X, STEPS)).potentials["lif1"]
    for place in np.argwhere((torch_v < exact) & (torch_v > 0.5))[:1]:
        index = tuple(int(number) for number in place)
        assert index[1] == 0
        return float(torch_v[index]), index, float(exact[index])
    raise AssertionError("no rounding at all")


def test_a_tie_is_explained_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threshold, (sample, step, *neuron), exact = tie()
    net = network(recipe(threshold=threshold))
    graph = read_module(net)
    stimulus = {"input": shown(graph, X, STEPS)["input"].astype(np.float64)}
    rung = Ladder(compile_graph(graph, LOIHI, stimulus), X, None, record(net, X)).read()
    flip = rung.flips[0]
    assert rung.verdict == "explained"
    assert rung.different == len(rung.flips)
    assert (flip.population, flip.sample, flip.step, flip.neuron) == ("lif1", sample, step, tuple(neuron))
    assert (flip.above, flip.below, flip.threshold) == (threshold, exact, threshold)
    assert 0 < flip.margin == exact - threshold <= flip.bound < 1e-4
    assert "every difference is inside its rounding bound; first lif1[" in rung.note
    assert str(flip) in rung.note
    saved = checkpoint(tmp_path / "tie.pt", threshold=threshold)
    np.savez(tmp_path / "x.npz", x=X)
    assert main(["verify", str(saved), "--data", str(tmp_path / "x.npz")]) == 0
    said = capsys.readouterr()
    assert "explained" in said.out
    assert f"  {flip}\n" in said.err, "listed one by one"


def test_a_tie_that_folding_moves_is_explained() -> None:
    """The bias and the mean cancel when they are folded; the rounding of both is still in the potential above."""
    generator = np.random.default_rng(0)
    moved = 0
    for _ in range(40):
        weight, gain = generator.uniform(0.5, 1.5, 2)
        big = generator.uniform(1e6, 2e6)
        nodes = {
            "input": Input((1,), Spike()),
            "fc": Dense(np.array([[weight]]), np.array([big])),
            "norm": Norm(np.array([big]), np.array([0.7]), np.array([gain]), np.array([0.1]), 1e-5),
            "lif": Neuron((1,)),
            "output": Output(),
        }
        edges = [Edge("input", "fc"), Edge("fc", "norm"), Edge("norm", "lif"), Edge("lif", "output")]
        stimulus = {"input": np.ones((1, 1, 1))}
        v = float(reference.run(Graph(nodes, edges), stimulus).potentials["lif"].item())
        graph = Graph(nodes | {"lif": Neuron((1,), threshold=v)}, edges)
        rung = Ladder(compile_graph(graph, LOIHI, stimulus), np.ones((1, 1)), None, None).folded()
        assert rung.verdict in ("same", "explained"), rung.note
        moved += rung.verdict == "explained"
    assert moved > 5


# --- sabotage ---------------------------------------------------------------------------------------------------------


def nudged(graph: Graph, name: str, by: float) -> Graph:
    """The weights of the first feature changed."""
    op = graph.nodes[name]
    assert isinstance(op, Conv | Dense)
    weight = real(op.weight).copy()
    weight[0] += by
    return graph.edit({name: replace(op, weight=weight)})


@pytest.mark.parametrize(
    ("level", "node", "population"),
    [("read", "conv1", "lif1"), ("read", "fc1", "lif3"), ("folded", "conv1", "lif1"), ("folded", "fc2", "readout")],
)
@pytest.mark.parametrize("by", [0.5, 1e-3])
def test_a_wrong_weight(level: str, node: str, population: str, by: float, right: Compiled, trained: Trace) -> None:
    """Found in the potentials even where no spike changes, and in the read-out, which has no spikes."""
    graph = nudged(right.levels[level], node, by)  # type: ignore[index]
    rungs = climbed(wrong(right, level, graph), trained)
    number = 1 if level == "read" else 2
    note = fallen(rungs[number])
    assert [rung.verdict for rung in rungs[:number]] == RUNGS[:number]
    name, sample, step, index = located(note)
    assert name == population
    # both potentials, recomputed: teacher-forced on torch's spikes
    stimulus = shown(graph, X, STEPS)
    here = reference.run(graph, stimulus, forced=trained.spikes).potentials[name]
    clean = reference.run(right.levels["read"], stimulus, forced=trained.spikes).potentials[name]
    above = trained.potentials[name] if number == 1 else clean
    assert f"potential {above[(sample, step, *index)]:.9g} above, {here[(sample, step, *index)]:.9g} here" in note
    if rungs[number].flips:
        margin = abs(here[(sample, step, *index)] - 1.0)
        assert f"threshold 1, margin {margin:.3g}" in note
    assert "rounding bound" in note


def located(note: str) -> tuple[str, int, int, tuple[int, ...]]:
    found = re.search(r"(\w+)\[([\d,]+)\], step (\d+), sample (\d+)", note)
    assert found, note
    return found[1], int(found[4]), int(found[3]), tuple(map(int, found[2].split(",")))


def test_the_smallest_wrong_weight_is_found(right: Compiled, trained: Trace) -> None:
    """Ten times the bound is enough, a tenth of it is not: the bound is what decides."""
    graph = right.levels["read"]
    recorded = Trace(trained.spikes, reference.run(graph, shown(graph, X, STEPS), forced=trained.spikes).potentials)
    stimulus = {"input": shown(graph, X, STEPS)["input"].astype(np.float64)}
    bound = bounds(graph, stimulus, recorded, FLOAT32 + FLOAT64)["readout"].max()
    arriving = trained.spikes["lif3"].sum(axis=(1, 2)).max()  # what these weights carry in one sample
    for share, verdict in ((10.0, "DIFFERENT"), (0.1, "same")):
        changed = wrong(right, "read", nudged(graph, "fc2", share * bound / arriving))
        assert Ladder(changed, X, None, trained).read().verdict == verdict


def test_a_potential_that_is_no_number_is_different(right: Compiled, trained: Trace) -> None:
    broken = {**trained.potentials, "lif2": trained.potentials["lif2"] * np.nan}
    note = fallen(Ladder(right, X, None, replace(trained, potentials=broken)).read())
    assert note.startswith("lif2[0,0,0], step 0, sample 0: potential nan above")


def test_a_wrong_delay_in_the_timed_graph(right: Compiled, trained: Trace) -> None:
    """The residual connection arrives a step early, as in every exporter that does not balance."""
    graph = right.levels["timed"]
    late = max(graph.edges, key=lambda edge: edge.delay)
    assert late.delay > 1
    edges = [replace(edge, delay=edge.delay - 1) if edge == late else edge for edge in graph.edges]
    rungs = climbed(wrong(right, "timed", graph.edit(edges=edges)), trained)
    note = fallen(rungs[4])
    assert [rung.verdict for rung in rungs[:4]] == RUNGS[:4]
    name, sample, step, index = located(note)
    assert name == "block1_lif2"
    integers = {"input": Ladder(right, X, None, None).integers["input"]}
    truth = integer.run(right.levels["fixed"], integers, LOIHI)
    v = truth.potentials[name][(sample, step, *index)]
    threshold = int(real(right.levels["fixed"].nodes[name].threshold)) * 64  # type: ignore[union-attr]
    assert f"(potentials {v} and " in note
    assert f"threshold {threshold}, margin " in note


def moved_threshold(compiled: Compiled) -> tuple[Graph, str]:
    """A placed graph whose threshold is one higher in a population that has a potential right there."""
    placed = compiled.levels["placed"]
    trace = Simulator(placed, LOIHI).run(Ladder(compiled, X, None, None).integers)
    for name in placed.names(Neuron):
        op = placed.nodes[name]
        assert isinstance(op, Neuron)
        assert isinstance(op.threshold, FixedPoint)
        low = int(op.threshold.mantissa) * 64
        if ((trace.potentials[name] > low) & (trace.potentials[name] <= low + 64)).any():
            return placed.edit({name: replace(op, threshold=FixedPoint.number(low // 64 + 1))}), name
    raise AssertionError("no potential lies there")


def test_a_threshold_moved_by_one(right: Compiled, trained: Trace) -> None:
    graph, name = moved_threshold(right)
    rungs = climbed(wrong(right, "placed", graph), trained)
    note = fallen(rungs[5])
    assert [rung.verdict for rung in rungs[:5]] == RUNGS[:5]
    found, *_ = located(note)
    assert found == name
    assert "spikes True and False" in note
    margin = re.search(r"potentials (\d+) and (\d+), threshold (\d+), margin (\d+)", note)
    assert margin
    assert margin[1] == margin[2]
    assert int(margin[4]) == int(margin[1]) - int(margin[3]) <= 64


Corruption = Callable[[dict[str, Array], dict[str, Array]], None]


def flipped(spikes: dict[str, Array], potentials: dict[str, Array]) -> None:
    spikes["lif2"][1, 2, 0, 1, 1] ^= True


def charged(spikes: dict[str, Array], potentials: dict[str, Array]) -> None:
    potentials["readout"][4, 1, 7] += 1


def forgotten(spikes: dict[str, Array], potentials: dict[str, Array]) -> None:
    del spikes["lif3"]


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (flipped, r"lif2\[0,1,1\], step 2, sample 1: spikes .* \(potentials -?\d+.* and .*, threshold \d+"),
        (charged, r"readout\[7\], step 1, sample 4: potentials (-?\d+) and (-?\d+)$"),
        (forgotten, r"nothing was recorded of \['lif3'\]"),
    ],
)
def test_a_device_that_differs(
    corrupt: Corruption,
    message: str,
    right: Compiled,
    trained: Trace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_on_lava(bundle: Path, stimulus: dict[str, Array], log: object) -> tuple[Trace, dict[str, Any]]:
        graph = right.levels["placed"]
        seen = after_reset(graph, Simulator(graph, LOIHI).run(stimulus))
        spikes, potentials = (
            {name: array.copy() for name, array in arrays.items()} for arrays in (seen.spikes, seen.potentials)
        )
        corrupt(spikes, potentials)
        return Trace(spikes, potentials, {"potential": "after reset"}), {}

    monkeypatch.setattr("snncompile.verify.run_on_lava", run_on_lava)
    note = fallen(Ladder(right, X, None, trained).device())
    assert re.search(message, note), note
    if corrupt is flipped:  # what fired shows nothing after the reset: told with the potential before it
        truth = Simulator(right.levels["placed"], LOIHI).run(Ladder(right, X, None, None).integers)
        assert f"(potentials {truth.potentials['lif2'][1, 2, 0, 1, 1]} and " in note
    # the same from the command line: exit 8, the ladder as far as it goes, and no bundle
    monkeypatch.setattr("snncompile.commands.verify.lava_wanted", lambda log: True)
    saved = checkpoint(tmp_path / "tiny.pt")
    np.savez(tmp_path / "x.npz", x=X)
    words = ["--data", str(tmp_path / "x.npz"), "--calibration", str(tmp_path / "x.npz")]
    assert main(["export", str(saved), "-o", str(tmp_path / "made" / "out"), *words]) == 8
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert re.search(r"6  device +Lava +timed +DIFFERENT", said.out)
    assert "snncompile export: rung 6, device (Lava against timed): " in said.err
    assert note in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.pt", "x.npz"]


@pytest.mark.parametrize("level", ["read", "folded", "timed", "placed"])
def test_a_wrong_level_stops_an_export(
    level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sabotaged(*arguments: Any, **options: Any) -> Compiled:
        compiled = compile_graph(*arguments, **options)
        graph = compiled.levels[level]  # type: ignore[index]
        if level in ("read", "folded"):
            return wrong(compiled, level, nudged(graph, "conv2", 0.1))
        op = graph.nodes["lif1"]
        assert isinstance(op, Neuron)
        return wrong(compiled, level, graph.edit({"lif1": replace(op, threshold=FixedPoint.number(1))}))

    monkeypatch.setenv("SNNCOMPILE_NO_LAVA", "1")
    monkeypatch.setattr("snncompile.compile.compile_graph", sabotaged)
    saved = checkpoint(tmp_path / "tiny.pt")
    assert main(["export", str(saved), "-o", str(tmp_path / "out"), "-q"]) == 8
    said = capsys.readouterr()
    assert "DIFFERENT" in said.out.splitlines()[-1]
    assert said.err.count("\n") == 1
    number = {"read": 1, "folded": 2, "timed": 4, "placed": 5}[level]
    assert f"rung {number}, {level}" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pt"]


def test_two_readouts_have_no_accuracy() -> None:
    nodes = {
        "input": Input((2,), Spike()),
        "one": Dense(np.eye(2)),
        "other": Dense(-np.eye(2)),
        "a": Readout((2,)),
        "b": Readout((2,)),
        "out": Output(),
    }
    edges = [Edge("input", "one"), Edge("input", "other"), Edge("one", "a"), Edge("other", "b"), Edge("a", "out")]
    x = np.ones((3, 2))
    compiled = compile_graph(Graph(nodes, edges), LOIHI, {"input": np.ones((3, 2, 2))})
    rungs = list(Ladder(compiled, x, np.zeros(3, int), None).rungs(with_lava=False))
    assert all(rung.holds for rung in rungs)
    assert "accuracy" not in rungs[2].note

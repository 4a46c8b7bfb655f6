"""Partial sums from a network to the machine: their form, the rungs, counts, and every value of them on real Lava."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from snncompile.backends import lava
from snncompile.compile import Compiled, compile_graph, shown
from snncompile.energy import Counter as EnergyCounter
from snncompile.errors import DoesNotFit, GraphError, LoopTooShort, NotRepresentable, ToolError
from snncompile.fixed import FixedPoint
from snncompile.frontends.torch import read_module
from snncompile.ir.check import check
from snncompile.ir.connections import answering, is_partial
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Readout, Scale, number
from snncompile.ir.signals import Spike
from snncompile.ir.store import Program, load, save
from snncompile.ir.text import arrays, from_text, same, to_text
from snncompile.passes.balance import balance, streams
from snncompile.passes.divide import divide
from snncompile.passes.place import place
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.partial import in_range, partial_sums, undivided
from snncompile.target import Target
from snncompile.verify import Ladder, all_answers
from tests.families import FAMILIES, network, recipe, samples
from tests.graphs import Array, Case, fixed_case, union
from tests.on_lava import Device, prove
from tests.passes.test_divide import demand_equal, layered, spikes
from tests.passes.test_place import tiny, wide

LOIHI = Target.load("loihi")


# The form of a partial sum


def test_a_program_with_partial_sums_is_kept_and_read(tmp_path: Path) -> None:
    small = tiny(synaptic_words=5)
    graph = divide(layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,)), small).graph
    placed = place(balance(graph, small).graph, small).graph
    save(Program(placed, "placed", "loihi", 4), tmp_path)
    assert same(load(tmp_path).graph, placed)
    text, large = to_text(placed), arrays(placed)
    assert same(from_text(text, large), placed)
    assert "n_partial0 = Readout(" in text.replace("'", '"') or "n_partial0" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decay": 0.5}, "is more than a sum"),
        ({"bias": FixedPoint(np.array([1, 0, 0]))}, "is more than a sum"),
        ({"addends": 3}, "is more than a sum"),
    ],
)
def test_a_partial_sum_that_is_more_is_no_level_timed(changes: dict[str, object], said: str) -> None:
    small = tiny(synaptic_words=5)
    timed = balance(divide(layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,)), small).graph, small).graph
    part = timed.nodes["n_partial1"]
    assert isinstance(part, Readout)
    wrong = timed.edit({"n_partial1": replace(part, **changes)})  # type: ignore[arg-type]
    with pytest.raises(GraphError, match=said):
        check(wrong, "timed", small)
    if "addends" not in changes:
        assert not in_range(wrong, small)
        with pytest.raises(GraphError, match=r"n_partial1 .*is no part of a sum"):
            undivided(wrong)
        stimulus = spikes(timed)  # what it is not is not taken for it: the definition runs it
        expected, shown = integer.run(wrong, stimulus, small), Simulator(wrong, small).run(stimulus)
        assert np.array_equal(shown.potentials["n"], expected.potentials["n"])


def test_a_partial_sum_has_one_reader_and_a_machine_that_sends_it() -> None:
    small = tiny(synaptic_words=5)
    timed = balance(divide(layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,)), small).graph, small).graph
    read = Graph({**timed.nodes, "more": Output()}, [*timed.edges, Edge("n_partial0", "more")])
    with pytest.raises(GraphError, match="does not reach one population through a weight of one"):
        check(read, "timed", small)
    twice = timed.edit({"n_partial0_in": Scale(FixedPoint.number(2))})
    with pytest.raises(GraphError, match="does not reach one population through a weight of one"):
        check(twice, "timed", small)
    with pytest.raises(GraphError, match="sends integers, the machine's populations send spikes"):
        check(timed, "timed", Target.load("loihi1"))


def test_a_network_has_no_partial_sums_of_its_own() -> None:
    nodes: dict[str, Op] = {
        "x": Input((2,), Spike()),
        "w": Dense(np.ones((2, 2))),
        "part": Readout((2,), "partial", decay=0.0),
        "out": Output(),
    }
    graph = Graph(nodes, [Edge("x", "w"), Edge("w", "part"), Edge("part", "out")])
    with pytest.raises(NotRepresentable, match="a partial sum is made where a machine needs one"):
        compile_graph(graph, LOIHI, {"x": np.ones((1, 3, 2))})


# The whole way


def spiking(residual: bool = True) -> tuple[Graph, dict[str, Array]]:
    """Two inputs, a grouped and strided convolution, a residual addition, a dense layer, a read-out; all too large."""
    numbers = np.random.default_rng(3)
    nodes: dict[str, Op] = {
        "x": Input((4, 6, 6), Spike()),
        "side": Input((8,), Spike()),
        "conv1": Conv(numbers.standard_normal((4, 2, 3, 3)) / 2, None, (1, 1), (1, 1), groups=2),
        "lif1": Neuron((4, 6, 6), beta=number(0.5), bias=np.full((4, 1, 1), 0.1)),
        "conv2": Conv(numbers.standard_normal((4, 4, 3, 3)) / 3, None, (1, 1), (1, 1)),
        "lif2": Neuron((4, 6, 6), beta=number(0.25)),
        "conv3": Conv(numbers.standard_normal((6, 4, 3, 3)) / 3, None, (2, 2), (1, 1)),
        "lif3": Neuron((6, 3, 3), bias=np.full((6, 1, 1), -0.1)),
        "flat": Flatten(),
        "dense": Dense(numbers.standard_normal((5, 54)) / 3),
        "beside": Dense(numbers.standard_normal((5, 8)) / 2),
        "lif4": Neuron((5,), beta=number(0.5)),
        "read": Dense(numbers.standard_normal((3, 5))),
        "answer": Readout((3,), "sum"),
        "end": Output(),
    }
    ways = ["x conv1 lif1 conv2 lif2 conv3 lif3 flat dense lif4 read answer end", "side beside lif4"]
    ways += ["lif1 lif2"] if residual else []
    edges = [Edge(a, b) for way in ways for a, b in pairwise(way.split())]
    found = {"x": (6, 8, 4, 6, 6), "side": (6, 8, 8)}
    return Graph(nodes, edges), {name: (numbers.random(shape) < 0.4).astype(float) for name, shape in found.items()}


def test_a_network_on_small_cores_goes_all_the_way() -> None:
    graph, stimulus = spiking()
    small = tiny(synaptic_words=30)
    with pytest.raises(DoesNotFit, match=r"lif\d \(Neuron\): needs \d+ synaptic words on a core, loihi has 30"):
        compile_graph(graph, replace(small, spike=replace(small.spike, message_bits=0)), stimulus)
    done = compile_graph(graph, small, stimulus)
    told = [note for note in done.notes if note.startswith("divide: ")]
    assert [note.split(":")[1].strip() for note in told] == ["lif1", "lif2", "lif3", "lif4"]
    ladder = Ladder(done, stimulus, None, None)
    rungs = {rung.level: rung for rung in (ladder.timed(), ladder.fast(), ladder.on_onnxruntime())}
    assert {level: rung.verdict for level, rung in rungs.items()} == dict.fromkeys(rungs, "bit-equal")
    assert not partial_sums(done.levels["fixed"])
    assert answering(done.levels["placed"]) == ["answer"]
    trace = integer.run(done.levels["placed"], ladder.integers, small)
    assert all(array.any() for array in trace.spikes.values())
    assert list(all_answers(done.levels["placed"], trace)) == ["answer"]


def of_family(family: str, words: int) -> tuple[Compiled, dict[str, Array]]:
    """A small network of a family of the papers on small cores; loops as long as they have to be."""
    of = recipe(family)
    graph, x = read_module(network(of)), samples(of, 3)
    stimulus = {name: np.asarray(values, dtype=np.float64) for name, values in shown(graph, x, of.steps).items()}
    sheet = Target.load("loihi-custom" if {"ide", "dsr"} & FAMILIES[family].keys() else "loihi")
    small = replace(sheet, core=replace(sheet.core, synaptic_words=words))
    return compile_graph(graph, small, stimulus, equilibrium="ide" in FAMILIES[family]), stimulus


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_every_family_on_small_cores(family: str) -> None:
    """Maxima, pools with neurons, signed and counted inputs, residual sums, feedback, transposed convolutions."""
    done, stimulus = of_family(family, 30)
    assert partial_sums(done.levels["placed"])
    ladder = Ladder(done, stimulus, None, None)
    assert (ladder.timed().verdict, ladder.fast().verdict) == ("bit-equal", "bit-equal")


@pytest.mark.lava
@pytest.mark.slow
@pytest.mark.parametrize("family", ["asf", "dsr-leaky", "ide-convolution"])
def test_a_network_of_a_family_on_small_cores_on_lava(family: str) -> None:
    done, stimulus = of_family(family, 60)
    assert len(partial_sums(done.levels["placed"])) > 1
    (proven,) = prove([Device.of(done, stimulus)], done.target)
    assert proven.different == 0
    assert proven.spikes > 50


def test_counts_are_those_of_the_network() -> None:
    graph, stimulus = spiking()
    whole, cut = (compile_graph(graph, sheet, stimulus) for sheet in (LOIHI, tiny(synaptic_words=30)))
    found = []
    for done in (whole, cut):
        assert bool(partial_sums(done.levels["placed"])) is (done is cut)
        integers = Ladder(done, stimulus, None, None).integers
        trace = Simulator(done.levels["placed"], done.target).run(integers)
        counts = EnergyCounter(graph, machine=done.levels["placed"]).count(stimulus, trace)
        network = [layer for layer in counts.layers if layer.role != "relay"]
        found.append([(one.name, one.role, {k: v.tolist() for k, v in one.columns.items()}) for one in network])
        assert not any("partial" in layer.name for layer in counts.layers)
        assert not any("partial" in name for name in trace.meta["operations"])
    assert found[0] == found[1]


# Real Lava


@pytest.mark.lava
def test_a_network_on_small_cores_on_lava() -> None:
    graph, stimulus = spiking()
    done = compile_graph(graph, tiny(synaptic_words=30), stimulus)
    rung = Ladder(done, stimulus, None, None).device()
    assert (rung.verdict, rung.different) == ("bit-equal", 0)
    assert rung.compared > 10_000


SMALL = tiny(synaptic_words=20)


def drawn(count: int, delays: bool) -> list[Case]:
    """The first networks, by seed, of which the machine has to cut something, and can run what comes of it."""
    found: list[Case] = []
    seed = 0
    while len(found) < count:
        seed += 1
        case = fixed_case(Random(seed), steps=5, samples=3, populations=4, delays=delays, prefix=f"net{len(found)}_")
        divided = divide(case.graph, SMALL)
        if divided.notes:
            try:
                balance(divided.graph, SMALL, case.steps)
            except (LoopTooShort, NotRepresentable):
                continue
            found.append(case)
    return found


@pytest.mark.lava
@pytest.mark.slow
@pytest.mark.parametrize(("count", "delays"), [(12, False), (6, True)])
def test_random_networks_on_lava(count: int, delays: bool, tmp_path: Path) -> None:
    """Spikes, potentials and every partial sum."""
    small, whole = SMALL, union(drawn(count, delays))
    placed = place(balance(divide(whole.graph, small).graph, small, whole.steps).graph, small).graph
    check(placed, "placed", small)
    save(Program(placed, "placed", "loihi", whole.steps, streams(whole.graph)), tmp_path)
    shown = lava.run(tmp_path, whole.stimulus, potentials=True)
    expected = integer.run(placed, whole.stimulus, small)
    demand_equal(integer.run(whole.graph, whole.stimulus, small), expected)
    seen: Counter[str] = Counter()
    for name in placed.names(Neuron, Readout):
        v = expected.potentials[name]
        if name in expected.spikes:
            np.testing.assert_array_equal(shown.arrays[f"{name}.s"], expected.spikes[name], err_msg=name)
            v = np.where(expected.spikes[name], 0, v)  # Lava shows the potential after the reset
        np.testing.assert_array_equal(shown.arrays[f"{name}.v"], v, err_msg=name)
        seen["parts"] += is_partial(placed.nodes[name])
        seen["negative"] += is_partial(placed.nodes[name]) and bool((v < 0).any())
        seen["told"] += is_partial(placed.nodes[name]) and bool(v.any())
    assert min(seen.values()) > count, seen


@pytest.mark.lava
@pytest.mark.parametrize("changes", [{"decay": 0.5}, {"bias": {"mantissa": 1, "exponent": 0}}])
def test_the_runner_refuses_a_partial_sum_that_is_more(changes: dict[str, object], tmp_path: Path) -> None:
    small = tiny(synaptic_words=5)
    timed = balance(divide(layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,)), small).graph, small).graph
    save(Program(timed, "placed", "loihi", 4), tmp_path)
    plain = json.loads((tmp_path / "program.json").read_text(encoding="utf-8"))
    plain["nodes"]["n_partial1"] |= changes
    (tmp_path / "program.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(ToolError, match="n_partial1: is more than a sum"):
        lava.run(tmp_path, {"x": np.ones((1, 4, 12), dtype=np.int64)})

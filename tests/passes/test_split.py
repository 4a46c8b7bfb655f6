"""Parts of populations: the same spikes and potentials, back in one piece under the population's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given

from snncompile.compile import compile_graph, encoded, fold
from snncompile.errors import LoweringError
from snncompile.ir.check import check
from snncompile.ir.connections import connections
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Part, Pool, Scale
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Spike
from snncompile.ir.store import Program, load, save
from snncompile.ir.text import from_text, same, to_text
from snncompile.passes.legalise import legalise
from snncompile.passes.split import by_parameters, by_range, split
from snncompile.run import integer, parts, reference
from snncompile.run.cpu import Simulator
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Case, read_cases

LOIHI = Target.load("loihi")
BEFORE = """\
x   = Input(shape=[2], signal={'kind': 'spike', 'amplitude': 1.0})
w   = Dense(weight=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]) <- x
a   = Neuron(shape=[3], threshold=[1.0, 2.0, 1.0], bias=[1.0, 2.0, 3.0]) <- w
v   = Dense(weight=[[1.0, 2.0, 3.0]]) <- a
b   = Neuron(shape=[1]) <- v
out = Output() <- a
"""
AFTER = """\
x            = Input(shape=[2], signal={'kind': 'spike', 'amplitude': 1.0})
w_part0      = Dense(weight=[[1.0, 2.0], [5.0, 6.0]]) <- x
a_part0      = Neuron(shape=[2], bias=[1.0, 3.0], part={'of': 'a', 'channels': [0, 2]}) <- w_part0
v_from_part0 = Dense(weight=[[1.0, 3.0]]) <- a_part0
w_part1      = Dense(weight=[[3.0, 4.0]]) <- x
a_part1      = Neuron(shape=[1], threshold=2.0, bias=2.0, part={'of': 'a', 'channels': [1]}) <- w_part1
v_from_part1 = Dense(weight=[[2.0]]) <- a_part1
b            = Neuron(shape=[1]) <- v_from_part0, v_from_part1
out_a_part0  = Output() <- a_part0
out_a_part1  = Output() <- a_part1
"""


def alike(one: Graph, other: Graph) -> bool:
    """The same graphs but for the order of the nodes."""
    return sorted(to_text(one).splitlines()) == sorted(to_text(other).splitlines())


def test_before_and_after() -> None:
    passed = legalise(from_text(BEFORE), LOIHI)
    assert sorted(to_text(passed.graph).splitlines()) == sorted(AFTER.splitlines())
    assert passed.notes == ("a: 2 populations, one for each group of channels with equal parameters",)
    assert parts.names(passed.graph)[:3] == ["x", "w_part0", "a"]
    assert parts.wholes(passed.graph) == {"a": (3,), "b": (1,)}
    assert parts.thresholds(passed.graph, "a").tolist() == [1.0, 2.0, 1.0]  # type: ignore[union-attr]
    assert parts.thresholds(passed.graph, "w_part0") is None
    assert alike(legalise(passed.graph, LOIHI).graph, passed.graph)


@given(read_cases(plain=True, rich=True))
def test_spikes_and_potentials_stay_on_random_networks(case: Case) -> None:
    try:
        folded, _ = fold(case.graph)
    except LoweringError:  # a norm over a signal without weights stays
        assume(False)
    before = reference.run(folded, case.stimulus)
    for finer in (False, True):
        legal = legalise(folded, LOIHI, per_channel=finer).graph
        shapes(legal)
        after = parts.merged(legal, reference.run(legal, case.stimulus))
        assert set(before.spikes) <= set(after.spikes)
        assert first_divergence(before, after, case.graph.order) is None
        assert alike(legalise(legal, LOIHI).graph, legal)


@given(read_cases(plain=True, rich=True))
def test_from_read_to_placed(case: Case) -> None:
    """Every level below ``folded``, and the fast interpreter, in parts and put together."""
    try:
        done = compile_graph(case.graph, LOIHI, case.stimulus)
    except LoweringError as declined:
        assert "cannot be folded (fold_norm" in str(declined)  # noqa: PT017 - a norm over a signal without weights
        assume(False)
    integers = encoded(done.levels["fixed"], case.stimulus)
    fixed = integer.run(done.levels["fixed"], integers, LOIHI)
    order = parts.names(done.levels["fixed"])
    for stream in (False, True):
        there = integer.run(done.levels["placed"], integers, LOIHI, stream=stream)
        assert first_divergence(fixed, there, done.levels["fixed"].order) is None
        whole = [parts.merged(done.levels["placed"], trace) for trace in (fixed, there)]
        assert first_divergence(*whole, order) is None
    assert first_divergence(fixed, Simulator(done.levels["placed"], LOIHI).run(integers), fixed.potentials) is None


# --- blocks of each kind of synapse -----------------------------------------------------------------------------------


def pair(op: Op, source: tuple[int, ...], target: tuple[int, ...], one: object = 1.0, other: object = 1.0) -> Graph:
    """x -> a -> op -> b, thresholds as given; a channel each."""
    nodes: dict[str, Op] = {"x": Input(source, Spike()), "one": Scale(1.0), "a": Neuron(source, threshold=one)}
    nodes |= {"op": op, "b": Neuron(target, threshold=other, beta=0.25), "out": Output()}
    return Graph(nodes, [Edge("x", "one"), Edge("one", "a"), Edge("a", "op"), Edge("op", "b"), Edge("b", "out")])


APART = np.array([0.5, 0.75, 0.5, 0.75]).reshape(4, 1, 1)
FIRST = np.array([0.5, 0.5, 0.5, 0.75]).reshape(4, 1, 1)
MAP, ROW = (4, 3, 3), (4,)
NUMBERS = np.random.default_rng(3).integers(-4, 8, (4, 4, 3, 3)) / 4
SCALES = [np.float64(0.5), NUMBERS[0, 0].ravel()[:4].reshape(4, 1, 1) + 1, np.abs(NUMBERS[0]) + 0.25]
CONVS = [Conv(NUMBERS[:, : 4 // groups], None, padding=(1, 1), groups=groups) for groups in (1, 2, 4)]


@pytest.mark.parametrize("op", [*CONVS, *(Scale(factor) for factor in SCALES)])
@pytest.mark.parametrize(("one", "other"), [(APART, 1.0), (1.0, APART), (APART, APART), (APART, FIRST)])
def test_blocks(op: Op, one: object, other: object) -> None:
    graph = pair(op, MAP, MAP, one, other)
    legal = legalise(graph, LOIHI).graph
    x = {"x": np.random.default_rng(0).integers(0, 2, (3, 6, *MAP))}
    exact, found = reference.run(graph, x), parts.merged(legal, reference.run(legal, x))
    assert exact.spikes["b"].any()
    assert first_divergence(exact, found, graph.order) is None


@pytest.mark.parametrize("op", [Dense(NUMBERS[:, :, 0, 0]), Scale(0.75), Scale([0.5, 1.0, 1.5, 2.0])])
def test_blocks_of_rows(op: Op) -> None:
    graph = pair(op, ROW, ROW, APART.ravel(), FIRST.ravel())
    legal = legalise(graph, LOIHI).graph
    x = {"x": np.random.default_rng(0).integers(0, 2, (3, 6, *ROW))}
    assert first_divergence(reference.run(graph, x), parts.merged(legal, reference.run(legal, x)), graph.order) is None


def test_a_grouped_convolution_stays_grouped_where_its_groups_are_cut_alike() -> None:
    graph = legalise(pair(CONVS[1], MAP, MAP, 1.0, APART), LOIHI).graph
    both = [op for name, op in graph.nodes.items() if name.startswith("op") and isinstance(op, Conv)]
    assert [(op.groups, op.weight.shape) for op in both] == [(2, (2, 2, 3, 3))] * 2
    graph = legalise(pair(CONVS[2], MAP, MAP, APART, APART), LOIHI).graph
    both = [op for name, op in graph.nodes.items() if name.startswith("op") and isinstance(op, Conv)]
    assert [(op.groups, op.weight.shape) for op in both] == [(2, (2, 1, 3, 3))] * 2, "no connection between strangers"


def test_groups_by_parameters() -> None:
    assert by_parameters(Neuron((3,), threshold=[1.0, 2.0, 1.0])) == ((0, 2), (1,))
    assert by_parameters(Neuron((3,), threshold=[1.0, 2.0, 1.0], beta=[0.5, 0.5, 0.25])) == ((0,), (1,), (2,))
    assert by_parameters(Neuron((2, 3), bias=[1.0, 2.0, 3.0])) == ((0, 1),), "biases are the neurons' own"
    assert by_parameters(Neuron((2, 3), threshold=[1.0, 2.0, 3.0])) is None
    assert by_parameters(Neuron((2, 3), threshold=[[1.0], [1.0]])) == ((0, 1),)


def test_a_scale_for_each_range_loses_less() -> None:
    """Channels of which one is a hundredth of the other: one scale for both leaves the small one three levels."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(2, 40)) * [[1.0], [0.01]]
    nodes: dict[str, Op] = {"x": Input((40,), Spike()), "w": Dense(weight), "n": Neuron((2,), threshold=4.0)}
    graph = Graph(nodes | {"out": Output()}, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")])
    x = {"x": random.integers(0, 2, (8, 5, 40)).astype(float)}
    assert by_range(legalise(graph, LOIHI).graph) == {"n": [(0,), (1,)]}
    one, finer = (compile_graph(graph, LOIHI, x, per_channel=asked) for asked in (False, True))
    unit, error = ({layer.name: getattr(layer, what) for layer in finer.layers} for what in ("unit", "error"))
    assert unit["n_part1"] < unit["n_part0"] / 20
    assert error["n_part1"] < one.layers[0].error / 20
    assert any("2 populations instead of 1, 2 connections instead of 1" in note for note in finer.notes)


# --- maxima -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
def test_a_maximum_over_spikes_is_a_population(padding: tuple[int, int]) -> None:
    nodes: dict[str, Op] = {"x": Input((2, 6, 6), Spike(0.5)), "m0": Pool("max", (2, 2), (1, 1))}
    nodes |= {"c": Conv(np.ones((2, 2, 3, 3)) / 4), "a": Neuron((2, 3, 3), amplitude=2.0, beta=0.5)}
    nodes |= {"m1": Pool("max", (2, 2), (1, 1), padding), "m2": Pool("max", (2, 2), (1, 1), padding)}
    size = 3 + 2 * (2 * padding[0] - 1)
    nodes |= {"w": Dense(np.ones((3, 2 * size * size)) / 8), "b": Neuron((3,)), "out": Output()}
    names = list(nodes)
    graph = Graph(nodes, [Edge(names[i], names[i + 1]) for i in range(len(names) - 1)])
    x = {"x": (np.random.default_rng(1).random((4, 6, 2, 6, 6)) < 0.06) * 0.5}
    folded, _ = fold(graph)
    done = compile_graph(graph, LOIHI, x)
    exact = reference.run(graph, x)
    assert exact.spikes["b"].any()
    assert not exact.spikes["a"].all()
    found = integer.run(done.levels["placed"], encoded(done.levels["fixed"], x), LOIHI, stream=True)
    assert first_divergence(exact, found, folded.order, potentials=False) is None
    assert {"m0", "m1", "m2"} <= set(found.spikes)


# --- traces -----------------------------------------------------------------------------------------------------------


def test_divided_is_what_merged_puts_together() -> None:
    legal = legalise(from_text(BEFORE), LOIHI).graph
    whole = {"a": np.arange(12).reshape(2, 2, 3), "b": np.zeros((2, 2, 1))}
    apart = parts.divided(legal, whole)
    assert apart["a_part0"].tolist() == [[[0, 2], [3, 5]], [[6, 8], [9, 11]]]
    trace = reference.run(legal, {"x": np.ones((1, 1, 2))})
    again = parts.merged(legal, replace(trace, spikes=apart, meta={"spikes": {"a_part0": 2, "a_part1": 3, "b": 1}}))
    np.testing.assert_array_equal(again.spikes["a"], whole["a"])
    assert again.meta["spikes"] == {"a": 5, "b": 1}
    assert "a_part1" not in again.potentials


def test_parts_are_kept_on_disk_and_in_text(tmp_path: Path) -> None:
    legal = legalise(from_text(BEFORE), LOIHI).graph
    save(Program(legal, "folded", "loihi", 1), tmp_path)
    assert same(load(tmp_path).graph, legal)
    assert same(from_text(to_text(legal)), legal)


def test_parts_that_make_no_whole_are_a_fault() -> None:
    done = compile_graph(from_text(BEFORE), LOIHI, {"x": np.ones((1, 2, 2))}).levels["fixed"]
    check(done, "fixed", LOIHI)
    part = done.nodes["a_part1"]
    assert isinstance(part, Neuron)
    for wrong in (Part("a", (0,)), Part("b", (1,)), Part("a", (1, 2))):
        with pytest.raises(Exception, match="parts_make_wholes"):
            check(done.edit({"a_part1": replace(part, part=wrong)}), "fixed", LOIHI)


def test_nothing_to_split_is_the_same_graph() -> None:
    graph = legalise(pair(Scale(1.0), ROW, ROW), LOIHI).graph
    assert split(graph, {"a": [(0, 1, 2, 3)]}) is graph
    assert len(connections(graph)) == 2

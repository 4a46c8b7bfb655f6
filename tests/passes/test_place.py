"""Populations on cores: every neuron once, inside the sheet's capacities, or the line that is too small."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given

from snncompile.errors import DoesNotFit
from snncompile.fixed import FixedPoint
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Readout, Scale, Slice
from snncompile.ir.signals import Spike
from snncompile.ir.text import same
from snncompile.passes.balance import balance
from snncompile.passes.place import Use, place, utilisation
from snncompile.run import integer
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Array, Case, fixed_cases
from tests.passes.test_balance import neuron

LOIHI = Target.load("loihi")


def tiny(**core: int) -> Target:
    """Loihi with other cores."""
    return replace(LOIHI, core=replace(LOIHI.core, **core))


def one_layer(op: Op, shape: tuple[int, ...], out: tuple[int, ...]) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, Spike()), "w": op, "n": neuron(*out, threshold=3), "out": Output()}
    return balance(Graph(nodes, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")]), LOIHI).graph


def dense(out: int, inward: int) -> Graph:
    columns = 2 * (1 + np.arange(inward) % 100)  # no two axons alike, as long as they are a hundred
    return one_layer(Dense(FixedPoint(np.tile(columns, (out, 1)))), (inward,), (out,))


def cores(graph: Graph, name: str) -> tuple[Slice, ...]:
    op = graph.nodes[name]
    assert isinstance(op, Neuron | Readout)
    return op.cores


@given(fixed_cases())
def test_every_neuron_lies_on_one_core_inside_its_capacities(case: Case) -> None:
    small = tiny(neurons=7, synaptic_words=700, axons_in=600, axons_out=200)
    timed = balance(case.graph, LOIHI).graph
    placed = place(timed, small).graph
    check(placed, "placed", small)
    taken = [slice_.core for name in placed.names(Neuron, Readout) for slice_ in cores(placed, name)]
    assert taken == list(range(len(taken)))
    for name, slices in utilisation(placed, small).items():
        assert sum(slice_.count for slice_, _ in slices) == prod(placed.nodes[name].shape)  # type: ignore[union-attr]
        for slice_, use in slices:
            assert use.neurons == slice_.count <= small.core.neurons
            assert use.synaptic_words <= small.core.synaptic_words
            assert use.axons_in <= small.core.axons_in
            assert use.axons_out <= small.core.axons_out
    runs = [integer.run(graph, case.stimulus, LOIHI) for graph in (timed, placed)]
    assert first_divergence(runs[0], runs[1], timed.order) is None
    assert same(place(placed, small).graph, placed)


def test_what_a_dense_layer_needs() -> None:
    """By hand: 10 axons of ceil(5 * 20 / 64) = 2 words."""
    placed = place(dense(5, 10), LOIHI)
    assert cores(placed.graph, "n") == (Slice(0, 0, 5),)
    assert utilisation(placed.graph, LOIHI)["n"] == [(Slice(0, 0, 5), Use(5, 20, 10, 0))]
    assert placed.notes == ("1 of 120 cores",)


def test_what_a_convolution_needs() -> None:
    """By hand: 2 * 9 taps of ceil(16 * 8 / 64) + 1 = 3 words; rows 0 to 3 of the input reach rows 0 to 2."""
    taps = np.tile(2 * (1 + np.arange(18)).reshape(2, 3, 3), (16, 1, 1, 1))
    graph = one_layer(Conv(FixedPoint(taps), padding=(1, 1)), (2, 6, 6), (16, 6, 6))
    placed = place(graph, tiny(neurons=3 * 16 * 6)).graph
    assert cores(placed, "n") == (Slice(0, 0, 288), Slice(1, 288, 288))
    first, second = (use for _, use in utilisation(placed, LOIHI)["n"])
    assert first == Use(288, 54, 2 * 6 * 4, 0)
    assert second == Use(288, 54, 2 * 6 * 4, 0)


def test_equal_lists_of_weights_are_stored_once_and_zeros_not_at_all() -> None:
    """By hand: of 8 axons two pairs are alike and one has no weight, so 5 lists of ceil(5 * 20 / 64) = 2 words."""
    columns = 2 * np.array([1, 1, 2, 2, 3, 4, 5, 0])
    placed = place(one_layer(Dense(FixedPoint(np.tile(columns, (5, 1)))), (8,), (5,)), LOIHI)
    assert utilisation(placed.graph, LOIHI)["n"] == [(Slice(0, 0, 5), Use(5, 10, 8, 0))]


def test_kernels_too_large_for_a_core_are_cut_into_blocks_of_channels() -> None:
    """By hand: 18 taps of ceil(16 * 8 / 64) + 1 = 3 words are 54; of ceil(8 * 8 / 64) + 1 = 2 words they are 36."""
    taps = np.tile(2 * (1 + np.arange(18)).reshape(2, 3, 3), (16, 1, 1, 1))
    graph = one_layer(Conv(FixedPoint(taps), padding=(1, 1)), (2, 6, 6), (16, 6, 6))
    placed = place(graph, tiny(synaptic_words=40)).graph
    assert cores(placed, "n") == (Slice(0, 0, 288, 0, 8), Slice(1, 0, 288, 8, 8))
    assert [use.synaptic_words for _, use in utilisation(placed, LOIHI)["n"]] == [36, 36]


def reached(weight: Array, run: range, n: int) -> int:
    """How many inputs of a 1-d same-padded convolution reach a run of outputs: counted, not computed."""
    touched = set()
    for place_ in {neuron_ // weight.shape[0] for neuron_ in run}:
        touched |= {place_ - 1 + tap for tap in range(weight.shape[2]) if 0 <= place_ - 1 + tap < n}
    return len(touched) * weight.shape[1]


@pytest.mark.parametrize("limit", [1, 4, 5, 9, 100])
def test_the_axons_of_a_slice_are_those_that_reach_it(limit: int) -> None:
    weight = np.full((4, 3, 3), 2)
    graph = one_layer(Conv(FixedPoint(weight), None, (1,), (1,), (1,)), (3, 9), (4, 9))
    placed = place(graph, tiny(neurons=limit)).graph
    for slice_, use in utilisation(placed, LOIHI)["n"]:
        assert use.axons_in == reached(weight, range(slice_.first, slice_.first + slice_.count), 9)


def test_a_source_has_an_axon_for_each_core_that_it_reaches() -> None:
    nodes: dict[str, Op] = {"x": Input((6,), Spike()), "w1": Scale(FixedPoint.number(4)), "a": neuron(6, threshold=3)}
    nodes |= {"w2": Dense(FixedPoint(np.full((10, 6), 2))), "b": neuron(10, threshold=3), "out": Output()}
    names = list(nodes)
    graph = balance(Graph(nodes, [Edge(names[i], names[i + 1]) for i in range(5)]), LOIHI).graph
    placed = place(graph, tiny(neurons=6)).graph
    assert len(cores(placed, "b")) == 2
    ((_, use),) = utilisation(placed, LOIHI)["a"]
    assert use.axons_out == 12


@pytest.mark.parametrize(
    ("key", "limit", "message"),
    [
        ("synaptic_words", 5, r"n \(Neuron\): needs 10 synaptic words on a core, loihi has 5"),
        ("axons_in", 9, r"n \(Neuron\): needs 10 axons in on a core, loihi has 9"),
    ],
)
def test_a_neuron_that_no_core_holds_is_refused_with_the_line_of_the_sheet(key: str, limit: int, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message) as error:
        place(dense(4, 10), tiny(**{key: limit}))
    assert f", core.{key}" in error.value.why
    assert error.value.why.startswith("targets/loihi.toml:")
    assert "fewer" in error.value.remedy


def test_axons_out_that_no_core_holds_are_refused() -> None:
    """One neuron that every core of a large layer listens to."""
    nodes: dict[str, Op] = {"x": Input((1,), Spike()), "w1": Scale(FixedPoint.number(4)), "a": neuron(1, threshold=3)}
    nodes |= {"w2": Dense(FixedPoint(np.full((10, 1), 2))), "b": neuron(10, threshold=3), "out": Output()}
    names = list(nodes)
    graph = balance(Graph(nodes, [Edge(names[i], names[i + 1]) for i in range(5)]), LOIHI).graph
    with pytest.raises(DoesNotFit, match=r"a \(Neuron\): needs 10 axons out on a core, loihi has 9"):
        place(graph, tiny(neurons=1, axons_out=9))


def test_a_network_larger_than_the_chip_is_refused() -> None:
    chip = replace(tiny(neurons=10), chip_cores=3)
    place(dense(30, 2), chip)
    with pytest.raises(DoesNotFit, match=r"n \(Neuron\): needs 31 neurons on a core, loihi has 10"):
        place(dense(31, 2), chip)
    nodes: dict[str, Op] = {"x": Input((20,), Spike()), "w1": Scale(FixedPoint.number(4)), "a": neuron(20, threshold=3)}
    nodes |= {"w2": Scale(FixedPoint.number(4)), "b": neuron(20, threshold=3), "out": Output()}
    names = list(nodes)
    graph = balance(Graph(nodes, [Edge(names[i], names[i + 1]) for i in range(5)]), LOIHI).graph
    with pytest.raises(DoesNotFit, match=r"loihi: needs 4 cores, a chip has 3 .*chip.cores; . alone takes 2"):
        place(graph, chip)

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
from snncompile.passes.place import chips_of, place, utilisation
from snncompile.passes.storage import Use
from snncompile.run import integer
from snncompile.run.trace import first_divergence
from snncompile.target import Board, Target
from tests.graphs import Array, Case, fixed_cases
from tests.passes.test_balance import neuron

LOIHI = Target.load("loihi")


def tiny(**core: int) -> Target:
    """Loihi with other cores, on as many chips as it takes."""
    return replace(LOIHI, core=replace(LOIHI.core, **core))


def wide(shape: tuple[int, ...]) -> Array:
    """Weights of eight bits, no two columns alike as long as they are a hundred; equal in all rows."""
    columns = 2 * (28 + np.arange(prod(shape[1:])) % 100)
    return np.broadcast_to(columns.reshape(1, *shape[1:]), shape).copy()


def one_layer(op: Op, shape: tuple[int, ...], out: tuple[int, ...]) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, Spike()), "w": op, "n": neuron(*out, threshold=3), "out": Output()}
    return balance(Graph(nodes, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")]), LOIHI).graph


def dense(out: int, inward: int) -> Graph:
    return one_layer(Dense(FixedPoint(wide((out, inward)))), (inward,), (out,))


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
    assert sorted(taken) == list(range(len(taken)))
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
    """By hand: 10 lists of ceil((5 * 20 + 10) / 64) = 2 words."""
    placed = place(dense(5, 10), LOIHI)
    assert cores(placed.graph, "n") == (Slice(0, 0, 5),)
    assert utilisation(placed.graph, LOIHI)["n"] == [(Slice(0, 0, 5), Use(5, 20, 10, 0))]
    assert placed.notes == ("1 of 120 cores, board oheo-gulch",)


def test_what_a_convolution_needs() -> None:
    """By hand: 2 * 9 taps of ceil(16 * 8 / 64) + 1 = 3 words, and one axon for the layer."""
    graph = one_layer(Conv(FixedPoint(wide((16, 2, 3, 3))), padding=(1, 1)), (2, 6, 6), (16, 6, 6))
    placed = place(graph, tiny(neurons=3 * 16 * 6)).graph
    assert cores(placed, "n") == (Slice(0, 0, 288), Slice(1, 288, 288))
    first, second = (use for _, use in utilisation(placed, LOIHI)["n"])
    assert first == second == Use(288, 54, 1, 0)


@pytest.mark.parametrize(
    ("largest", "bits"), [(254, 8), (-256, 8), (62, 6), (64, 8), (-64, 6), (30, 5), (-2, 1), (2, 2)]
)
def test_weights_take_the_bits_of_their_layers_largest(largest: int, bits: int) -> None:
    """By hand: an axon to 50 neurons is ceil((50 (bits + 12) + 10) / 64) words."""
    weights = np.zeros((50, 1), np.int64)
    weights[7] = largest
    ((_, use),) = utilisation(place(one_layer(Dense(FixedPoint(weights)), (1,), (50,)), LOIHI).graph, LOIHI)["n"]
    assert use.synaptic_words == -(-(50 * (bits + 12) + 10) // 64)


def test_equal_lists_of_weights_are_stored_once_and_zeros_not_at_all() -> None:
    """By hand: of 8 sources two pairs are alike, one has no weight: 5 lists of ceil((5 * 20 + 10) / 64) = 2 words."""
    columns = 2 * np.array([1, 1, 2, 2, 3, 4, 77, 0])
    placed = place(one_layer(Dense(FixedPoint(np.tile(columns, (5, 1)))), (8,), (5,)), LOIHI)
    assert utilisation(placed.graph, LOIHI)["n"] == [(Slice(0, 0, 5), Use(5, 10, 5, 0))]


def test_equal_kernels_of_several_sources_are_stored_once() -> None:
    """A sum of two populations that one kernel reads is two connections, and one set of words."""
    nodes: dict[str, Op] = {"x": Input((2, 6, 6), Spike()), "out": Output()}
    edges = [Edge("n", "out")]
    for name in "ab":
        nodes |= {f"in_{name}": Scale(FixedPoint.number(4)), name: neuron(2, 6, 6, threshold=3)}
        nodes[f"w_{name}"] = Conv(FixedPoint(wide((16, 2, 3, 3))), padding=(1, 1))
        edges += [Edge("x", f"in_{name}"), Edge(f"in_{name}", name), Edge(name, f"w_{name}"), Edge(f"w_{name}", "n")]
    nodes["n"] = neuron(16, 6, 6, threshold=3)
    placed = place(balance(Graph(nodes, edges), LOIHI).graph, LOIHI).graph
    assert utilisation(placed, LOIHI)["n"] == [(Slice(2, 0, 576), Use(576, 54, 2, 0))]


def test_kernels_too_large_for_a_core_are_cut_into_blocks_of_channels() -> None:
    """By hand: 18 taps of ceil(16 * 8 / 64) + 1 = 3 words are 54; of ceil(8 * 8 / 64) + 1 = 2 words they are 36."""
    graph = one_layer(Conv(FixedPoint(wide((16, 2, 3, 3))), padding=(1, 1)), (2, 6, 6), (16, 6, 6))
    placed = place(graph, tiny(synaptic_words=40)).graph
    assert cores(placed, "n") == (Slice(0, 0, 288, 0, 8), Slice(1, 0, 288, 8, 8))
    assert [use.synaptic_words for _, use in utilisation(placed, LOIHI)["n"]] == [36, 36]


def reached(weight: Array, run: range, n: int) -> int:
    """How many positions a 1-d same-padded convolution reads for a run of outputs: counted, not computed."""
    touched = set()
    for place_ in {neuron_ // weight.shape[0] for neuron_ in run}:
        touched |= {place_ - 1 + tap for tap in range(weight.shape[2]) if 0 <= place_ - 1 + tap < n}
    return len(touched)


@pytest.mark.parametrize("limit", [1, 4, 5, 9, 100])
def test_a_machine_may_take_an_axon_for_each_position_that_reaches_a_slice(limit: int) -> None:
    weight = np.full((4, 3, 3), 2)
    graph = one_layer(Conv(FixedPoint(weight), None, (1,), (1,), (1,)), (3, 9), (4, 9))
    machine = replace(LOIHI, core=replace(Target.load("loihi1").core, neurons=limit))
    placed = place(graph, machine).graph
    for slice_, use in utilisation(placed, machine)["n"]:
        assert use.axons_in == reached(weight, range(slice_.first, slice_.first + slice_.count), 9)


def chain(*sizes: int) -> Graph:
    """Populations joined by matrices, the first by one-to-one synapses to the input."""
    nodes: dict[str, Op] = {"x": Input((sizes[0],), Spike())}
    edges = []
    last = "x"
    for index, size in enumerate(sizes):
        name = f"n{index + 1}"
        op = Dense(FixedPoint(wide((size, sizes[index - 1])))) if index else Scale(FixedPoint.number(4))
        nodes |= {f"w{index + 1}": op, name: neuron(size, threshold=3)}
        edges += [Edge(last, f"w{index + 1}"), Edge(f"w{index + 1}", name)]
        last = name
    nodes["out"] = Output()
    return balance(Graph(nodes, [*edges, Edge(last, "out")]), LOIHI).graph


def test_a_source_has_one_outgoing_axon_for_all_that_listen() -> None:
    """As the tables have it: 100 neurons that two cores listen to take 100 entries of the axon map."""
    placed = place(chain(6, 10), tiny(neurons=6)).graph
    assert len(cores(placed, "n2")) == 2
    ((_, use),) = utilisation(placed, LOIHI)["n1"]
    assert use.axons_out == 6


def test_outgoing_axons_of_a_convolution_are_one_for_each_position() -> None:
    graph = one_layer(Conv(FixedPoint(wide((16, 2, 3, 3))), padding=(1, 1)), (2, 6, 6), (16, 6, 6))
    nodes = dict(graph.nodes) | {"w2": Conv(FixedPoint(wide((4, 16, 1, 1)))), "m": neuron(4, 6, 6, threshold=3)}
    edges = [
        *(edge for edge in graph.edges if edge.source != "n"),
        Edge("n", "w2", 1),
        Edge("w2", "m"),
        Edge("m", "out"),
    ]
    assert utilisation(place(Graph(nodes, edges), LOIHI).graph, LOIHI)["n"][0][1].axons_out == 36


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
    """One neuron that three layers listen to."""
    nodes: dict[str, Op] = {"x": Input((1,), Spike()), "w": Scale(FixedPoint.number(4)), "a": neuron(1, threshold=3)}
    edges = [Edge("x", "w"), Edge("w", "a")]
    for name in "bcd":
        nodes |= {f"w_{name}": Scale(FixedPoint.number(4)), name: neuron(1, threshold=3), f"out_{name}": Output()}
        edges += [Edge("a", f"w_{name}"), Edge(f"w_{name}", name), Edge(name, f"out_{name}")]
    with pytest.raises(DoesNotFit, match=r"a \(Neuron\): needs 3 axons out on a core, loihi has 2"):
        place(balance(Graph(nodes, edges), LOIHI).graph, tiny(axons_out=2))


def test_populations_lie_in_the_order_of_their_phases() -> None:
    nodes = dict(chain(4, 4).nodes)
    late = {"n1": replace(neuron(4, threshold=3), phase=2), "n2": replace(neuron(4, threshold=3), phase=1)}
    graph = Graph(nodes | late, chain(4, 4).edges)
    assert [part.core for name in ("n1", "n2") for part in cores(place(graph, LOIHI).graph, name)] == [1, 0]


BOARDS = (Board("kapoho-point", 2), Board("hala-point", 4))


def test_the_smallest_board_that_holds_it_is_taken_and_said() -> None:
    machine = replace(tiny(neurons=10), chip_cores=3, boards=BOARDS)
    assert place(dense(30, 2), machine).notes == ("3 cores on 1 of 2 chips of 3 cores, board kapoho-point",)
    placed = place(dense(70, 2), machine)
    assert placed.notes == (
        "7 cores on 3 of 4 chips of 3 cores, board hala-point; 0 routes from a neuron to another chip",
    )
    assert [part.core for part in cores(placed.graph, "n")] == list(range(7))
    check(placed.graph, "placed", machine)
    small = place(dense(30, 2), LOIHI.on_board("hala-point"))
    assert small.notes == ("1 core on 1 of 1152 chips of 120 cores, board hala-point",)


def test_what_crosses_chips_is_counted() -> None:
    """By hand: n1 lies on core 0 (10 neurons), core 1 (5); n2 on 2 | 3, 4. Chip 1 listens to all 15 of n1."""
    machine = replace(tiny(neurons=10), chip_cores=3, boards=BOARDS)
    placed = place(chain(15, 30), machine).graph
    assert [part.core for part in cores(placed, "n2")] == [2, 3, 4]
    found = chips_of(placed, machine)
    assert (found.board, found.chips, found.cores) == (BOARDS[0], 2, 5)
    assert found.routes == {(0, 1): 15}
    assert found.crossing == 15


def test_a_convolution_crosses_with_the_rows_that_the_other_chip_reads() -> None:
    """By hand: n (rows 0-5 on three cores, one chip), m (rows 0-2 | 3-5): m's second tile reads rows 2 to 5 of n."""
    graph = one_layer(Conv(FixedPoint(wide((4, 2, 3, 3))), padding=(1, 1)), (2, 6, 6), (4, 6, 6))
    nodes = dict(graph.nodes) | {
        "w2": Conv(FixedPoint(wide((4, 4, 3, 3))), padding=(1, 1)),
        "m": replace(neuron(4, 6, 6, threshold=3), phase=2),
    }
    edges = [
        *(edge for edge in graph.edges if edge.source != "n"),
        Edge("n", "w2", 1),
        Edge("w2", "m"),
        Edge("m", "out"),
    ]
    machine = replace(tiny(neurons=72), chip_cores=3, boards=BOARDS)
    placed = place(Graph(nodes, edges), machine).graph
    assert [part.core for part in (*cores(placed, "n"), *cores(placed, "m"))] == [0, 1, 2, 3]
    assert chips_of(placed, machine).routes == {(0, 1): 4 * 6 * 4}


def test_a_network_larger_than_the_largest_board_is_refused() -> None:
    machine = replace(tiny(neurons=10), chip_cores=3, boards=BOARDS[:1])
    place(dense(60, 2), machine)
    with pytest.raises(DoesNotFit, match=r"n \(Neuron\): needs 61 neurons on a core, loihi has 10"):
        place(dense(61, 2), machine)
    with pytest.raises(
        DoesNotFit, match=r"loihi: needs 7 cores, kapoho-point with 2 chips has 6 .*boards\.kapoho-point"
    ):
        place(chain(40, 30), machine)
    with pytest.raises(DoesNotFit, match=r"loihi: needs 7 cores, a chip has 6 .*chip\.cores; n1 alone takes 4"):
        place(chain(40, 30), replace(machine, chip_cores=6, boards=()))

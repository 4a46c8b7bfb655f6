"""Sums that no core holds, in parts: which populations are cut, that nothing changes, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given

from snncompile.compile import compile_integers
from snncompile.errors import DoesNotFit, LoopTooShort, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.check import check
from snncompile.ir.connections import connections, is_partial
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Op, Output, Readout, Scale, real
from snncompile.ir.signals import Fixed, Spike
from snncompile.ir.text import same
from snncompile.passes.balance import balance, streams
from snncompile.passes.divide import divide, in_parts
from snncompile.passes.longer_loops import longer_loops
from snncompile.passes.place import place, utilisation
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.partial import arriving, in_range, most_told, partial_sums, undivided
from snncompile.run.steps import phase_of
from snncompile.run.trace import Trace
from snncompile.target import Target
from tests.graphs import Array, Case, fixed_case, fixed_cases
from tests.passes.test_balance import neuron
from tests.passes.test_place import tiny, wide

LOIHI = Target.load("loihi")


def layered(op: Op, shape: tuple[int, ...], out: tuple[int, ...], signal: Spike | Fixed | None = None) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, signal or Spike()), "w": op, "n": neuron(*out, threshold=300)}
    nodes |= {"back": Scale(FixedPoint.number(4)), "out": Output()}
    return Graph(nodes, [Edge("x", "w"), Edge("w", "n"), Edge("n", "back", 2), Edge("back", "n"), Edge("n", "out")])


def spikes(graph: Graph, steps: int = 6, samples: int = 3, seed: int = 1) -> dict[str, Array]:
    numbers = np.random.default_rng(seed)
    found = {}
    for name in graph.names(Input):
        op = graph.nodes[name]
        assert isinstance(op, Input)
        most = op.signal.most if isinstance(op.signal, Fixed) else 1
        least = -most if isinstance(op.signal, Fixed) else 0
        found[name] = numbers.integers(least, most + 1, (samples, steps, *op.shape))
    return found


def demand_equal(above: Trace, here: Trace) -> None:
    """All that the one shows the other shows as well; the other may show relays and partial sums besides."""
    for name, array in above.spikes.items():
        np.testing.assert_array_equal(here.spikes[name], array, err_msg=name)
    for name, array in above.potentials.items():
        np.testing.assert_array_equal(here.potentials[name], array, err_msg=name)


def test_a_dense_layer_by_hand() -> None:
    """Twelve lists of one word; a core has five, so three parts of four; each neuron reads three messages."""
    small = tiny(synaptic_words=5)
    graph = layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,))
    passed = divide(graph, small)
    (note,) = passed.notes
    assert note.startswith("n: the sum of 3 populations, as 13 synaptic words and 13 axons of a neuron do not fit")
    assert "spike.message_bits" in note
    assert partial_sums(passed.graph) == ["n_partial0", "n_partial1", "n_partial2"]
    weight = wide((3, 12))
    for index in range(3):
        op, part = passed.graph.nodes[f"w_partial{index}"], passed.graph.nodes[f"n_partial{index}"]
        assert isinstance(op, Dense)
        assert isinstance(part, Readout)
        own = np.zeros_like(weight)
        own[:, 4 * index : 4 * index + 4] = weight[:, 4 * index : 4 * index + 4]
        assert np.array_equal(real(op.weight), own)
        assert (part.kind, part.decay, part.shape) == ("partial", 0.0, (3,))
        into = passed.graph.nodes[f"n_partial{index}_in"]
        assert isinstance(into, Scale)
        assert isinstance(into.factor, FixedPoint)
        assert (int(into.factor.mantissa), into.factor.exponent) == (2, -1)  # the machine has no odd weights
    timed = balance(passed.graph, small).graph
    assert [phase_of(timed, name) for name in ("n_partial0", "n")] == [1, 2]
    used = utilisation(place(timed, small).graph, small)
    assert {use.synaptic_words for name in partial_sums(timed) for _, use in used[name]} == {4}
    assert all(use.synaptic_words <= 5 for slices in used.values() for _, use in slices)


def test_a_convolution_is_cut_by_its_taps() -> None:
    """Two words a tap of a channel; nine taps of three channels in groups of 8, 8 and so on on cores of 16 words."""
    small = tiny(synaptic_words=16)
    graph = layered(Conv(FixedPoint(wide((4, 3, 3, 3))), padding=(1, 1)), (3, 5, 5), (4, 5, 5))
    passed = divide(graph, small)
    parts = partial_sums(passed.graph)
    assert len(parts) == 4  # 27 lists of two words: 13.5 a core are too many for the three that 54 / 16 would be
    kernels = [passed.graph.nodes[f"w_partial{index}"] for index in range(4)]
    assert all(isinstance(op, Conv) and op.padding == (1, 1) for op in kernels)
    taps = [np.count_nonzero(real(op.weight)[0]) for op in kernels if isinstance(op, Conv)]
    assert sum(taps) == 27
    assert max(taps) <= 8
    placed = place(balance(passed.graph, small).graph, small).graph
    check(placed, "placed", small)
    demand_equal(integer.run(graph, spikes(graph), small), integer.run(placed, spikes(graph), small))


def test_what_fits_is_left_alone() -> None:
    graph = layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,))
    assert divide(graph, LOIHI).graph is graph
    assert divide(graph, tiny(synaptic_words=13)).graph is graph
    assert divide(graph, tiny(synaptic_words=12)).graph is not graph
    assert in_parts(graph, LOIHI) == frozenset()
    assert in_parts(graph, tiny(synaptic_words=12)) == {"w"}


def test_a_part_of_its_own_where_two_connections_together_are_too_many() -> None:
    """Each fits a core, both do not: the larger one goes through one population."""
    nodes: dict[str, Op] = {
        "x": Input((6,), Spike()),
        "y": Input((4,), Spike()),
        "a": Dense(FixedPoint(wide((2, 6)))),
        "b": Dense(FixedPoint(wide((2, 4)) + 2)),
        "n": neuron(2, threshold=90),
        "out": Output(),
    }
    graph = Graph(nodes, [Edge("x", "a"), Edge("y", "b"), Edge("a", "n"), Edge("b", "n"), Edge("n", "out")])
    small = tiny(synaptic_words=8)
    passed = divide(graph, small)
    assert partial_sums(passed.graph) == ["n_partial0"]
    assert "b" in passed.graph.nodes
    assert "a" not in passed.graph.nodes
    placed = place(balance(passed.graph, small).graph, small).graph
    demand_equal(integer.run(graph, spikes(graph), small), integer.run(placed, spikes(graph), small))


@pytest.mark.parametrize(
    "sheet",
    [
        replace(LOIHI, spike=replace(LOIHI.spike, message_bits=0)),
        replace(LOIHI, weight=replace(LOIHI.weight, step=4, least=-256, most=252)),
    ],
    ids=["no messages", "no weight of one"],
)
def test_sheets_that_cannot_refuse_as_ever(sheet: Target) -> None:
    small = replace(sheet, core=replace(sheet.core, synaptic_words=5))
    graph = layered(Dense(FixedPoint(2 * wide((3, 12)))), (12,), (3,))
    assert divide(graph, small).graph is graph
    with pytest.raises(DoesNotFit, match=r"n \(Neuron\): needs 13 synaptic words on a core, loihi has 5"):
        compile_integers(graph, small, 4)


def test_axons_are_a_reason_as_well() -> None:
    small = tiny(axons_in=8)
    graph = layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,))
    passed = divide(graph, small)
    assert len(partial_sums(passed.graph)) == 2
    used = utilisation(place(balance(passed.graph, small).graph, small).graph, small)
    assert all(use.axons_in <= 8 for slices in used.values() for _, use in slices)


def test_what_cannot_be_cut_so_that_it_fits_is_refused_by_its_own_name() -> None:
    """One list takes four words, more than a core has: nothing smaller is left."""
    small = tiny(synaptic_words=1)
    graph = layered(Conv(FixedPoint(wide((9, 1, 3, 3)))), (1, 5, 5), (9, 3, 3))
    assert divide(graph, small).graph is graph
    with pytest.raises(DoesNotFit, match=r"^n \(Neuron\): needs 19 synaptic words"):
        compile_integers(graph, small, 4)


# Range


def test_parts_are_finer_where_a_message_is_narrow() -> None:
    """Weights of 254, 252 and so on, on spikes: messages up to 2047 hold eight of them, up to 1023 four."""
    graph = layered(Dense(FixedPoint(np.full((2, 32), 254) - 2 * np.arange(32))), (32,), (2,))
    for bits, many in ((24, 2), (12, 4), (11, 8)):
        small = replace(tiny(synaptic_words=20), spike=replace(LOIHI.spike, message_bits=bits))
        passed = divide(graph, small)
        parts = partial_sums(passed.graph)
        assert len(parts) == many
        assert in_range(passed.graph, small)
        ones = {"x": np.ones((1, 3, 32), dtype=np.int64)}
        run = integer.run(balance(passed.graph, small).graph, ones, small)
        largest = max(int(run.potentials[name].max()) for name in parts)
        bound = sum(254 - 2 * index for index in range(32 // many))
        assert (largest, bits == 24 or bound <= 2 ** (bits - 1) - 1) == (64 * bound, True)
        assert not in_range(passed.graph, replace(small, sum_most=bound - 1))


def test_a_message_too_narrow_for_one_input_is_refused() -> None:
    small = replace(tiny(synaptic_words=20), spike=replace(LOIHI.spike, message_bits=8))
    graph = layered(Dense(FixedPoint(np.full((2, 32), 254) - 2 * np.arange(32))), (32,), (2,))
    with pytest.raises(NotRepresentable, match=r"n \(Neuron\): a part of its sum may leave -127..127 .*message_bits"):
        divide(graph, small)


def test_the_bound_is_the_largest_sum_that_there_is() -> None:
    weight = np.array([[2, -4, 6, -8], [10, 2, -2, 0]])
    op = Dense(FixedPoint(weight))
    assert arriving(op, (0, 1)) == (-12, 12)
    assert arriving(op, (-3, 3)) == (-60, 60)
    assert arriving(op, (0, 1), 1, 3) == (-4, 6)
    assert arriving(Dense(FixedPoint(weight, -1)), (0, 1)) == (-6, 6)
    assert arriving(Conv(FixedPoint(weight.reshape(2, 2, 2))), (0, 1)) == (-12, 12)
    assert most_told(LOIHI) == 131071  # 64 times that is what the registers of 24 bits hold


def test_values_beyond_what_an_input_declares_run_on_the_definition() -> None:
    small = replace(tiny(synaptic_words=5), spike=replace(LOIHI.spike, message_bits=12))
    graph = divide(layered(Dense(FixedPoint(wide((3, 12)))), (12,), (3,), Fixed(3)), small).graph
    timed = balance(graph, small).graph
    simulator = Simulator(timed, small)
    inside, outside = np.full((1, 4, 12), 3), np.full((1, 4, 12), 4000)
    for values in (inside, outside, inside):
        expected, shown = integer.run(timed, {"x": values}, small), simulator.run({"x": values})
        for name in ("n",):
            assert np.array_equal(shown.potentials[name], expected.potentials[name])


# Random networks


def cut_of(case: Case, words: int, axons: int = 16000) -> tuple[Target, Graph]:
    """A network on small cores, divided and timed; tests do without those that cannot be."""
    small = tiny(synaptic_words=words, axons_in=axons)
    divided = divide(case.graph, small).graph
    try:
        return small, balance(divided, small, case.steps).graph
    except (LoopTooShort, NotRepresentable):  # a loop that has no time for another hop; biases that disturb a delay
        assume(False)
        raise


@pytest.mark.parametrize("delays", [False, True])
@pytest.mark.parametrize("words", [6, 14, 40])
def test_random_networks_change_nothing(delays: bool, words: int) -> None:
    @given(fixed_cases(delays=delays))
    def holds(case: Case) -> None:
        small, timed = cut_of(case, words)
        check(timed, "timed", small)
        expected = integer.run(case.graph, case.stimulus, small)
        demand_equal(expected, integer.run(timed, case.stimulus, small))
        if streams(case.graph):
            demand_equal(expected, integer.run(timed, case.stimulus, small, stream=True))
        placed = place(timed, small).graph
        check(placed, "placed", small)
        demand_equal(expected, Simulator(placed, small).run(case.stimulus))
        assert same(divide(timed, small).graph, timed)  # nothing is left to cut
        whole = undivided(timed)
        assert not partial_sums(whole)
        demand_equal(expected, integer.run(whole, case.stimulus, small))

    holds()


def test_random_networks_are_cut_often_and_in_every_way() -> None:
    """What the properties above search: dense, convolutions with strides, groups, spreads; inputs, delays, biases."""
    found: Counter[str] = Counter()
    for seed in range(300):
        case = fixed_case(Random(seed), delays=bool(seed % 2))
        small = tiny(synaptic_words=8)
        divided = divide(case.graph, small).graph
        parts = partial_sums(divided)
        found["cut"] += bool(parts)
        for one in connections(divided):
            if one.target in parts:
                op, source = divided.nodes[one.synapse], divided.nodes[one.source]
                found[type(op).__name__] += 1
                found["inputs"] += isinstance(source, Input)
                found["graded"] += isinstance(source, Input) and isinstance(source.signal, Fixed)
                found["delays"] += one.delay > 0
                if isinstance(op, Conv):
                    found["strides"] += max(op.stride) > 1
                    found["groups"] += op.groups > 1
                    found["dilated"] += max(op.dilation) > 1
                    found["spread"] += max(op.spread, default=1) > 1
            elif is_partial(divided.nodes[one.source]):
                reader = divided.nodes[one.target]
                found["read-outs"] += isinstance(reader, Readout)
                found["biases"] += isinstance(reader, Neuron) and bool(real(reader.bias).any())
        for name in divided.names(Neuron):
            arriving_at = [one for one in connections(divided) if one.target == name]
            mixed = {one.source in parts for one in arriving_at}
            found["some directly"] += mixed == {True, False}
    assert min(found.values()) >= 10, found
    assert len(found) == 13, found


# Time


def chain(words: int, *, deep: int, message: Spike | Fixed | None = None) -> tuple[Graph, Target]:
    """x -> a chain of ``deep`` populations -> n, and x -> n at once through what has to be cut."""
    nodes: dict[str, Op] = {"x": Input((12,), message or Spike()), "first": neuron(12, threshold=1)}
    nodes |= {"in": Scale(FixedPoint.number(2)), "n": neuron(3, threshold=300), "out": Output()}
    edges, at = [Edge("x", "in"), Edge("in", "first"), Edge("n", "out")], "first"
    for index in range(deep):
        nodes |= {f"w{index}": Scale(FixedPoint.number(2)), f"n{index}": neuron(12, threshold=1)}
        edges += [Edge(at, f"w{index}"), Edge(f"w{index}", f"n{index}")]
        at = f"n{index}"
    nodes |= {"late": Dense(FixedPoint(np.full((3, 12), 2))), "skip": Dense(FixedPoint(wide((3, 12))))}
    edges += [Edge(at, "late"), Edge("late", "n"), Edge("first", "skip"), Edge("skip", "n")]
    return Graph(nodes, edges), tiny(synaptic_words=words)


@pytest.mark.parametrize(("dense", "one_to_one"), [(62, 62), (62, 2), (62, 0), (3, 1), (0, 0)])
def test_sums_wait_behind_the_parts_and_spikes_in_front_of_them(dense: int, one_to_one: int) -> None:
    """Where the delay of the messages is too short, the spikes wait in delays or relays; no relay repeats integers."""
    graph, small = chain(6, deep=6)
    small = replace(small, delay=replace(small.delay, dense=dense, one_to_one=one_to_one))
    divided = divide(graph, small).graph
    assert len(partial_sums(divided)) == 2
    timed = balance(divided, small).graph
    check(timed, "timed", small)
    assert not any("partial" in name and "relay" in name for name in timed.nodes)
    assert [phase_of(timed, name) for name in partial_sums(timed)] == [max(2, 7 - one_to_one)] * 2
    demand_equal(integer.run(graph, spikes(graph), small), integer.run(timed, spikes(graph), small))
    demand_equal(integer.run(graph, spikes(graph), small), integer.run(timed, spikes(graph), small, stream=True))


def loop(late: int) -> tuple[Graph, Target]:
    """x -> a -> b -> a, the way from a to b cut, the feedback so many steps late."""
    zero = By(FixedPoint.number(40))
    nodes: dict[str, Op] = {
        "x": Input((12,), Spike()),
        "in": Scale(FixedPoint.number(60)),
        "a": replace(neuron(12, threshold=40), reset=zero),
        "w": Dense(FixedPoint(np.broadcast_to(2 * np.arange(5, 17), (3, 12)))),
        "b": replace(neuron(3, threshold=40), reset=zero),
        "back": Dense(FixedPoint(-2 * np.arange(36).reshape(12, 3))),
        "out": Output(),
    }
    edges = [Edge("x", "in"), Edge("in", "a"), Edge("a", "w"), Edge("w", "b")]
    return Graph(nodes, [*edges, Edge("b", "back", late), Edge("back", "a"), Edge("b", "out")]), replace(
        tiny(synaptic_words=5), neuron=replace(LOIHI.neuron, soft_reset=True)
    )


def test_a_loop_that_has_time_for_the_hop() -> None:
    graph, small = loop(3)
    timed = balance(divide(graph, small).graph, small, 6).graph
    assert partial_sums(timed)
    stimulus = spikes(graph)
    expected = integer.run(graph, stimulus, small)
    assert all(array.any() for array in expected.spikes.values())
    demand_equal(expected, integer.run(timed, stimulus, small))


def test_a_loop_that_has_not_is_refused_and_says_what_it_needs() -> None:
    graph, small = loop(2)
    balance(graph, small, 6)  # it had, uncut
    with pytest.raises(LoopTooShort, match=r"b_partial\d -> b.* has a delay of 2 steps and needs 3"):
        balance(divide(graph, small).graph, small, 6)


def test_a_loop_is_made_longer_by_the_hop_where_that_is_asked_for() -> None:
    """Every way in the loop gets the delay that its synapses take, two where there are parts between."""
    graph, small = loop(1)
    cut = in_parts(graph, small)
    assert cut == {"w"}
    longer = longer_loops(graph, small, cut)
    assert longer.notes == ("w arrives 2 steps later than trained",)
    assert [edge.delay for edge in longer.graph.into("w")] == [2]
    timed = balance(divide(longer.graph, small).graph, small, 6).graph
    stimulus = spikes(graph)
    demand_equal(integer.run(longer.graph, stimulus, small), integer.run(timed, stimulus, small))

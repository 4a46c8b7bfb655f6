"""Phases, delays and relays: a timed graph computes what the fixed one does, and plain Lava's timing does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given

from snncompile.errors import LoopTooShort, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Output, Readout, Scale, To
from snncompile.ir.signals import Spike
from snncompile.ir.text import to_text
from snncompile.passes.balance import balance, streams
from snncompile.run import integer
from snncompile.run.steps import latency, phase_of
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target
from tests.graphs import Array, Case, fixed_cases

LOIHI = Target.load("loihi")


def neuron(*shape: int, threshold: int, bias: int = 0, beta: int = 0) -> Neuron:
    return Neuron(
        shape,
        alpha=FixedPoint.number(4096, -12),
        beta=FixedPoint.number(beta, -12),
        threshold=FixedPoint.number(threshold),
        bias=FixedPoint.number(bias),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )


def one(weight: int) -> Scale:
    return Scale(FixedPoint.number(weight))


def parted(left: Trace, right: Trace, graph: Graph) -> str | None:
    found = first_divergence(left, right, graph.order)
    return None if found is None else str(found)


def agree(case: Case, timed: Graph, *, stream: bool) -> None:
    expected = integer.run(case.graph, case.stimulus, LOIHI)
    assert parted(expected, integer.run(timed, case.stimulus, LOIHI, stream=stream), case.graph) is None


@given(fixed_cases())
def test_a_timed_graph_computes_what_the_fixed_one_does(case: Case) -> None:
    timed = balance(case.graph, LOIHI).graph
    check(timed, "timed", LOIHI)
    assert streams(case.graph)
    agree(case, timed, stream=False)
    agree(case, timed, stream=True)


@given(fixed_cases(delays=True))
def test_so_it_does_with_delays_and_loops(case: Case) -> None:
    try:
        timed = balance(case.graph, LOIHI, case.steps).graph
    except NotRepresentable as refused:
        assert "biases make it fire" in str(refused)  # noqa: PT017 - the only reason there may be
        assume(False)
    check(timed, "timed", LOIHI)
    agree(case, timed, stream=False)


@given(fixed_cases())
def test_phases_are_the_smallest(case: Case) -> None:
    """No population could run a step earlier: each but the first has a connection that takes the least time."""
    timed = balance(case.graph, LOIHI).graph
    for name in timed.names(Neuron, Readout):
        slack = []
        for edge in timed.into(name):
            delay, at = edge.delay, edge.source
            while not isinstance(timed.nodes[at], Input | Neuron):
                (before,) = timed.into(at)
                delay, at = delay + before.delay, before.source
            slack.append(delay)
            assert delay == phase_of(timed, name) - phase_of(timed, at)
        assert min(slack) == LOIHI.synapse_latency


# --- golden -----------------------------------------------------------------------------------------------------------


def residual() -> Graph:
    """x -> a -> b with x and a skipping to b; and a read-out."""
    nodes = {
        "x": Input((2,), Spike()),
        "wa": one(4),
        "a": neuron(2, threshold=3),
        "wb": one(4),
        "b": neuron(2, threshold=3),
        "wc": one(4),
        "skip": one(4),
        "given": one(4),
        "c": neuron(2, threshold=9, beta=4095),
        "out": Output(),
    }
    chain = ["x", "wa", "a", "wb", "b", "wc", "c", "out"]
    edges = [Edge(source, target) for source, target in pairwise(chain)]
    edges += [Edge("a", "skip"), Edge("skip", "c"), Edge("x", "given"), Edge("given", "c")]
    return Graph(nodes, edges)


def test_skips_wait() -> None:
    text = to_text(balance(residual(), LOIHI).graph)
    wanted = {"wa": "x@1", "wb": "a@1", "wc": "b@1", "skip": "a@2", "given": "x@3"}
    for line in text.splitlines():
        name = line.split()[0]
        if name in wanted:
            assert line.endswith(f"<- {wanted[name]}")
    assert [line.partition("phase=")[2][:1] for line in text.splitlines() if "Neuron(" in line] == ["1", "2", "3"]


def conv_skips(depth: int, *names: str) -> Graph:
    """A chain of ``depth`` one-to-one layers behind ``first``, and convolutions from ``first`` to its end."""
    nodes = {"x": Input((1, 2, 2), Spike()), "w0": one(4), "first": neuron(1, 2, 2, threshold=3)}
    edges = [Edge("x", "w0"), Edge("w0", "first")]
    last = "first"
    for index in range(1, depth + 1):
        nodes |= {f"w{index}": one(4), f"n{index}": neuron(1, 2, 2, threshold=3)}
        edges += [Edge(last, f"w{index}"), Edge(f"w{index}", f"n{index}")]
        last = f"n{index}"
    for name in names:
        nodes[name] = Conv(FixedPoint(np.full((1, 1, 1, 1), -6)))
        edges += [Edge("first", name), Edge(name, last)]
    nodes["out"] = Output()
    return Graph(nodes, [*edges, Edge(last, "out")])


def test_relays_hold_what_a_convolution_cannot_delay_and_are_shared() -> None:
    passed = balance(conv_skips(4, "skip1", "skip2"), LOIHI)
    relays = [name for name in passed.graph.names(Neuron) if "relay" in name]
    assert relays == ["first_relay3"]
    assert phase_of(passed.graph, "first_relay3") == 4
    assert [edge.delay for edge in passed.graph.into("first_relay3_in")] == [3]
    assert [edge.source for skip in ("skip1", "skip2") for edge in passed.graph.into(skip)] == relays * 2
    assert [note.split("; ")[0] for note in passed.notes] == [
        f"skip{index}: first_relay3 holds for 3 steps what the machine cannot delay, for {added} neurons and words"
        for index, added in ((1, 6), (2, 0))
    ]


def test_without_programmable_delays_relays_follow_each_other() -> None:
    chip = replace(LOIHI, delay=replace(LOIHI.delay, dense=0, one_to_one=0))
    graph = conv_skips(4, "skip")
    timed = balance(graph, chip).graph
    relays = [name for name in timed.names(Neuron) if "relay" in name]
    assert relays == ["first_relay", "first_relay_relay", "first_relay_relay_relay"]
    assert [phase_of(timed, name) for name in relays] == [2, 3, 4]
    stimulus = {"x": np.random.default_rng(0).integers(0, 2, (3, 7, 1, 2, 2))}
    expected = integer.run(graph, stimulus, chip)
    assert parted(expected, integer.run(timed, stimulus, chip, stream=True), graph) is None


def test_a_relay_of_a_sheet_whose_largest_weight_is_one() -> None:
    chip = replace(LOIHI, weight=replace(LOIHI.weight, least=-1, most=1, step=1))
    chip = replace(chip, delay=replace(LOIHI.delay, dense=0, one_to_one=0))
    graph = conv_skips(2, "skip")
    narrow: dict[str, Scale | Conv | Neuron] = {
        name: Scale(FixedPoint.number(1)) for name in graph.nodes if name.startswith("w")
    }
    narrow |= {"skip": Conv(FixedPoint(np.full((1, 1, 1, 1), -1)))}
    narrow |= {
        name: replace(op, threshold=FixedPoint.number(0)) for name, op in graph.nodes.items() if isinstance(op, Neuron)
    }
    graph = graph.edit(narrow)
    timed = balance(graph, chip).graph
    check(timed, "timed", chip)
    stimulus = {"x": np.random.default_rng(0).integers(0, 2, (3, 7, 1, 2, 2))}
    expected = integer.run(graph, stimulus, chip)
    assert expected.spikes["first"].any()
    assert parted(expected, integer.run(timed, stimulus, chip, stream=True), graph) is None
    with pytest.raises(
        NotRepresentable, match=r"first \(Neuron\): a relay behind it needs a threshold of 0 .*loihi.toml"
    ):
        balance(graph, replace(chip, threshold=replace(LOIHI.threshold, least=1)))


@pytest.mark.parametrize("flat", [False, True])
def test_a_small_convolution_is_written_out_where_that_adds_less(flat: bool) -> None:
    """From a map of 4 x 4 to one neuron: 16 words, where a relay would be 16 neurons and 5 words."""
    nodes = {"x": Input((1, 4, 4), Spike()), "w0": one(4), "first": neuron(1, 4, 4, threshold=3)}
    nodes |= {"w1": one(4), "second": neuron(1, 4, 4, threshold=3)}
    nodes["end"] = neuron(*((1,) if flat else (1, 1, 1)), threshold=3)
    weights = [FixedPoint(2 * np.random.default_rng(index).integers(-3, 6, (1, 1, 4, 4))) for index in range(2)]
    nodes |= {"skip": Conv(weights[0]), "conv": Conv(weights[1]), "out": Output()}
    edges = [Edge(a, b) for a, b in pairwise(["x", "w0", "first", "w1", "second", "conv"])]
    edges += [Edge("first", "skip"), Edge("end", "out")]
    for name in ("skip", "conv"):
        if flat:
            nodes[f"{name}_flat"] = Flatten()
            edges += [Edge(name, f"{name}_flat"), Edge(f"{name}_flat", "end")]
        else:
            edges.append(Edge(name, "end"))
    graph = Graph(nodes, edges)
    passed = balance(graph, LOIHI)
    check(passed.graph, "timed", LOIHI)
    assert isinstance(passed.graph.nodes["skip"], Dense)
    assert isinstance(passed.graph.nodes["conv"], Conv)
    (note,) = passed.notes
    assert note == "skip: written out as a matrix of -16 words more, which delays; relays would add 21"
    stimulus = {"x": np.random.default_rng(5).integers(0, 2, (3, 7, 1, 4, 4))}
    assert integer.run(graph, stimulus, LOIHI).spikes["end"].any()
    agree(Case(graph, stimulus), passed.graph, stream=True)


@pytest.mark.parametrize("depth", [2, 5])
def test_relays_are_exact(depth: int) -> None:
    graph = conv_skips(depth, "skip")
    stimulus = {"x": np.random.default_rng(depth).integers(0, 2, (3, 7, 1, 2, 2))}
    agree(Case(graph, stimulus), balance(graph, LOIHI).graph, stream=True)


def test_a_relay_takes_no_name_that_is_taken() -> None:
    graph = conv_skips(2, "skip")
    graph = graph.edit(
        {"first_relay": neuron(1, 2, 2, threshold=1), "w": one(-4), "end": Output()},
        [*graph.edges, Edge("x", "w"), Edge("w", "first_relay"), Edge("first_relay", "end")],
    )
    stimulus = {"x": np.random.default_rng(1).integers(0, 2, (2, 6, 1, 2, 2))}
    agree(Case(graph, stimulus), balance(graph, LOIHI).graph, stream=False)


def test_delays_beyond_the_machine_s_become_relays() -> None:
    """A dense connection delays 62 steps; 200 need relays that delay themselves."""
    nodes = {"x": Input((2,), Spike()), "wa": one(4), "a": neuron(2, threshold=3)}
    nodes |= {"late": Dense(FixedPoint(np.eye(2, dtype=int) * 4)), "b": neuron(2, threshold=3), "out": Output()}
    edges = [Edge("x", "wa"), Edge("wa", "a"), Edge("a", "late", 200), Edge("late", "b"), Edge("b", "out")]
    graph = Graph(nodes, edges)
    timed = balance(graph, LOIHI).graph
    check(timed, "timed", LOIHI)
    stimulus = {"x": np.random.default_rng(2).integers(0, 2, (1, 210, 2))}
    assert integer.run(graph, stimulus, LOIHI).spikes["b"].any()
    agree(Case(graph, stimulus), timed, stream=False)


@pytest.mark.parametrize("step", [1, 3])
def test_a_relay_s_spike_exceeds_its_threshold_on_every_grid_of_weights(step: int) -> None:
    chip = replace(LOIHI, weight=replace(LOIHI.weight, step=step))
    graph = conv_skips(2, "skip")
    stimulus = {"x": np.ones((1, 4, 1, 2, 2), dtype=int)}
    expected = integer.run(graph, stimulus, chip)
    assert parted(expected, integer.run(balance(graph, chip).graph, stimulus, chip), graph) is None


# --- what other exporters get wrong -----------------------------------------------------------------------------------


def as_plain_lava(timed: Graph) -> Graph:
    """Without phases every population is cleared with the first one."""
    cleared = {n: replace(op, phase=0) for n, op in timed.nodes.items() if isinstance(op, Neuron | Readout)}
    return timed.edit(cleared)


def shifted(trace: Trace, timed: Graph, name: str, steps: int) -> Array:
    """The spikes of a run without phases, one long sample, from the step where the population's own would start."""
    phase = phase_of(timed, name)
    return trace.spikes[name][:, phase : phase + steps]


def test_biases_fire_before_the_first_input_arrives() -> None:
    """The third layer integrates its bias for two steps before anything can have reached it."""
    names = ["a", "b", "c"]
    nodes = {"x": Input((1,), Spike()), "out": Output()}
    edges, before = [], "x"
    for name in names:
        nodes |= {f"w{name}": one(4), name: neuron(1, threshold=10, bias=4)}
        edges += [Edge(before, f"w{name}"), Edge(f"w{name}", name)]
        before = name
    graph = Graph(nodes, [*edges, Edge("c", "out")])
    timed = balance(graph, LOIHI).graph
    steps = 6
    stimulus = {"x": np.zeros((1, steps, 1), dtype=int)}
    expected = integer.run(graph, stimulus, LOIHI)
    # by hand: v = 4, 8, 12 > 10 every third step; b gets 4 more at step 2, c as well
    assert expected.spikes["a"][0, :, 0].tolist() == [0, 0, 1, 0, 0, 1]
    assert expected.spikes["c"][0, :, 0].tolist() == [0, 0, 1, 0, 0, 1]
    late = latency(timed)
    longer = {"x": np.zeros((1, steps + late, 1), dtype=int)}
    plain = integer.run(as_plain_lava(timed), longer, LOIHI)
    # plain Lava: c starts two steps early with its bias alone
    assert shifted(plain, timed, "c", steps)[0, :, 0].tolist() != expected.spikes["c"][0, :, 0].tolist()
    assert parted(expected, integer.run(timed, stimulus, LOIHI), graph) is None
    two = {"x": np.zeros((2, steps, 1), dtype=int)}
    common = as_plain_lava(timed)  # and clearing all with the first layer, sample by sample, is wrong as well
    again = integer.run(common, two, LOIHI, stream=True).spikes["c"].reshape(-1)
    assert again[late : late + steps].tolist() != expected.spikes["c"][0, :, 0].tolist()
    agree(Case(graph, two), timed, stream=True)


def test_skips_arrive_early_without_their_delay() -> None:
    graph = residual()
    timed = balance(graph, LOIHI).graph
    stimulus = {"x": np.zeros((1, 5, 2), dtype=int)}
    stimulus["x"][0, 1] = 1
    expected = integer.run(graph, stimulus, LOIHI)
    # c forgets at once; it gets 4 + 4 + 4 at step 1 and fires, which no two of them make it do
    assert expected.spikes["c"][0, :, 0].tolist() == [0, 1, 0, 0, 0]
    early = Graph(timed.nodes, [replace(edge, delay=min(edge.delay, 1)) for edge in timed.edges])
    wrong = integer.run(early, stimulus, LOIHI)
    assert not wrong.spikes["c"].any()
    assert parted(expected, integer.run(timed, stimulus, LOIHI), graph) is None


# --- refusals ---------------------------------------------------------------------------------------------------------


def looped(*, delay: int, bias: int = 0, before: int = 0) -> Graph:
    """x -> [chain of ``before``] -> a -> b -> a, the way back with a delay."""
    nodes = {"x": Input((1,), Spike())}
    edges, last = [], "x"
    for index in range(before):
        nodes |= {f"w{index}": one(4), f"n{index}": neuron(1, threshold=3)}
        edges += [Edge(last, f"w{index}"), Edge(f"w{index}", f"n{index}")]
        last = f"n{index}"
    nodes |= {"wa": one(4), "a": neuron(1, threshold=3, bias=bias), "wb": one(4), "b": neuron(1, threshold=3)}
    nodes |= {"back": one(-4), "out": Output()}
    edges += [Edge(last, "wa"), Edge("wa", "a"), Edge("a", "wb"), Edge("wb", "b"), Edge("b", "back", delay)]
    return Graph(nodes, [*edges, Edge("back", "a"), Edge("b", "out")])


def test_a_loop_that_is_too_short_is_named() -> None:
    with pytest.raises(LoopTooShort) as error:
        balance(looped(delay=1), LOIHI)
    message = str(error.value)
    assert "the loop a -> b -> a" in message or "the loop b -> a -> b" in message
    assert "has a delay of 1 step and needs 2" in message
    assert "targets/loihi.toml" in message
    assert "feedback that arrives 1 step later" in message


@pytest.mark.parametrize("delay", [2, 3, 60])
def test_a_loop_that_is_slow_enough_is_exact(delay: int) -> None:
    graph = looped(delay=delay)
    stimulus = {"x": np.random.default_rng(delay).integers(0, 2, (2, 9, 1))}
    agree(Case(graph, stimulus), balance(graph, LOIHI).graph, stream=False)


def test_a_loop_that_biases_disturb_is_refused() -> None:
    with pytest.raises(NotRepresentable, match=r"a \(Neuron\): biases make it fire.*wb carries") as error:
        balance(disturbed(chain=2, delay=1, bias=4), LOIHI)
    assert "not cleared" in str(error.value)


def disturbed(*, chain: int, delay: int, bias: int) -> Graph:
    """x -> [chain] -> a, whose spikes reach b some steps later; a fires on its own bias."""
    nodes = {"x": Input((1,), Spike())}
    edges, last = [], "x"
    for index in range(chain):
        nodes |= {f"w{index}": one(4), f"n{index}": neuron(1, threshold=3)}
        edges += [Edge(last, f"w{index}"), Edge(f"w{index}", f"n{index}")]
        last = f"n{index}"
    nodes |= {"wa": one(4), "a": neuron(1, threshold=6, bias=bias), "wb": one(4), "b": neuron(1, threshold=3)}
    edges += [Edge(last, "wa"), Edge("wa", "a"), Edge("a", "wb", delay), Edge("wb", "b"), Edge("b", "out")]
    return Graph(nodes | {"out": Output()}, edges)


def test_a_sample_shorter_than_the_latency_moves_what_biases_do() -> None:
    """a has phase 5 and fires every second step. Cleared at 0 it fires at 1 and 3, which is no matter; but samples of 2
    steps also clear it at 1 and 3, so that it fires at 4, and that is carried into the sample.
    """
    graph = disturbed(chain=4, delay=1, bias=4)
    stimulus = {"x": np.zeros((1, 2, 1), dtype=int)}
    expected = integer.run(graph, stimulus, LOIHI)
    timed = balance(graph, LOIHI, steps=8).graph  # where a sample is longer, the same graph is fine
    assert parted(expected, integer.run(timed, stimulus, LOIHI), graph) is not None
    longer = {"x": np.zeros((1, 8, 1), dtype=int)}
    agree(Case(graph, longer), timed, stream=False)
    for steps in (2, None):
        with pytest.raises(NotRepresentable, match="biases make it fire"):
            balance(graph, LOIHI, steps)

"""One form of neuron, biases in the populations: the same spikes for every float64 potential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Norm, Op, Output, Pool, Readout, To, real
from snncompile.ir.text import from_text, same, to_text
from snncompile.passes.canonical import canonical
from snncompile.passes.fold_norm import fold_norm
from snncompile.passes.fuse_pool import fuse_pool
from snncompile.run import reference
from snncompile.run.trace import first_divergence
from tests.graphs import Case, read_cases

BEFORE = """\
x  = Input(shape=[2])
fc = Dense(weight=[[1.0, 2.0], [3.0, 4.0]], bias=[1.0, -1.0]) <- x
a  = Neuron(shape=[2], threshold=1.5, bias=0.5, reset={'to': -0.5}, gain=2.0, amplitude=4.0, rest=0.5) <- fc
f2 = Dense(weight=[[1.0, 0.5]]) <- a
b  = Neuron(shape=[1]) <- f2, a2
a2 = Neuron(shape=[1]) <- f2
o  = Output() <- b
oa = Output() <- a
"""
AFTER = """\
x       = Input(shape=[2])
fc      = Dense(weight=[[2.0, 4.0], [6.0, 8.0]]) <- x
a       = Neuron(shape=[2], bias=[2.5, -1.5], reset={'to': -1.0}, initial=-0.5) <- fc
f2      = Dense(weight=[[4.0, 2.0]]) <- a
b       = Neuron(shape=[1]) <- f2, a2_to_b
a2      = Neuron(shape=[1]) <- f2
o       = Output() <- b
oa      = Output() <- a
a2_to_b = Scale(factor=1.0) <- a2
"""


def test_before_and_after() -> None:
    assert to_text(canonical(from_text(BEFORE)).graph) == AFTER


@given(read_cases())
def test_spikes_stay_on_random_networks(case: Case) -> None:
    """Potentials stay too but for the resting potential that is taken off, and read-outs whatever was folded."""
    for graph in (case.graph, fuse_pool(fold_norm(case.graph).graph).graph):
        passed = canonical(graph)
        before, after = (reference.run(each, case.stimulus) for each in (graph, passed.graph))
        assert first_divergence(before, after, graph.order, potentials=False) is None
        for name, op in graph.nodes.items():
            if isinstance(op, Neuron | Readout):
                rest = real(op.rest) if isinstance(op, Neuron) else 0.0
                np.testing.assert_array_equal(after.potentials[name], before.potentials[name] - rest)
        assert same(canonical(passed.graph).graph, passed.graph)


@given(st.floats(-1e6, 1e6), st.integers(-2, 2))
def test_at_or_above_is_above_the_number_below(threshold: float, ulps: int) -> None:
    v = np.float64(threshold)
    for _ in range(abs(ulps)):
        v = np.nextafter(v, np.inf * np.sign(ulps))
    graph = single(Neuron((1,), threshold=threshold, fires=">="), Dense([[1.0]]))
    neuron = canonical(graph).graph.nodes["n"]
    assert isinstance(neuron, Neuron)
    assert neuron.fires == ">"
    assert bool(v > neuron.threshold) is bool(v >= threshold)


def single(neuron: Neuron, *ops: Op, shape: tuple[int, ...] = (1,), delay: int = 0) -> Graph:
    """x -> ops -> n, the last of their edges with a delay."""
    nodes: dict[str, Op] = {"x": Input(shape)}
    edges, last = [], "x"
    for index, op in enumerate(ops):
        nodes[f"op{index}"] = op
        edges.append(Edge(last, f"op{index}"))
        last = f"op{index}"
    nodes |= {"n": neuron, "out": Output()}
    return Graph(nodes, [*edges, Edge(last, "n", delay), Edge("n", "out")])


BIASED = Dense([[1.0]], [1.0])
CONV = Conv(np.ones((1, 1, 1, 1)), [1.0])
MAXIMUM = Pool("max", (2, 2), (2, 2), (1, 1))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (single(Neuron((1,)), BIASED, delay=1), "op0 (Dense) stays: it passes the delay into n (Neuron)"),
        (single(Neuron((1,), alpha=0.5), BIASED), "it builds up in the synaptic current of n (Neuron)"),
        (single(Neuron((1, 2, 2)), CONV, MAXIMUM, shape=(1, 2, 2)), "it passes the maximum op1 (Pool)"),
        (single(Neuron((1,)), BIASED, Norm(0.0, 1.0, 1.0, 1.0)), "it passes op1 (Norm), which is not folded"),
    ],
)
def test_it_declines_a_bias_that_is_not_constant_there(graph: Graph, reason: str) -> None:
    passed = canonical(graph)
    assert reason in passed.notes[0]
    x = {"x": np.random.default_rng(0).integers(-16, 17, (2, 4, *graph.nodes["x"].shape)) / 8}  # type: ignore[union-attr]
    before, after = reference.run(graph, x), reference.run(passed.graph, x)
    assert first_divergence(before, after, graph.order) is None


def test_a_bias_in_a_synaptic_current_would_be_another_network() -> None:
    """What the decline prevents: a population's own bias does not build up in u."""
    graph = single(Neuron((1,), alpha=0.5, beta=1.0, threshold=10.0), BIASED)
    moved = single(Neuron((1,), alpha=0.5, beta=1.0, threshold=10.0, bias=1.0), Dense([[1.0]]))
    x = {"x": np.zeros((1, 3, 1))}
    assert reference.run(graph, x).potentials["n"].ravel().tolist() == [1.0, 1.5, 1.75]
    assert reference.run(moved, x).potentials["n"].ravel().tolist() == [1.0, 1.0, 1.0]


def test_a_norm_that_stays_keeps_its_shift_to_itself() -> None:
    norm = Norm([0.0], [1.0], [1.0], [2.0], 0.0)
    graph = Graph(
        {"x": Input((1,)), "norm": norm, "n": Neuron((1,)), "fc": BIASED, "m": Neuron((1,)), "out": Output()},
        [Edge("x", "norm"), Edge("norm", "n"), Edge("n", "fc"), Edge("fc", "m"), Edge("m", "out")],
    )
    changed = canonical(graph).graph
    assert changed.nodes["n"].bias == 0.0  # type: ignore[union-attr]
    assert changed.nodes["m"].bias == 1.0  # type: ignore[union-attr]


def test_a_bias_that_reaches_an_output_past_every_population_stays() -> None:
    graph = single(Neuron((1,)), BIASED)
    graph = graph.edit({"tap": Output()}, [*graph.edges, Edge("op0", "tap")])
    passed = canonical(graph)
    assert "reaches tap (Output) past every population" in passed.notes[0]
    assert passed.graph.nodes["op0"].bias is not None  # type: ignore[union-attr]


def test_a_soft_reset_stays_one() -> None:
    neuron = canonical(single(Neuron((1,), reset=By(0.75), rest=0.5), Dense([[1.0]]))).graph.nodes["n"]
    assert isinstance(neuron, Neuron)
    assert isinstance(neuron.reset, By)
    assert neuron.reset.amount == 0.75
    hard = canonical(single(Neuron((1,), reset=To(0.5), rest=0.5), Dense([[1.0]]))).graph.nodes["n"]
    assert isinstance(hard, Neuron)
    assert isinstance(hard.reset, To)
    assert hard.reset.value == 0.0

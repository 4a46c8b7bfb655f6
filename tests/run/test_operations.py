"""Synaptic operations against brute force: weights of one, and everything that arrives through them added up."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.energy import count
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.signals import Spike
from snncompile.run import cpu, integer, linear, numpy_layers
from snncompile.run.cpu import Simulator
from snncompile.run.numpy_layers import Layers
from snncompile.run.trace import Trace
from snncompile.target import Target
from tests.graphs import Case
from tests.run.random_networks import network, sheet

Array = np.ndarray[Any, np.dtype[Any]]
TARGET = Target.load("onnx")
number = FixedPoint.number
KERNELS = (*cpu.KERNELS, "numpy")


def arriving(graph: Graph, name: str, sent: dict[str, Array]) -> list[tuple[str, Array]]:
    """What a node hands on: every source that it comes from, and the array [.., *shape], weights not applied."""
    if name in sent:
        return [(name, sent[name])]
    op = graph.nodes[name]
    parts = [part for edge in graph.into(name) for part in arriving(graph, edge.source, sent)]
    match op:
        case Pool():
            return [(at, linear.pool(part, op.kind, op.kernel, op.stride, op.padding)) for at, part in parts]
        case Flatten():
            return [(at, part.reshape(len(part), *(op.shape or (-1,)))) for at, part in parts]
        case _:
            return parts


def brute_force(case: Case, trace: Trace) -> dict[str, int]:
    """Node of weights, the last before a population -> sum of what it adds with weights of one, whatever they are."""
    graph = case.graph
    sent = {name: np.asarray(array) for name, array in (*case.stimulus.items(), *trace.spikes.items())}
    sent = {name: array.reshape(-1, *array.shape[2:]).astype(np.int64) for name, array in sent.items()}
    found: Counter[str] = Counter()

    def follow(name: str, end: str) -> None:
        for edge in graph.into(name):
            before, op = edge.source, graph.nodes[edge.source]
            if isinstance(op, Flatten):
                follow(before, end)
            elif before in sent or isinstance(op, Pool):  # an identity
                for source, part in arriving(graph, before, sent):
                    found[f"{source} -> {end}"] += int(np.abs(part).sum())
            else:
                for into in graph.into(before):
                    found[before] += sum(_added(op, np.abs(part)) for _, part in arriving(graph, into.source, sent))

    for end in graph.names(Neuron, Readout):
        follow(end, end)
    return dict(found)


def _added(op: Op, part: Array) -> int:
    match op:
        case Dense():
            return int(part.sum()) * op.weight.shape[0]
        case Conv():
            ones = np.ones(op.weight.shape, dtype=np.int64)
            return int(linear.conv(part, ones, op.stride, op.padding, op.dilation, op.groups, op.spread).sum())
        case Scale():
            return int(part.sum())
        case _:
            raise AssertionError(op)


@given(st.randoms(use_true_random=False))
def test_operations_are_the_synapses_that_events_go_through(source: Random) -> None:
    target = sheet(source)
    case = network(source, target)
    trace = Simulator(case.graph, target, threads=source.randint(1, 2)).run(case.stimulus)
    expected = brute_force(case, trace)
    assert trace.meta["operations"] == expected, case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_layers, "BATCH_NUMBERS", source.choice([1, 1000, 1 << 25]))
        layers = Layers(case.graph, target)
        for _ in range(2):  # each run counts from nothing
            assert layers.run(case.stimulus).meta["operations"] == expected, case


def lif(shape: tuple[int, ...]) -> Neuron:
    one, half = number(4096, -12), number(2048, -12)
    return Neuron(shape, one, half, number(40), number(0), reset=To(number(0)), initial=number(0))


def grouped(groups: int, channels: int, each: int) -> Graph:
    """A convolution of so many groups between two others; borders and strides included."""
    draw = np.random.default_rng(groups)

    def weights(*shape: int) -> FixedPoint:
        return FixedPoint(draw.integers(-60, 100, shape))

    nodes: dict[str, Op] = {
        "input": Input((2, 6, 6), Spike()),
        "first": Conv(weights(channels, 2, 3, 3), None, (1, 1), (1, 1)),
        "one": lif((channels, 6, 6)),
        "middle": Conv(weights(each * groups, channels // groups, 3, 3), None, (2, 2), (1, 1), (1, 1), groups),
        "two": lif((each * groups, 3, 3)),
        "last": Dense(weights(4, 9 * each * groups)),
        "out": Readout((4,), "sum", number(0)),
        "output": Output(),
    }
    return Graph(nodes, tuple(Edge(one, other) for one, other in pairwise(nodes)))


@pytest.mark.parametrize(("groups", "channels", "each"), [(1, 6, 4), (2, 6, 3), (6, 6, 1), (6, 6, 2), (70, 70, 1)])
@pytest.mark.parametrize("kernels", KERNELS)
def test_groups_and_depthwise_as_energy_counts_them(
    groups: int, channels: int, each: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
    graph = grouped(groups, channels, each)
    stimulus = {"input": np.random.default_rng(1).random((3, 4, 2, 6, 6)) < 0.3}
    simulator = Simulator(graph, TARGET)
    trace = simulator.run(stimulus)
    assert simulator.uncarried == ""
    expected = integer.run(graph, stimulus, TARGET)
    for name, potentials in expected.potentials.items():
        np.testing.assert_array_equal(trace.potentials[name], potentials)
    counted = {layer.name: layer.total("ac") for layer in count(graph, stimulus, trace).layers}
    assert trace.meta["operations"] == {name: counted[name] for name in ("first", "middle", "last")}
    assert counted["middle"] > 0


def test_weights_that_feed_two_populations_are_counted_once() -> None:
    draw = np.random.default_rng(3)
    nodes: dict[str, Op] = {
        "input": Input((5,), Spike()),
        "dense": Dense(FixedPoint(draw.integers(-60, 100, (7, 5)))),
        "one": lif((7,)),
        "two": lif((7,)),
        "last": Dense(FixedPoint(draw.integers(-60, 100, (3, 7)))),
        "out": Readout((3,), "sum", number(0)),
        "output": Output(),
    }
    ends = [("input", "dense"), ("dense", "one"), ("dense", "two"), ("one", "last"), ("two", "last"), ("last", "out")]
    graph = Graph(nodes, tuple(Edge(*pair) for pair in (*ends, ("out", "output"))))
    stimulus = {"input": draw.random((3, 4, 5)) < 0.4}
    for runs in (Simulator(graph, TARGET), Layers(graph, TARGET)):
        assert runs.run(stimulus).meta["operations"]["dense"] == 7 * int(stimulus["input"].sum())


def test_what_is_no_event_is_not_counted() -> None:
    """A read-out sends numbers: no convention counts them, and a zero would be a count."""
    nodes: dict[str, Op] = {
        "input": Input((2,), Spike()),
        "dense": Dense(FixedPoint(np.array([[9, -2]]))),
        "sum": Readout((1,), "sum", number(0)),
        "more": Scale(number(2)),
        "lif": lif((1,)),
        "output": Output(),
    }
    graph = Graph(nodes, tuple(Edge(*pair) for pair in pairwise(nodes)))
    simulator = Simulator(graph, TARGET)
    trace = simulator.run({"input": np.ones((2, 3, 2), dtype=bool)})
    assert "operations" not in trace.meta
    if cpu.KERNELS:
        assert simulator.engine == "run/integer, which is slow (sum feeds a population)"


def test_values_beyond_what_an_input_declares_count_as_many_units() -> None:
    graph = grouped(2, 6, 3)
    values = np.random.default_rng(4).integers(-3, 6, (3, 4, 2, 6, 6))
    runs = [Simulator(graph, TARGET).run({"input": values}), Layers(graph, TARGET).run({"input": values})]
    first = arriving_units(values)
    assert [trace.meta["operations"]["first"] for trace in runs] == [first] * 2
    assert runs[0].meta["operations"] == runs[1].meta["operations"]


def arriving_units(values: Array) -> int:
    """Through six kernels of 3 x 3 with a border: a corner is in four windows, an edge in six, the rest in nine."""
    near = np.array([2, 3, 3, 3, 3, 2])
    return 6 * int((np.abs(values) * near[:, None] * near).sum())

"""The graph, its shapes and signals: what is wrong is named by its node; nothing can be changed."""

from __future__ import annotations

import pickle
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from snncompile.errors import GraphError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.shapes import shapes, signals
from snncompile.ir.signals import Analog, Count, Fixed, Signed, Spike, is_event
from snncompile.ir.text import to_text
from snncompile.run import reference
from tests.graphs import Array, Case, fixed_case, fixed_cases, read_cases


def chain(*ops: Op, shape: tuple[int, ...] = (2,), signal: Any = None) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, signal or Analog())}
    nodes |= {f"op{index}": op for index, op in enumerate(ops)}
    names = list(nodes)
    return Graph(nodes, [Edge(names[i], names[i + 1]) for i in range(len(names) - 1)])


# --- structure --------------------------------------------------------------------------------------------------------


def test_edges_need_their_ends_and_no_negative_delay() -> None:
    with pytest.raises(GraphError, match="edge x -> y: no node 'y'"):
        Graph({"x": Input((1,))}, [Edge("x", "y")])
    with pytest.raises(GraphError, match="edge y -> x: no node 'y'"):
        Graph({"x": Input((1,))}, [Edge("y", "x")])
    with pytest.raises(GraphError, match="edge x -> o: negative delay -1"):
        Graph({"x": Input((1,)), "o": Output()}, [Edge("x", "o", -1)])


def test_a_loop_without_delay_is_named() -> None:
    nodes: dict[str, Op] = {"x": Input((1,)), "a": Neuron((1,)), "b": Scale(1.0)}
    edges = [Edge("x", "a"), Edge("a", "b"), Edge("b", "a")]
    with pytest.raises(GraphError, match=r"the loop has no delay: (a -> b -> a|b -> a -> b).*delay of at least 1"):
        _ = Graph(nodes, edges).order
    assert Graph(nodes, [*edges[:2], Edge("b", "a", 1)]).order == ("x", "a", "b")


def test_the_order_is_that_of_the_graph_where_there_is_a_choice() -> None:
    nodes: dict[str, Op] = {name: Input((1,)) for name in "dbac"}
    assert Graph(nodes, []).order == ("d", "b", "a", "c")


def test_edits_keep_the_order_and_take_edges_with_their_nodes() -> None:
    graph = chain(Dense(np.eye(2)), Neuron((2,)), Output())
    changed = graph.edit({"op0": None, "new": Output()}, [*graph.edges, Edge("x", "new")])
    assert list(changed.nodes) == ["x", "op1", "op2", "new"]
    assert changed.edges == (Edge("op1", "op2"), Edge("x", "new"))
    assert len(graph.nodes) == 4
    assert graph.fresh("op0") == "op0_2"
    assert changed.fresh("op0") == "op0"


@given(read_cases(), fixed_cases(delays=True))
def test_the_order_respects_every_edge_without_delay(one: Case, other: Case) -> None:
    for graph in (one.graph, other.graph):
        rank = {name: index for index, name in enumerate(graph.order)}
        assert sorted(rank) == sorted(graph.nodes)
        assert all(rank[edge.source] < rank[edge.target] for edge in graph.edges if not edge.delay)
        assert sum(len(graph.into(name)) for name in graph.nodes) == len(graph.edges)
        assert [e for n in graph.nodes for e in graph.out_of(n)] == sorted(
            graph.edges, key=lambda edge: list(graph.nodes).index(edge.source)
        )


# --- nothing can be changed -------------------------------------------------------------------------------------------


def arrays_of(value: Any) -> list[Array]:
    if isinstance(value, FixedPoint):
        return [value.mantissa]
    if isinstance(value, np.ndarray):
        return [value]
    return [array for item in getattr(value, "__dict__", {}).values() for array in arrays_of(item)]


@given(read_cases(), fixed_cases())
def test_every_array_is_read_only(one: Case, other: Case) -> None:
    found = [array for case in (one, other) for op in case.graph.nodes.values() for array in arrays_of(op)]
    assert found
    assert not any(array.flags.writeable for array in found)


def test_graphs_and_ops_are_immutable() -> None:
    weight = np.eye(2)
    graph = chain(Dense(weight), Neuron((2,), reset=To([1.0, 2.0])))
    before = to_text(graph)
    weight[0, 0] = 9.0
    assert to_text(graph) == before
    with pytest.raises(TypeError):
        graph.nodes["y"] = Output()  # type: ignore[index]
    with pytest.raises(AttributeError):
        graph.nodes["op0"].bias = np.zeros(2)  # type: ignore[misc,union-attr]
    with pytest.raises(ValueError, match="read-only"):
        graph.nodes["op1"].reset.value[0] = 3.0  # type: ignore[union-attr]
    assert to_text(graph) == before


# --- shapes -----------------------------------------------------------------------------------------------------------


@given(read_cases())
def test_shapes_are_those_of_the_values(case: Case) -> None:
    extent = shapes(case.graph)
    values = {name: case.stimulus[name][:, 0] for name in case.graph.names(Input)}
    for name in case.graph.order:
        op = case.graph.nodes[name]
        if isinstance(op, Input):
            continue
        x = sum(values[edge.source] for edge in case.graph.into(name))
        values[name] = x if isinstance(op, Neuron | Readout | Output) else reference.apply_linear(case.graph, name, x)
        assert values[name].shape[1:] == extent[name]


WEIGHT = np.zeros((4, 2, 3, 3))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (chain(Dense(np.zeros((3, 5)))), r"op0 \(Dense\): weights \[3, 5\] do not take \[2\]"),
        (chain(Dense(np.zeros(5))), r"op0 \(Dense\): weights \[5\] do not take"),
        (chain(Neuron((3,))), r"op0 \(Neuron\): has shape \[3\], gets \[2\]"),
        (chain(Readout((3,))), r"op0 \(Readout\): has shape \[3\], gets \[2\]"),
        (chain(Conv(WEIGHT), shape=(3, 8, 8)), r"op0 \(Conv\): weights .* in 1 groups do not take \[3, 8, 8\]"),
        (chain(Conv(WEIGHT, groups=3), shape=(6, 8, 8)), r"op0 \(Conv\): weights .* in 3 groups do not take"),
        (chain(Conv(WEIGHT), shape=(2, 8)), r"op0 \(Conv\): .* do not take \[2, 8\]"),
        (chain(Conv(WEIGHT), shape=(2, 2, 2)), r"op0 \(Conv\): kernel \[3, 3\] is larger than \[2, 2\]"),
        (chain(Conv(WEIGHT, stride=(1,)), shape=(2, 8, 8)), r"op0 \(Conv\): kernel, stride, padding and dilation need"),
        (chain(Conv(WEIGHT, stride=(0, 1)), shape=(2, 8, 8)), r"op0 \(Conv\): kernel, stride and dilation start at 1"),
        (chain(Conv(WEIGHT, padding=(0, -1)), shape=(2, 8, 8)), r"op0 \(Conv\): kernel, .* padding at 0"),
        (chain(Conv(WEIGHT, groups=0), shape=(2, 8, 8)), r"op0 \(Conv\): weights .* in 0 groups are no convolution"),
        (chain(Conv(np.zeros(4)), shape=(2, 8, 8)), r"op0 \(Conv\): weights \[4\] in 1 groups are no convolution"),
        (chain(Pool("sum", (2, 2), (2, 2))), r"op0 \(Pool\): pools 2 axes, gets \[2\]"),
        (chain(Pool("sum", (9, 9), (1, 1)), shape=(1, 4, 4)), r"op0 \(Pool\): kernel \[9, 9\] is larger than \[4, 4\]"),
        (chain(Pool("sum", (), (), ())), r"op0 \(Pool\): kernel, stride and dilation start at 1"),
        (chain(Norm([1.0, 2.0, 3.0], 1.0, 1.0, 0.0)), r"op0 \(Norm\): normalises \[3\] channels, gets \[2\]"),
        (chain(Flatten((3,))), r"op0 \(Flatten\): cannot show \[2\] as \[3\]"),
        (Graph({"d": Dense(np.eye(2))}, []), r"d \(Dense\): nothing arrives; connect it or remove it"),
        (Graph({"x": Input((1,)), "y": Input((1,))}, [Edge("x", "y")]), r"y \(Input\): an input has an incoming edge"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_agree_are_named(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        shapes(graph)


def test_summands_that_differ_are_shown() -> None:
    graph = Graph({"x": Input((2,)), "y": Input((3,)), "n": Neuron((2,))}, [Edge("x", "n"), Edge("y", "n")])
    with pytest.raises(GraphError, match=r"n \(Neuron\): its incoming shapes differ: x \[2\], y \[3\]"):
        shapes(graph)


def test_loops_start_at_populations_in_any_order_of_nodes() -> None:
    nodes: dict[str, Op] = {"back": Dense(np.eye(2)), "n": Neuron((2,)), "out": Output()}
    edges = [Edge("back", "n"), Edge("n", "back", 1), Edge("n", "out")]
    assert shapes(Graph(nodes, edges)) == {"back": (2,), "n": (2,), "out": (2,)}
    assert shapes(Graph(dict(reversed(nodes.items())), edges))["back"] == (2,)
    with pytest.raises(GraphError, match=r"n \(Neuron\): has shape \[2\], gets \[3\]"):
        shapes(Graph({**nodes, "back": Dense(np.zeros((3, 2)))}, edges))


def test_a_loop_without_a_population_has_no_shape() -> None:
    nodes: dict[str, Op] = {"a": Scale(0.5), "b": Scale(0.5)}
    with pytest.raises(GraphError, match="its shape depends on itself; a loop needs a population"):
        shapes(Graph(nodes, [Edge("a", "b"), Edge("b", "a", 1)]))


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "op", "carried"),
    [
        (Spike(), Flatten(), Spike()),
        (Spike(0.5), Pool("sum", (2, 2), (2, 2)), Count(4, 0.5)),
        (Spike(), Pool("mean", (2, 2), (2, 2)), Count(4, 0.25)),
        (Count(3), Pool("sum", (2, 1), (2, 1)), Count(6)),
        (Count(3), Pool("max", (2, 2), (2, 2)), Count(3)),
        (Fixed(8, 0.5), Pool("sum", (2, 2), (2, 2)), Fixed(10, 0.5)),
        (Fixed(8), Pool("mean", (2, 2), (2, 2)), Analog()),
        (Signed(), Pool("sum", (2, 2), (2, 2)), Analog()),
        (Analog(), Pool("sum", (2, 2), (2, 2)), Analog()),
        (Spike(), Scale(2.0), Analog()),
        (Spike(), Conv(np.zeros((1, 1, 1, 1))), Analog()),
        (Analog(), Neuron((1, 4, 4), amplitude=0.5), Spike(0.5)),
    ],
)
def test_what_flows_is_declared(given_: Any, op: Op, carried: Any) -> None:
    assert signals(chain(op, shape=(1, 4, 4), signal=given_))["op0"] == carried


@pytest.mark.parametrize(
    ("one", "other", "carried"),
    [
        (Spike(), Spike(), Count(2)),
        (Spike(), Count(3), Count(4)),
        (Spike(), Spike(0.5), Analog()),
        (Spike(), Analog(), Analog()),
        (Fixed(4), Fixed(4), Analog()),
    ],
)
def test_sums_of_signals(one: Any, other: Any, carried: Any) -> None:
    nodes: dict[str, Op] = {"x": Input((1,), one), "y": Input((1,), other), "o": Output()}
    assert signals(Graph(nodes, [Edge("x", "o"), Edge("y", "o")]))["o"] == carried


def test_events_cost_additions() -> None:
    assert [is_event(s) for s in (Spike(), Count(2), Signed(), Analog(), Fixed(8))] == [True, True, True, False, False]
    assert Fixed(8).most == 127


def test_a_graph_travels_to_other_processes_and_stays_what_it_is() -> None:
    graph = fixed_case(Random(3), delays=True).graph
    assert graph.order  # what was found out of it does not travel along
    found = pickle.loads(pickle.dumps(graph))
    assert to_text(found) == to_text(graph)
    with pytest.raises(TypeError):
        found.nodes["new"] = Output()  # type: ignore[index]

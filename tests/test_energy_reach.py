"""Fan-outs in closed form against every synapse, one by one, and against transposed convolutions of ones."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.energy import Ran, count
from snncompile.energy_counts import biases
from snncompile.energy_reach import before, synapses
from snncompile.errors import GraphError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Readout, Scale
from snncompile.ir.shapes import shape_of, shapes
from snncompile.ir.signals import Count, Signal, Spike
from snncompile.passes.fold_norm import _folded, _into, fold_norm, standing
from snncompile.run import linear
from snncompile.run.reference import apply_linear
from snncompile.run.trace import Trace

Array = np.ndarray[Any, np.dtype[Any]]


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv, tuple[int, ...]]:
    """Any geometry of one or two axes, with weights of zero, and the shape of what arrives."""

    def axis(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(least, most)) for _ in range(axes))

    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    size, spread, padding, dilation = axis(1, 7), axis(1, 3), axis(0, 3), axis(1, 3)
    reach = [n * s + 2 * p for n, s, p in zip(size, spread, padding, strict=True)]
    kernel = tuple(draw(st.integers(1, min(4, (r - 1) // d + 1))) for r, d in zip(reach, dilation, strict=True))
    outward, inward = groups * draw(st.integers(1, 3)), draw(st.integers(1, 2))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = numbers.integers(draw(st.sampled_from([-1, 1])), 3, (outward, inward, *kernel)).astype(float)
    return Conv(weight, None, axis(1, 3), padding, dilation, groups, spread), (inward * groups, *size)


def one_by_one(op: Conv, arriving: tuple[int, ...], out: tuple[int, ...]) -> Array:
    """Every synapse of a convolution, walked."""
    weight, found = np.asarray(op.weight), np.zeros((2, *arriving), dtype=np.int64)
    spread = op.spread or (1,) * len(arriving[1:])
    each = len(weight) // op.groups
    for o, *place in np.ndindex(*out):
        for i, *tap in np.ndindex(*weight.shape[1:]):
            at = [
                p * s - pad + k * d
                for p, s, pad, k, d in zip(place, op.stride, op.padding, tap, op.dilation, strict=True)
            ]
            inside = all(
                0 <= a < n * apart and a % apart == 0 for a, n, apart in zip(at, arriving[1:], spread, strict=True)
            )
            if inside:
                where = (o // each * weight.shape[1] + i, *(a // apart for a, apart in zip(at, spread, strict=True)))
                found[(0, *where)] += 1
                found[(1, *where)] += weight[(o, i, *tap)] != 0
    return found


def whole(found: Array, shape: tuple[int, ...]) -> Array:
    """A map with every element in it."""
    return np.broadcast_to(found, (2, *shape))


@given(convolutions())
def test_fan_outs_of_any_convolution_are_its_synapses(drawn: tuple[Conv, tuple[int, ...]]) -> None:
    op, arriving = drawn
    out = shape_of("conv", op, arriving)
    found = whole(synapses(op, arriving, out), arriving)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, one_by_one(op, arriving, out))


@given(convolutions())
def test_fan_outs_of_any_convolution_are_the_transposed_one_of_ones(drawn: tuple[Conv, tuple[int, ...]]) -> None:
    op, arriving = drawn
    out = shape_of("conv", op, arriving)
    weight, ones = np.asarray(op.weight), np.ones((1, *out), dtype=np.int64)
    geometry = arriving[1:], op.stride, op.padding, op.dilation, op.groups, op.spread
    rows = whole(synapses(op, arriving, out), arriving)
    for found, taps in zip(rows, (np.ones_like(weight), weight != 0), strict=True):
        np.testing.assert_array_equal(found, linear.conv_adjoint(ones, taps.astype(np.int64), *geometry)[0])


@given(st.data())
def test_a_map_goes_through_a_pool_as_through_its_windows(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 2))

    def axis(least: int, most: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(least, most)) for _ in range(axes))

    size, padding, stride = axis(2, 7), axis(0, 1), axis(1, 3)
    kernel = tuple(data.draw(st.integers(1, n)) for n in size)
    op, arriving = Pool(data.draw(st.sampled_from(["sum", "mean"])), kernel, stride, padding), (3, *size)
    out = shape_of("pool", op, arriving)
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # the same all along some axes, which may then be short
    behind = numbers.integers(0, 1 << 40, [data.draw(st.sampled_from([1, n])) for n in (2, *out)])
    expected = np.zeros((2, *arriving), dtype=np.int64)
    for c, *place in np.ndindex(*out):
        for tap in np.ndindex(*kernel):
            at = [p * s - pad + k for p, s, pad, k in zip(place, stride, padding, tap, strict=True)]
            if all(0 <= a < n for a, n in zip(at, size, strict=True)):
                expected[(slice(None), c, *at)] += whole(behind, out)[(slice(None), c, *place)]
    np.testing.assert_array_equal(whole(before(op, behind, arriving), arriving), expected)


def test_a_dense_layer_reaches_every_neuron_and_the_weights_that_are_not_zero() -> None:
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]])
    assert synapses(Dense(weight), (3, 1), (2,)).tolist() == [[[2], [2], [2]], [[1], [0], [2]]]
    assert whole(synapses(Dense(FixedPoint(np.array([[3, 5]]), -2)), (2,), (1,)), (2,)).tolist() == [[1, 1], [1, 1]]
    behind = np.array([[4, 6], [3, 5]])
    assert before(Scale(np.array([1.0, 0.0])), behind, (2,)).tolist() == [[4, 0], [3, 0]]
    assert before(Scale(np.array([1.0, 0.0])), behind[:1], (2,)).tolist() == [[4, 0]]
    assert before(Scale(np.array([[1.0], [0.0]])), np.array([[[7]]]), (2, 1)).tolist() == [[[7], [0]]]
    assert before(Flatten(), behind, (2, 1)).tolist() == [[[4], [6]], [[3], [5]]]
    assert before(Flatten((2, 2)), behind[:, :, None], (4,)).tolist() == [[4, 4, 6, 6], [3, 3, 5, 5]]
    assert whole(before(Flatten(), np.array([[7], [5]]), (2, 1)), (2, 1)).tolist() == [[[7], [7]], [[5], [5]]]


# --- norms and biases -------------------------------------------------------------------------------------------------


def with_norms(source: Random) -> Graph:
    """Weights, norms, skips, pools and delays in any order: norms behind norms, sums, and weights that others read."""
    numbers = np.random.default_rng(source.randint(0, 2**32 - 1))
    nodes: dict[str, Op] = {"in": Input((2, 3, 3))}
    edges: list[Edge] = []

    def few(*shape: int) -> Array:
        return numbers.integers(-1, 2, shape).astype(float)

    for index in range(source.randint(2, 7)):
        bias = few(2) if source.random() < 0.5 else None
        weight = few(2, 2, 3, 3)
        choices: list[Op] = [
            Conv(weight, bias, (1, 1), (1, 1), (1, 1), 1),
            Norm(few(2), np.ones(2), few(2), few(2), 0.0),
            Pool("mean", (3, 3), (1, 1), (1, 1)),
            Scale(few(2, 1, 1)),
            Neuron((2, 3, 3), gain=few(2, 1, 1), bias=few(2, 1, 1)),
        ]
        op = source.choice([*choices, *choices[:2]])
        sources = source.sample(sorted(nodes), min(len(nodes), source.choice([1, 1, 1, 2])))
        nodes[f"n{index}"] = op
        edges += [Edge(one, f"n{index}", source.choice([0, 0, 0, 1])) for one in sources]
    last = f"n{len(nodes) - 2}"
    nodes |= {"fc": Dense(few(2, 18), few(2)), "readout": Readout((2,), bias=few(2)), "output": Output()}
    return Graph(nodes, [*edges, Edge(last, "fc"), Edge("fc", "readout"), Edge("readout", "output")])


graphs = st.randoms(use_true_random=False).map(with_norms)


@given(graphs)
def test_the_norms_that_stand_are_those_that_cannot_be_folded(graph: Graph) -> None:
    folded, expected = graph, set()
    for name in graph.names(Norm):
        if _into(folded, name):
            folded = _folded(folded, name)
        else:
            expected.add(name)
    assert standing(graph) == expected
    # where none feeds another, these are the norms that folding makes weights of
    noted = {note.partition(" ")[0] for note in fold_norm(graph).notes}
    assert noted <= expected
    assert noted or not expected


@given(graphs)
def test_biases_are_what_arrives_when_nothing_is_sent(graph: Graph) -> None:
    extent = shapes(graph)
    sent: dict[str, Array] = {}
    for name in graph.order:
        edges, op = graph.into(name), graph.nodes[name]
        if isinstance(op, Input | Neuron | Readout | Output):
            sent[name] = np.zeros((1, *extent[name]))
        else:
            arriving = sum((sent[edge.source] for edge in edges), np.zeros((1, *extent[edges[0].source])))
            sent[name] = apply_linear(graph, name, np.asarray(arriving))
    found = biases(graph, extent)
    assert set(found) == set(graph.names(Neuron, Readout))
    for name, mask in found.items():
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        arriving = sum((sent[edge.source] for edge in graph.into(name)), np.zeros((1, *op.shape)))
        gain = np.asarray(op.gain) if isinstance(op, Neuron) else 1.0
        expected = gain * np.asarray(arriving)[0] + np.asarray(op.bias) != 0
        np.testing.assert_array_equal(np.broadcast_to(mask, op.shape), expected)


# --- events in any type, digests --------------------------------------------------------------------------------------


def network(signal: Signal) -> Graph:
    nodes: dict[str, Op] = {"in": Input((4,), signal), "fc": Dense(np.ones((3, 4))), "lif": Neuron((3,))}
    return Graph(nodes, [Edge("in", "fc"), Edge("fc", "lif")])


SILENT = Trace({"lif": np.zeros((2, 3, 3), dtype=bool)})


def test_events_count_the_same_in_any_type_and_have_one_digest() -> None:
    values = np.random.default_rng(0).random((2, 3, 4)) < 0.5
    found = [count(network(Spike()), {"in": values.astype(kind)}, SILENT) for kind in (bool, "u1", "f4", "f8")]
    assert len({counts.stimulus for counts in found}) == 1
    assert {counts.total("ac") for counts in found} == {3 * int(values.sum())}


@pytest.mark.parametrize("signal", [Spike(0.5), Count(3, 0.35)])
def test_integers_are_no_events_of_another_worth(signal: Signal) -> None:
    values = np.zeros((2, 3, 4), dtype=np.uint8)
    values[0] = 1  # half of them
    with pytest.raises(GraphError, match="carries 1"):
        count(network(signal), {"in": values}, SILENT)


def test_a_digest_sees_every_weight_whatever_is_narrow_enough_to_hold_them() -> None:
    numbers = np.random.default_rng(0).integers(-128, 128, (80, 80))
    found = {}
    for key, value in {"same": 0, "other": 1, "wide": 1000, "wider": 2**40}.items():
        weight = numbers.copy()
        weight[0, 0] = value
        op = Dense(FixedPoint(weight))
        nodes: dict[str, Op] = {"in": Input((80,)), "fc": op, "lif": Neuron((80,)), "output": Output()}
        graph = Graph(nodes, [Edge("in", "fc"), Edge("fc", "lif"), Edge("lif", "output")])
        found[key] = Ran(graph).digest
        assert Ran(graph).digest == found[key]
    assert len(set(found.values())) == 4

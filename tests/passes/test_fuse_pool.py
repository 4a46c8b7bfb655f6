"""Mean pools as sums of spikes, their factor in the weights; pools inside convolutions where that is smaller."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Output, Pool, Scale
from snncompile.ir.text import from_text, same, to_text
from snncompile.passes import compose
from snncompile.passes.fold_norm import fold_norm
from snncompile.passes.fuse_pool import fuse_pool
from snncompile.run import reference
from snncompile.run.trace import first_divergence
from tests.graphs import Case, read_cases

BEFORE = """\
x    = Input(shape=[1, 4, 4])
n    = Neuron(shape=[1, 4, 4]) <- x
pool = Pool(kind='mean', kernel=[2, 2], stride=[2, 2]) <- n
flat = Flatten() <- pool
fc   = Dense(weight=[[4.0, 8.0, -4.0, 1.0]], bias=[3.0]) <- flat
m    = Neuron(shape=[1]) <- fc
out  = Output() <- m
"""
AFTER = """\
x    = Input(shape=[1, 4, 4])
n    = Neuron(shape=[1, 4, 4]) <- x
pool = Pool(kind='sum', kernel=[2, 2], stride=[2, 2]) <- n
flat = Flatten() <- pool
fc   = Dense(weight=[[1.0, 2.0, -1.0, 0.25]], bias=[3.0]) <- flat
m    = Neuron(shape=[1]) <- fc
out  = Output() <- m
"""


def test_before_and_after() -> None:
    assert to_text(fuse_pool(from_text(BEFORE)).graph) == AFTER


@given(read_cases())
def test_potentials_stay_on_random_networks(case: Case) -> None:
    fused = fuse_pool(case.graph).graph
    assert not any(isinstance(op, Pool) and op.kind == "mean" for op in fused.nodes.values())
    before, after = (reference.run(graph, case.stimulus) for graph in (case.graph, fused))
    assert first_divergence(before, after, case.graph.order) is None
    assert same(fuse_pool(fused).graph, fused)
    folded = fold_norm(fused).graph
    assert first_divergence(before, reference.run(folded, case.stimulus), case.graph.order) is None


def conv_then_pool(*, size: int = 8, bias: bool = False, pool: Pool | None = None, padding: int = 1) -> Graph:
    weight = np.arange(9.0).reshape(1, 1, 3, 3)
    nodes = {"x": Input((1, size, size)), "conv": Conv(weight, [1.0] if bias else None, padding=(padding, padding))}
    nodes |= {"pool": pool or Pool("mean", (2, 2), (2, 2)), "flat": Flatten(), "out": Output()}
    edges = [Edge("x", "conv"), Edge("conv", "pool"), Edge("pool", "flat"), Edge("flat", "fc")]
    outputs = (size + 2 * padding - 2) // 2
    nodes |= {"fc": Dense(np.ones((2, outputs**2))), "n": Neuron((2,))}
    return Graph(nodes, [*edges, Edge("fc", "n"), Edge("n", "out")])


def test_a_pool_goes_into_the_convolution_before_it_where_that_is_smaller() -> None:
    """Nine taps at 64 places or sixteen at 16."""
    passed = fuse_pool(conv_then_pool())
    assert "pool" not in passed.graph.nodes
    conv = passed.graph.nodes["conv"]
    assert isinstance(conv, Conv)
    assert conv.weight.shape == (1, 1, 4, 4)
    assert conv.stride == (2, 2)
    assert passed.notes == ("pool (Pool) went into the convolution before it",)
    x = {"x": np.random.default_rng(0).integers(-8, 9, (2, 2, 1, 8, 8)) / 8}
    graph = conv_then_pool()
    assert first_divergence(reference.run(graph, x), reference.run(passed.graph, x), graph.order) is None


@pytest.mark.parametrize(
    "graph",
    [
        conv_then_pool(bias=True),
        conv_then_pool(pool=Pool("max", (2, 2), (2, 2))),
        conv_then_pool(pool=Pool("sum", (2, 2), (2, 2), (0, 0))).edit(
            {"tap": Output()}, [*conv_then_pool().edges, Edge("conv", "tap")]
        ),
    ],
)
def test_it_leaves_what_it_cannot_put_together(graph: Graph) -> None:
    passed = fuse_pool(graph)
    assert isinstance(passed.graph.nodes["pool"], Pool)
    assert not passed.notes


def test_borders_that_do_not_compose_are_left_without_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they would be a matrix, however large; that must neither be built nor be an error."""
    monkeypatch.setattr(compose, "MATRIX_NUMBERS", 0)
    graph = Graph(
        {
            "x": Input((1, 7, 7)),
            "conv": Conv(np.ones((1, 1, 3, 3)), padding=(1, 1)),
            "pool": Pool("mean", (3, 3), (3, 3), (1, 1)),
            "n": Neuron((1, 3, 3)),
            "out": Output(),
        },
        [Edge("x", "conv"), Edge("conv", "pool"), Edge("pool", "n"), Edge("n", "out")],
    )
    assert isinstance(fuse_pool(graph).graph.nodes["pool"], Pool)


def test_a_factor_without_weights_behind_it_stays() -> None:
    graph = from_text(BEFORE).edit({"fc": None, "flat": None, "m": Neuron((1, 2, 2))})
    graph = graph.edit(None, [*graph.edges, Edge("pool", "m")])
    fused = fuse_pool(graph).graph
    scale = fused.nodes["pool_mean"]
    assert isinstance(scale, Scale)
    assert scale.factor == 0.25


def test_a_chain_of_factors_is_absorbed_whole() -> None:
    """The second is folded first and so clears the way for the first."""
    nodes = {"x": Input((2,)), "n": Neuron((2,)), "a": Scale(2.0), "b": Scale([4.0, 8.0])}
    nodes |= {"fc": Dense([[1.0, 1.0]]), "m": Neuron((1,)), "out": Output()}
    chain = ["x", "n", "a", "b", "fc", "m", "out"]
    graph = Graph(nodes, [Edge(chain[i], chain[i + 1]) for i in range(len(chain) - 1)])
    fused = fuse_pool(graph).graph
    assert list(fused.nodes) == ["x", "n", "fc", "m", "out"]
    assert fused.nodes["fc"].weight.tolist() == [[8.0, 16.0]]  # type: ignore[union-attr]


def test_a_factor_between_delays_leaves_them_both() -> None:
    nodes = {"x": Input((2,)), "n": Neuron((2,)), "a": Scale(2.0), "fc": Dense([[1.0, 1.0]]), "m": Neuron((1,))}
    edges = [Edge("x", "n"), Edge("n", "a", 2), Edge("a", "fc", 1), Edge("fc", "m"), Edge("m", "out")]
    graph = Graph(nodes | {"out": Output()}, edges)
    fused = fuse_pool(graph).graph
    assert [edge.delay for edge in fused.into("fc")] == [3]
    x = {"x": np.random.default_rng(0).integers(0, 3, (2, 8, 2)) * 1.0}
    assert first_divergence(reference.run(graph, x), reference.run(fused, x), graph.order) is None

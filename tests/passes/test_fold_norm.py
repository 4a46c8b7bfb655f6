"""Batch normalisation folded into weights, against torch's own modules and on random networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Norm, Output, Pool, Scale
from snncompile.ir.shapes import shapes
from snncompile.ir.text import same, to_text
from snncompile.passes.fold_norm import fold_norm
from snncompile.run import reference
from snncompile.run.reference import apply_linear
from snncompile.run.trace import first_divergence
from tests.graphs import Case, read_cases

BEFORE = """\
x    = Input(shape=[2])
fc   = Dense(weight=[[1.0, 2.0], [3.0, 4.0]], bias=[1.0, -1.0]) <- x
norm = Norm(mean=[1.0, 2.0], variance=[4.0, 0.25], gain=[1.0, 2.0], shift=[0.5, 0.25], epsilon=0.0) <- fc
n    = Neuron(shape=[2]) <- norm@1
out  = Output() <- n
"""
AFTER = """\
x   = Input(shape=[2])
fc  = Dense(weight=[[0.5, 1.0], [12.0, 16.0]], bias=[0.5, -11.75]) <- x
n   = Neuron(shape=[2]) <- fc@1
out = Output() <- n
"""


def small(*, delay: int = 0) -> Graph:
    norm = Norm([1.0, 2.0], [4.0, 0.25], [1.0, 2.0], [0.5, 0.25], 0.0)
    nodes = {"x": Input((2,)), "fc": Dense([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0]), "norm": norm}
    nodes |= {"n": Neuron((2,)), "out": Output()}
    edges = [Edge("x", "fc"), Edge("fc", "norm", delay), Edge("norm", "n", 1), Edge("n", "out")]
    return Graph(nodes, edges)


def test_before_and_after() -> None:
    """By hand: g/a = 1/2 and 4; b' = (1 - 1)/2 + 0.5 and (-1 - 2) 4 + 0.25."""
    assert to_text(small()) == BEFORE
    assert to_text(fold_norm(small()).graph) == AFTER


@given(read_cases())
def test_potentials_stay_on_random_networks(case: Case) -> None:
    folded = fold_norm(case.graph).graph
    before, after = (reference.run(graph, case.stimulus) for graph in (case.graph, folded))
    assert first_divergence(before, after, case.graph.order) is None
    assert same(fold_norm(folded).graph, folded)


MODULES = [
    (lambda **k: nn.Linear(6, 4, **k), nn.BatchNorm1d, (6,)),
    (lambda **k: nn.Conv1d(6, 4, 3, stride=2, padding=1, **k), nn.BatchNorm1d, (6, 9)),
    (
        lambda **k: nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), **k),
        nn.BatchNorm2d,
        (6, 7, 8),
    ),
    (lambda **k: nn.Conv2d(6, 4, 3, groups=2, **k), nn.BatchNorm2d, (6, 5, 5)),
    (lambda **k: nn.Conv2d(6, 12, 3, groups=6, **k), nn.BatchNorm2d, (6, 5, 5)),
]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("index", range(len(MODULES)))
def test_the_folded_weights_do_what_torch_does(index: int, bias: bool, affine: bool) -> None:
    make, make_norm, shape = MODULES[index]
    torch.manual_seed(index)
    weights: Any = make(bias=bias).double()
    out = weights.weight.shape[0]
    norm: Any = make_norm(out, eps=1e-3, affine=affine).double()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3.0)
        if affine:
            norm.weight.normal_()
            norm.bias.normal_()
    torch_net = nn.Sequential(weights, norm).eval()
    x = torch.randn(5, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = torch_net(x).numpy()
    array = {name: value.detach().numpy() for name, value in torch_net.state_dict().items()}
    own_bias = array.get("0.bias")
    if isinstance(weights, nn.Linear):
        op: Dense | Conv = Dense(array["0.weight"], own_bias)
    else:
        op = Conv(array["0.weight"], own_bias, weights.stride, weights.padding, weights.dilation, weights.groups)
    gain, shift = array.get("1.weight", np.ones(out)), array.get("1.bias", np.zeros(out))
    normed = Norm(array["1.running_mean"], array["1.running_var"], gain, shift, 1e-3)
    edges = [Edge("x", "w"), Edge("w", "norm"), Edge("norm", "out")]
    graph = Graph({"x": Input(shape), "w": op, "norm": normed, "out": Output()}, edges)
    np.testing.assert_allclose(apply_linear(graph, "norm", apply_linear(graph, "w", x.numpy())), expected, atol=1e-12)
    folded = fold_norm(graph)
    assert not folded.notes
    assert list(folded.graph.nodes) == ["x", "w", "out"]
    np.testing.assert_allclose(apply_linear(folded.graph, "w", x.numpy()), expected, atol=1e-12)
    assert shapes(folded.graph)["out"] == expected.shape[1:]


def test_a_sum_of_two_weights_is_folded_with_one_shift() -> None:
    graph = small()
    graph = graph.edit({"fc2": Dense([[1.0, 0.0], [0.0, 1.0]])}, [*graph.edges, Edge("x", "fc2"), Edge("fc2", "norm")])
    x = {"x": np.random.default_rng(0).integers(-8, 9, (2, 5, 2)) / 8}
    folded = fold_norm(graph).graph
    assert "norm" not in folded.nodes
    assert first_divergence(reference.run(graph, x), reference.run(folded, x), graph.order) is None


def same_potentials(graph: Graph, folded: Graph) -> bool:
    x = {"x": np.random.default_rng(0).integers(-8, 9, (3, 5, *graph.nodes["x"].shape)) / 8}
    before, after = reference.run(graph, x), reference.run(folded, x)
    close = all(np.allclose(after.potentials[name], before.potentials[name], atol=1e-12) for name in before.potentials)
    return close and first_divergence(before, after, graph.order) is None


@pytest.mark.parametrize(
    ("edges", "factors"),
    [
        ([Edge("fc", "n2"), Edge("x", "fc2"), Edge("fc2", "norm")], ["norm_of_fc"]),  # another reader of the weights
        ([Edge("x", "norm")], ["norm_of_x"]),
        ([Edge("x", "norm", 2)], ["norm_of_x"]),
        ([Edge("fc", "norm")], []),  # twice: nothing is its own, the norm becomes weights
    ],
)
def test_what_has_no_weights_of_its_own_gets_a_factor(edges: list[Edge], factors: list[str]) -> None:
    graph = small()
    more = {"n2": Neuron((2,)), "fc2": Dense([[1.0, 0.5], [0.25, 1.0]])}
    graph = graph.edit(
        {name: op for name, op in more.items() if name in {e.source for e in edges} | {e.target for e in edges}}
    )
    graph = graph.edit({}, [*graph.edges, *edges])
    folded = fold_norm(graph).graph
    assert not folded.names(Norm)
    assert [name for name in folded.nodes if name not in graph.nodes] == factors
    assert all(isinstance(folded.nodes[name], Scale) for name in factors)
    assert same_potentials(graph, folded)


def test_behind_a_delay_it_becomes_weights() -> None:
    """Before the first step nothing arrives, and the norm of nothing is its shift; folded it would be nothing."""
    graph = small(delay=1)
    passed = fold_norm(graph)
    assert passed.notes == ("norm (Norm) becomes one-to-one weights: nothing before it has weights of its own",)
    assert np.array_equal(passed.graph.nodes["norm"].weight, [[0.5, 0.0], [0.0, 4.0]])
    assert same_potentials(graph, passed.graph)


def test_behind_a_pool_it_becomes_a_kernel_of_one_place() -> None:
    norm = Norm([1.0, 2.0], [4.0, 0.25], [1.0, 2.0], [0.5, 0.25], 0.0)
    nodes = {
        "x": Input((2, 4, 4)),
        "pool": Pool("mean", (2, 2), (2, 2)),
        "norm": norm,
        "n": Neuron((2, 2, 2)),
        "out": Output(),
    }
    graph = Graph(nodes, [Edge("x", "pool"), Edge("pool", "norm"), Edge("norm", "n"), Edge("n", "out")])
    folded = fold_norm(graph).graph
    assert folded.nodes["norm"].weight.shape == (2, 1, 1, 1)
    assert same_potentials(graph, folded)


def test_it_declines_a_matrix_that_is_too_large() -> None:
    ones = np.ones(5000)
    nodes = {"x": Input((5000,)), "norm": Norm(ones, ones, ones, ones), "n": Neuron((5000,)), "out": Output()}
    graph = Graph(nodes, [Edge("x", "norm"), Edge("norm", "n"), Edge("n", "out")])
    passed = fold_norm(graph)
    assert same(passed.graph, graph)
    assert "5000 features are a matrix too large" in passed.notes[0]

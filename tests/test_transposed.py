"""Transposed convolutions: read from torch as what they are, convolutions of a signal with zeros between."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snncompile.compile import compile_graph
from snncompile.errors import GraphError, UnsupportedModule
from snncompile.fixed import FixedPoint
from snncompile.frontends.torch import _transposed
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Output
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Spike
from snncompile.passes.compose import adjoint, compose, matrix
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.reference import apply_linear
from snncompile.target import Target
from tests.on_lava import Device, prove


@st.composite
def modules(draw: st.DrawFn) -> nn.ConvTranspose2d:
    sizes = [[draw(st.integers(1, most)) for _ in range(2)] for most in (4, 3)]
    kernel, stride = sizes
    padding = [draw(st.integers(0, k - 1)) for k in kernel]
    more = [draw(st.integers(0, s - 1)) for s in stride]
    torch.manual_seed(draw(st.integers(0, 99)))
    return nn.ConvTranspose2d(2, 3, kernel, stride, padding, more, bias=draw(st.booleans())).double()


@given(modules(), st.integers(2, 5), st.integers(2, 5))
def test_it_computes_what_torch_computes(module: nn.ConvTranspose2d, height: int, width: int) -> None:
    x = torch.rand(2, 2, height, width, dtype=torch.float64)
    try:
        expected = module(x).detach().numpy()
    except RuntimeError:  # torch: nothing is left of the map
        return
    op = _transposed("up", module)
    assert shape_of("up", op, (2, height, width)) == expected.shape[1:]
    found = apply_linear(Graph({"up": op}, ()), "up", x.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_by_hand() -> None:
    """[1, 2] by stride 2 with a kernel of 1, 10, 100, padding 1, output padding 1."""
    module = nn.ConvTranspose2d(1, 1, (1, 3), (1, 2), (0, 1), (0, 1), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3))
    op = _transposed("up", module)
    assert (op.spread, op.padding) == ((1, 2), (0, 1))
    y = apply_linear(Graph({"up": op}, ()), "up", np.array([1.0, 2.0]).reshape(1, 1, 1, 2))
    assert y.ravel().tolist() == [10, 102, 20, 200]


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}])
def test_groups_and_dilation_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UnsupportedModule, match="in groups or with dilation"):
        _transposed("up", nn.ConvTranspose2d(2, 2, 3, **options))


def spread(*, by: int = 2) -> Conv:
    weight = np.random.default_rng(1).integers(-8, 9, (3, 2, 3, 3)) / 8
    return Conv(weight, None, (1, 1), (1, 1), spread=(by, by))


def test_matrix_adjoint_and_composition_agree() -> None:
    op, shape = spread(), (2, 3, 3)
    numbers = np.random.default_rng(2)
    x, y = numbers.integers(-8, 9, (4, *shape)), numbers.integers(-8, 9, (4, 3, 6, 6))
    whole = matrix(op, shape)
    applied = apply_linear(Graph({"op": op}, ()), "op", x.astype(float)).reshape(4, -1)
    assert np.array_equal(applied, x.reshape(4, -1) @ whole.T)
    assert np.array_equal(adjoint(op, y.astype(float), shape).reshape(4, -1), y.reshape(4, -1) @ whole)
    second = Conv(numbers.integers(-8, 9, (2, 3, 3, 3)) / 8, None, (2, 2), (1, 1))
    composed = compose(op, second, shape)
    assert isinstance(composed, Dense)
    assert np.array_equal(composed.weight, matrix(second, (3, 6, 6)) @ whole)


def test_a_spread_needs_an_entry_an_axis() -> None:
    with pytest.raises(GraphError, match="needs one entry an axis"):
        shape_of("op", Conv(np.ones((1, 1, 3, 3)), spread=(2,)), (1, 4, 4))


def growing() -> tuple[Graph, dict[str, np.ndarray]]:
    """Spikes 3 x 3, neurons 6 x 6."""
    nodes = {"x": Input((2, 3, 3), Spike()), "up": spread(), "n": Neuron((3, 6, 6), beta=0.5), "out": Output()}
    x = np.random.default_rng(3).integers(0, 2, (2, 5, 2, 3, 3))
    return Graph(nodes, [Edge("x", "up"), Edge("up", "n"), Edge("n", "out")]), {"x": x.astype(np.float64)}


def test_in_integers() -> None:
    graph, x = growing()
    done = compile_graph(graph, Target.load("loihi"), x)
    conv = done.levels["placed"].nodes["up"]
    assert isinstance(conv, Conv)
    assert conv.spread == (2, 2)
    assert isinstance(conv.weight, FixedPoint)
    whole = {"x": x["x"].astype(np.int64)}
    slow = integer.run(done.levels["fixed"], whole, done.target)
    fast = Simulator(done.levels["placed"], done.target).run(whole)
    assert slow.spikes["n"].any()
    assert np.array_equal(slow.potentials["n"], fast.potentials["n"])


@pytest.mark.lava
def test_on_lava() -> None:
    graph, x = growing()
    done = compile_graph(graph, Target.load("loihi"), x)
    (proven,) = prove([Device.of(done, x)], done.target)
    assert (proven.different, proven.spikes > 0) == (0, True)

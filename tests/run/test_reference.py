"""The meaning in reals against torch in float64, and against sequences worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import GraphError
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Readout, Scale, To
from snncompile.run import linear, reference
from snncompile.run.trace import first_divergence
from tests.graphs import Array, Case, fits, read_cases


def applied(op: Op, x: Array) -> Array:
    return reference.apply_linear(Graph({"op": op}, ()), "op", x)


def close(ours: Array, theirs: torch.Tensor) -> None:
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


CONVS = st.tuples(
    st.integers(1, 2),  # axes
    st.sampled_from([(4, 6, 1), (4, 6, 2), (3, 3, 3), (2, 1, 1)]),  # in, out, groups
    *[st.tuples(st.integers(1, 3), st.integers(1, 3)) for _ in range(3)],  # kernel, stride, dilation
    st.tuples(st.integers(0, 2), st.integers(0, 2)),  # padding
    st.booleans(),
)


@given(CONVS, st.integers(0, 2**32 - 1))
def test_convolutions_are_torch_s(drawn: Any, seed: int) -> None:
    axes, (inward, out, groups), *sizes, biased = drawn
    kernel, stride, dilation, padding = (size[:axes] for size in sizes)
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, inward, *(7, 8)[:axes]))
    weight = random.normal(size=(out, inward // groups, *kernel))
    bias = random.normal(size=out) if biased else None
    op = Conv(weight, bias, stride, padding, dilation, groups)
    assert fits(op, x.shape[1:])
    call: Any = F.conv1d if axes == 1 else F.conv2d
    told = None if bias is None else torch.from_numpy(bias)
    theirs = call(torch.from_numpy(x), torch.from_numpy(weight), told, stride, padding, dilation, groups)
    close(applied(op, x), theirs)


@given(CONVS, st.integers(0, 2**32 - 1))
def test_the_adjoint_is_the_adjoint(drawn: Any, seed: int) -> None:
    """``<A x, y> = <x, A' y>`` for whole numbers, exactly."""
    axes, (inward, out, groups), *sizes, _ = drawn
    kernel, stride, dilation, padding = (size[:axes] for size in sizes)
    random = np.random.default_rng(seed)
    x = random.integers(-9, 10, (3, inward, *(7, 8)[:axes]))
    weight = random.integers(-9, 10, (out, inward // groups, *kernel))
    y = linear.conv(x, weight, stride, padding, dilation, groups)
    z = random.integers(-9, 10, y.shape)
    back = linear.conv_adjoint(z, weight, x.shape[2:], stride, padding, dilation, groups)
    assert back.shape == x.shape
    assert (y * z).sum() == (x * back).sum()


def test_convolutions_are_cut_into_parts_that_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, weight = random.integers(-9, 10, (7, 4, 6, 6)), random.integers(-9, 10, (2, 2, 3, 3))
    whole = linear.conv(x, weight, (1, 1), (1, 1), (1, 1), 2)
    monkeypatch.setattr(linear, "PATCH_NUMBERS", 1)
    np.testing.assert_array_equal(linear.conv(x, weight, (1, 1), (1, 1), (1, 1), 2), whole)


@pytest.mark.parametrize("padding", [(0, 0), (1, 0)])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
def test_pools_are_torch_s(stride: tuple[int, int], padding: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    t = torch.from_numpy(x)
    close(applied(Pool("mean", (2, 3), stride, padding), x), F.avg_pool2d(t, (2, 3), stride, padding))
    close(applied(Pool("sum", (2, 3), stride, padding), x), F.avg_pool2d(t, (2, 3), stride, padding) * 6)
    spikes = (x > 0) * 1.0  # padding counts as zeros, which for spikes is what torch's minus infinity comes to
    close(
        applied(Pool("max", (2, 3), stride, padding), spikes),
        F.max_pool2d(torch.from_numpy(spikes), (2, 3), stride, padding),
    )


def test_norm_dense_flatten_and_scale_are_torch_s() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(5, 3, 4, 2))
    mean, variance, gain, shift = random.normal(size=3), random.uniform(0.1, 2, 3), *random.normal(size=(2, 3))
    told = [torch.from_numpy(value) for value in (mean, variance, gain, shift)]
    close(
        applied(Norm(mean, variance, gain, shift, 1e-3), x), F.batch_norm(torch.from_numpy(x), *told, False, 0.0, 1e-3)
    )
    weight, bias = random.normal(size=(6, 24)), random.normal(size=6)
    flat = torch.from_numpy(x).flatten(1)
    close(applied(Flatten(), x), flat)
    close(applied(Dense(weight, bias), x), F.linear(flat, torch.from_numpy(weight), torch.from_numpy(bias)))
    factor = random.normal(size=(3, 1, 1))
    close(applied(Scale(factor), x), torch.from_numpy(x * factor))
    close(applied(Flatten((6, 4)), x), flat.reshape(5, 6, 4))


# --- neurons by hand --------------------------------------------------------------------------------------------------


def run(op: Neuron | Readout, given_: list[float]) -> tuple[list[int], list[float]]:
    graph = Graph({"x": Input((1,)), "n": op, "out": Output()}, [Edge("x", "n"), Edge("n", "out")])
    trace = reference.run(graph, {"x": np.array(given_).reshape(1, -1, 1)})
    spikes = trace.spikes["n"].ravel().tolist() if "n" in trace.spikes else []
    return [int(s) for s in spikes], trace.potentials["n"].ravel().tolist()


@pytest.mark.parametrize(
    ("op", "given_", "spikes", "potentials"),
    [
        (Neuron((1,)), [0.5, 0.5, 0.5, 0.0], [0, 0, 1, 0], [0.5, 1.0, 1.5, 0.0]),
        (Neuron((1,), fires=">="), [0.5, 0.5, 0.5, 0.0], [0, 1, 0, 0], [0.5, 1.0, 0.5, 0.5]),
        (Neuron((1,), beta=0.5), [1.0, 0.0, 0.0], [0, 0, 0], [1.0, 0.5, 0.25]),
        (Neuron((1,), alpha=0.5, threshold=9.0), [1.0, 0.0, 0.0], [0, 0, 0], [1.0, 1.5, 1.75]),
        (Neuron((1,), reset=By(0.5)), [2.0, 0.0, 0.0], [1, 1, 0], [2.0, 1.5, 1.0]),
        (Neuron((1,), reset=To(-1.0)), [2.0, 0.0, 0.5], [1, 0, 0], [2.0, -1.0, -0.5]),
        (Neuron((1,), initial=0.75), [0.0, 0.5], [0, 1], [0.75, 1.25]),
        (Neuron((1,), gain=2.0, bias=0.25), [0.5, 0.0], [1, 0], [1.25, 0.25]),
        (Neuron((1,), rest=0.5, beta=0.5), [0.0, 1.0, 0.0], [0, 1, 0], [0.25, 1.375, 0.25]),
        (Readout((1,), "sum", bias=0.5), [1.0, 0.0, -2.0], [], [1.5, 2.0, 0.5]),
        (Readout((1,), "last", decay=0.0), [1.0, 3.0], [], [1.0, 3.0]),
        (Readout((1,), "weighted", decay=0.5), [1.0, 1.0], [], [1.0, 1.5]),
    ],
)
def test_neurons_by_hand(op: Neuron | Readout, given_: list[float], spikes: list[int], potentials: list[float]) -> None:
    assert run(op, given_) == (spikes, potentials)


def test_what_readouts_answer() -> None:
    total = np.array([1.5])
    assert Readout((1,), "mean").final(total, 3) == 0.5
    assert Readout((1,), "sum").final(total, 3) == 1.5
    assert Readout((1,), "weighted", decay=0.5).final(total, 2) == 1.0
    assert Readout((1,), "last", decay=0.0).final(total, 2) == 1.5


def test_spikes_carry_their_amplitude() -> None:
    nodes: dict[str, Op] = {"x": Input((1,)), "a": Neuron((1,), amplitude=0.25), "r": Readout((1,), "sum")}
    graph = Graph(nodes | {"out": Output()}, [Edge("x", "a"), Edge("a", "r"), Edge("r", "out")])
    trace = reference.run(graph, {"x": np.array([2.0, 0.0, 2.0]).reshape(1, 3, 1)})
    assert trace.potentials["r"].ravel().tolist() == [0.25, 0.25, 0.5]
    assert trace.spikes["a"].dtype == bool


def test_delays_deliver_the_value_of_earlier_steps_and_zero_before() -> None:
    nodes: dict[str, Op] = {"x": Input((1,)), "r": Readout((1,), "last", decay=0.0), "out": Output()}
    graph = Graph(nodes, [Edge("x", "r", 2), Edge("x", "r"), Edge("r", "out")])
    trace = reference.run(graph, {"x": np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)})
    assert trace.potentials["r"].ravel().tolist() == [1.0, 2.0, 4.0, 6.0]


def test_a_small_network_is_torch_s() -> None:
    """Convolution, leak, hard reset and a pool over four steps, written once more in torch."""
    random = np.random.default_rng(4)
    weight, x = random.normal(size=(3, 2, 3, 3)), random.normal(size=(2, 4, 2, 6, 6))
    nodes: dict[str, Op] = {"x": Input((2, 6, 6)), "c": Conv(weight, padding=(1, 1)), "n": Neuron((3, 6, 6), beta=0.25)}
    nodes |= {"p": Pool("mean", (2, 2), (2, 2)), "r": Readout((3, 3, 3), "sum"), "out": Output()}
    chain = list(nodes)
    graph = Graph(nodes, [Edge(chain[i], chain[i + 1]) for i in range(len(chain) - 1)])
    trace = reference.run(graph, {"x": x})
    v, total = torch.zeros(2, 3, 6, 6, dtype=torch.float64), torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    for step in range(4):
        v = 0.75 * v + F.conv2d(torch.from_numpy(x[:, step]), torch.from_numpy(weight), padding=1)
        s = (v > 1.0).double()
        np.testing.assert_allclose(trace.potentials["n"][:, step], v.numpy(), atol=1e-12)
        np.testing.assert_array_equal(trace.spikes["n"][:, step], s.numpy())
        v = v * (1 - s)
        total = total + F.avg_pool2d(s, 2)
        np.testing.assert_allclose(trace.potentials["r"][:, step], total.numpy(), atol=1e-12)


# --- time -------------------------------------------------------------------------------------------------------------


@given(read_cases())
def test_samples_side_by_side_or_in_a_row(case: Case) -> None:
    one, other = (reference.run(case.graph, case.stimulus, stream=stream) for stream in (False, True))
    assert first_divergence(one, other, case.graph.order) is None


@given(read_cases())
def test_forcing_its_own_spikes_changes_nothing(case: Case) -> None:
    free = reference.run(case.graph, case.stimulus)
    taught = reference.run(case.graph, case.stimulus, forced=free.spikes)
    assert first_divergence(free, taught, case.graph.order) is None


def test_forced_spikes_stand_in_for_what_is_sent_and_for_the_reset() -> None:
    nodes: dict[str, Op] = {"x": Input((1,)), "a": Neuron((1,)), "r": Readout((1,), "sum"), "out": Output()}
    graph = Graph(nodes, [Edge("x", "a"), Edge("a", "r"), Edge("r", "out")])
    x = {"x": np.full((1, 3, 1), 0.75)}
    trace = reference.run(graph, x, forced={"a": np.array([[[1], [0], [0]]])})
    assert trace.potentials["a"].ravel().tolist() == [0.75, 0.75, 1.5]  # the reset of step 0 was forced
    assert trace.spikes["a"].ravel().tolist() == [False, False, True]  # the trace holds what it computed itself
    assert trace.potentials["r"].ravel().tolist() == [1.0, 1.0, 1.0]


def test_an_input_of_another_shape_is_named() -> None:
    graph = Graph({"x": Input((2,)), "n": Neuron((2,)), "out": Output()}, [Edge("x", "n"), Edge("n", "out")])
    with pytest.raises(GraphError, match=r"x: stimulus of shape \[1, 2, 3\], needs \[samples, steps, 2\]"):
        reference.run(graph, {"x": np.zeros((1, 2, 3))})

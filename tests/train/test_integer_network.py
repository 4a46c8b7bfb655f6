"""The torch network of a ``fixed`` graph: the integer interpreter bit for bit, and gradients that lead somewhere."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Readout, Scale, To
from snncompile.ir.signals import Fixed, Spike
from snncompile.run import integer
from snncompile.target import Target
from snncompile.train.integer_network import IntegerNetwork
from tests.graphs import Array, Case, fixed_cases

LOIHI = Target.load("loihi")
M = 1 << 23


def played(graph: Graph, stimulus: dict[str, Array], target: Target = LOIHI) -> IntegerNetwork:
    """Runs both; what torch computed is what the interpreter did, in spikes and potentials."""
    steps = next(iter(stimulus.values())).shape[1]
    trace = integer.run(graph, stimulus, target)
    network = IntegerNetwork(graph, target, steps)
    with torch.no_grad():
        found = network.play({name: torch.as_tensor(values) for name, values in stimulus.items()})
    for name, spikes in trace.spikes.items():
        np.testing.assert_array_equal(found.spikes[name].transpose(0, 1).numpy(), spikes, err_msg=name)
    for name, potentials in trace.potentials.items():
        np.testing.assert_array_equal(found.potentials[name].transpose(0, 1).numpy(), potentials, err_msg=name)
    return network


@given(fixed_cases(delays=True))
def test_random_networks_are_the_interpreter_s_bit_for_bit(case: Case) -> None:
    """Skips, delays, loops, currents, sums that wrap, potentials that saturate, decays of every kind."""
    network = played(case.graph, case.stimulus)
    back = integer.run(network.graph(), case.stimulus, LOIHI)
    first = integer.run(case.graph, case.stimulus, LOIHI)
    for name, potentials in first.potentials.items():
        np.testing.assert_array_equal(back.potentials[name], potentials)


def neuron(**changes: Any) -> Neuron:
    op = Neuron(
        (1,),
        alpha=FixedPoint.number(4096, -12),
        beta=FixedPoint.number(0, -12),
        threshold=FixedPoint.number(131071),
        bias=FixedPoint.number(0),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )
    return replace(op, **changes)


def single(op: Neuron | Readout, weight: int = 2, bits: int = 20) -> Graph:
    nodes: dict[str, Op] = {"x": Input((1,), Fixed(bits)), "w": Scale(FixedPoint.number(weight)), "n": op}
    return Graph(nodes | {"out": Output()}, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")])


def potentials(op: Neuron | Readout, given_: list[int]) -> list[int]:
    graph, x = single(op), np.array(given_).reshape(1, -1, 1)
    played(graph, {"x": x})
    network = IntegerNetwork(graph, LOIHI, x.shape[1])
    found: list[int] = network.play({"x": torch.as_tensor(x)}).potentials["n"].ravel().to(torch.int64).tolist()
    return found


def test_negative_potentials_lose_their_fraction_toward_zero() -> None:
    half = neuron(beta=FixedPoint.number(2048, -12))
    assert potentials(half, [-1] + [0] * 8) == [-128, -64, -32, -16, -8, -4, -2, -1, 0]
    odd = neuron(beta=FixedPoint.number(1365, -12))  # 2731 / 4096 is no power of two
    assert potentials(odd, [-1, 0, 0]) == [-128, -(128 * 2731 // 4096), -(85 * 2731 // 4096)]


def test_potentials_saturate_on_both_sides() -> None:
    large = 65000  # 2 * 65000 * 64 = 8,320,000 of 8,388,607
    assert potentials(neuron(), [large, large])[-1] == M - 1
    assert potentials(neuron(), [-large, -large, -large])[1:] == [1 - M, 1 - M]


def test_currents_wrap_once() -> None:
    assert potentials(neuron(), [66000]) == [2 * 66000 * 64 - 2 * M]
    assert potentials(neuron(), [65536]) == [M - 1]  # +M is kept as a current, and the potential saturates


@pytest.mark.parametrize("beta", [0, 1, 700, 2048, 4095])
def test_products_that_float32_does_not_hold_are_computed_in_float64(beta: int) -> None:
    """Potentials near the end of the range, times every decay: float32 alone would be wrong."""
    random = np.random.default_rng(beta)
    x = random.integers(-65535, 65536, (50, 6, 1))
    played(single(neuron(beta=FixedPoint.number(beta, -12))), {"x": x})


# --- pools inside kernels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "pad", "stride"), [(12, 2, 1), (11, 1, 1), (13, 2, 2), (12, 0, 1)])
def test_a_kernel_that_holds_a_pool_keeps_its_parameters_and_its_sums(size: int, pad: int, stride: int) -> None:
    random = np.random.default_rng(size)
    small = 2 * random.integers(-9, 10, (3, 2, 3, 3))
    whole = small.repeat(2, axis=2).repeat(2, axis=3)
    op = Conv(FixedPoint(whole), None, (2 * stride, 2 * stride), (2 * pad, 2 * pad))
    out = (size + 4 * pad - 6) // (2 * stride) + 1
    nodes: dict[str, Op] = {"x": Input((2, size, size), Spike()), "w": op, "n": replace(neuron(), shape=(3, out, out))}
    dense = FixedPoint(2 * random.integers(-9, 10, (4, 3, out, out)).reshape(4, -1))
    nodes |= {"flat": Flatten(), "fc": Dense(dense), "r": Readout((4,)), "out": Output()}
    nodes["n"] = replace(nodes["n"], threshold=FixedPoint.number(30))
    edges = [Edge(*pair) for pair in (("x", "w"), ("w", "n"), ("n", "flat"), ("flat", "fc"), ("fc", "r"), ("r", "out"))]
    network = played(Graph(nodes, edges), {"x": random.integers(0, 2, (4, 3, 2, size, size))})
    assert network.synapses["w"].latent.shape == (3, 2, 3, 3)
    restored = network.graph().nodes["w"]
    assert isinstance(restored, Conv)
    assert isinstance(restored.weight, FixedPoint)
    np.testing.assert_array_equal(restored.weight.mantissa, whole)


def test_a_matrix_behind_a_pool_is_small() -> None:
    random = np.random.default_rng(0)
    small = 2 * random.integers(-9, 10, (5, 3, 4, 4))
    weight = FixedPoint(small.repeat(2, axis=2).repeat(2, axis=3).reshape(5, -1))
    nodes: dict[str, Op] = {"x": Input((3, 8, 8), Spike()), "flat": Flatten(), "w": Dense(weight)}
    nodes |= {"n": replace(neuron(threshold=FixedPoint.number(20)), shape=(5,)), "out": Output()}
    edges = [Edge("x", "flat"), Edge("flat", "w"), Edge("w", "n"), Edge("n", "out")]
    network = played(Graph(nodes, edges), {"x": random.integers(0, 2, (4, 3, 3, 8, 8))})
    assert network.synapses["w"].latent.shape == (5, 3, 4, 4)


# --- gradients --------------------------------------------------------------------------------------------------------


def two_layers() -> Graph:
    random = np.random.default_rng(1)
    first = replace(neuron(beta=FixedPoint.number(2048, -12), threshold=FixedPoint.number(300)), shape=(6,))
    nodes: dict[str, Op] = {
        "x": Input((5,), Fixed(5)),
        "w1": Dense(FixedPoint(2 * random.integers(-40, 60, (6, 5)))),
        "n1": replace(first, bias=FixedPoint(random.integers(-500, 1000, 6))),
        "w2": Dense(FixedPoint(2 * random.integers(-60, 60, (3, 6)))),
        "r": Readout((3,), bias=FixedPoint(random.integers(-500, 1000, 3)), unit=0.01),
        "out": Output(),
    }
    order = list(nodes)
    return Graph(nodes, [Edge(*pair) for pair in itertools.pairwise(order)])


def test_the_gradient_is_the_chain_rule_of_the_surrogate() -> None:
    """Against the same network written in plain torch operations, in reals of the machine's units."""
    graph = two_layers()
    x = torch.as_tensor(np.random.default_rng(2).integers(-15, 16, (7, 5)))
    network = IntegerNetwork(graph, LOIHI, 4)
    out = network.play({"x": x}).outputs["r"]
    goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    (out * goal).sum().backward()

    names = ("w1", "w2")
    weights = {name: network.synapses[name].integers().double().requires_grad_() for name in names}
    bias = {name: network.biases[name]().detach().double().requires_grad_() for name in ("n1", "r")}
    w = torch.zeros(7, 6, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(4):
        v = w * 0.5
        v = v + (torch.trunc(v) - v).detach() + 64 * (x.double() @ weights["w1"].T) + bias["n1"]
        s = _Step.apply(v, 300 * 64.0)
        w = v * (1 - s)
        total = total + ((s @ weights["w2"].T + bias["r"] / 64) * 0.01 * goal[t]).sum()
    total.backward()
    for name in names:
        found = network.synapses[name].latent.grad
        assert found is not None
        assert found.abs().max() > 0
        torch.testing.assert_close(found.double(), weights[name].grad * 256, rtol=1e-4, atol=1e-6)
    for name in ("n1", "r"):
        found = network.biases[name].latent.grad
        assert found is not None
        torch.testing.assert_close(found.double(), bias[name].grad * 256 * 64, rtol=1e-4, atol=1e-6)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: torch.Tensor, threshold: float) -> torch.Tensor:
        ctx.save_for_backward(v)
        ctx.threshold = threshold
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (v,) = ctx.saved_tensors
        slope = torch.clamp(ctx.threshold - (v - ctx.threshold).abs(), min=0) / ctx.threshold**2
        return grads[0] * slope, None


def test_gradients_reach_through_loops_and_currents() -> None:
    nodes = dict(two_layers().nodes)
    nodes["n1"] = replace(nodes["n1"], alpha=FixedPoint.number(1300, -12))  # type: ignore[type-var]
    nodes["back"] = Dense(FixedPoint(2 * np.random.default_rng(3).integers(-30, 60, (6, 6))))
    edges = [*two_layers().edges, Edge("n1", "back", 1), Edge("back", "n1")]
    x = np.random.default_rng(2).integers(-15, 16, (7, 4, 5))
    network = played(Graph(nodes, edges), {"x": x})
    assert network.loops
    network.play({"x": torch.as_tensor(x)}).outputs["r"].square().sum().backward()
    for synapse in network.synapses.values():
        assert synapse.latent.grad is not None
        assert synapse.latent.grad.abs().max() > 0


def test_training_cannot_leave_the_machine_s_ranges() -> None:
    nodes = dict(two_layers().nodes)
    nodes["x"], nodes["w1"] = Input((2000,), Fixed(5)), Dense(FixedPoint(np.full((6, 2000), 2)))
    network = IntegerNetwork(Graph(nodes, two_layers().edges), LOIHI, 4)
    with torch.no_grad():
        network.synapses["w1"].latent.copy_(torch.randn(6, 2000, generator=torch.Generator().manual_seed(0)) * 3)
        network.biases["n1"].latent.fill_(1e6)
    network.constrain()
    weight = network.synapses["w1"].integers()
    assert weight.min() >= -256
    assert weight.max() <= 254
    assert weight.abs().sum(1).max() * 15 <= LOIHI.sum_most
    assert weight.abs().sum(1).min() * 15 > 0.5 * LOIHI.sum_most  # it is not silenced
    assert network.biases["n1"].mantissa().max() == 4095

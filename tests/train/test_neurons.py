"""The LIF neuron: ties, hand-computed gradients through the reset, and the loop written out against autograd."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from snncompile.train.neurons import Spiking, triangle


@pytest.mark.parametrize(("fires", "expected"), [(">", [0, 1, 0, 1]), (">=", [1, 1, 1, 1])])
def test_a_constant_current_at_the_threshold_shows_the_tie_rule(fires: Literal[">", ">="], expected: list[int]) -> None:
    assert Spiking(fires=fires)(torch.ones(4, 1)).flatten().tolist() == expected


def test_potentials_are_those_before_the_reset() -> None:
    spikes, potentials = Spiking().integrate(torch.tensor([0.8, 0.8, 0.5, 0.5])[:, None])
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(potentials.flatten(), torch.tensor([0.8, 1.2, 0.5, 0.75]))


@pytest.mark.parametrize(
    ("currents", "detach", "expected"),
    [
        # G(v2) decay ((1 - s1) - v1 G(v1)); v1 = 1.2 fires, so v2 = 0.7: 0.7 * 0.5 * (0 - 1.2 * 0.8)
        ((1.2, 0.7), False, -0.336),
        ((1.2, 0.7), True, 0.0),
        # v1 = 0.6 does not, so v2 = 0.8: 0.8 * 0.5 * (1 - 0.6 * 0.6)
        ((0.6, 0.5), False, 0.256),
        ((0.6, 0.5), True, 0.4),
    ],
)
def test_gradient_of_the_second_spike_by_the_first_current(
    currents: tuple[float, float], detach: bool, expected: float
) -> None:
    x = torch.tensor(currents, dtype=torch.float64)[:, None].requires_grad_()
    Spiking(detach_reset=detach)(x)[1].sum().backward()
    assert x.grad is not None
    assert x.grad[0].item() == pytest.approx(expected, abs=1e-12)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, threshold: float, width: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.settings = threshold, width
        return (v > threshold).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (v,) = ctx.saved_tensors
        threshold, width = ctx.settings
        return grads[0] * (width - (v - threshold).abs()).clamp(min=0) / width**2, None, None


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("decay", "threshold", "width"), [(0.5, 1.0, 1.0), (0.9, 0.5, 0.7)])
def test_gradients_equal_those_of_the_loop_written_out(
    detach: bool, decay: float, threshold: float, width: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(7, 50, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.randn(7, 50, dtype=torch.float64, generator=generator)
    rest, expected = torch.zeros(50, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for t in range(7):
        v = decay * rest + x[t]
        s = _Fire.apply(v, threshold, width)
        expected = expected + (weights[t] * s).sum()
        rest = v * (1 - (s.detach() if detach else s))
    (wanted,) = torch.autograd.grad(expected, x)
    lif = Spiking(decay, threshold, width=width, detach_reset=detach)
    (found,) = torch.autograd.grad((weights * lif(x)).sum(), x)
    assert wanted.abs().sum() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_the_triangle_has_area_one_and_the_stated_peak(width: float) -> None:
    v = torch.linspace(-4, 6, 100_001, dtype=torch.float64)
    slope = triangle(v, 1.0, width)
    assert slope.sum().item() * 1e-4 == pytest.approx(1.0, abs=1e-6)
    assert slope.max().item() == pytest.approx(1 / width)

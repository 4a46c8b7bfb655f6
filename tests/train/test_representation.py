"""DSR: the clamp map, how far spikes are from it, its gradient, and alpha folded away."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from snncompile.recipe.methods import DsrSettings
from snncompile.train.neurons import Spiking
from snncompile.train.representation import Represented, mean_over_time

IF = DsrSettings(steps=8, alpha=0.5, floor=0.01)
LIF = DsrSettings(steps=20, alpha=0.3, floor=0.0005, time_constant=1.0, time_step=0.05)
EXACT = DsrSettings(
    steps=20,
    alpha=0.3,
    floor=0.0005,
    time_constant=1.0,
    time_step=0.05,
    threshold_gradient="map",
    map_gain="exact",
    output_gradient="exact",
    weight_gradient="exact",
)


def currents(steps: int, count: int = 200, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    steady = torch.randn(count, dtype=torch.float64, generator=generator)
    return (steady + torch.randn(steps, count, dtype=torch.float64, generator=generator)) * spread


def neuron(settings: DsrSettings, threshold: float) -> Represented:
    return Represented(settings, threshold).double()


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 50, 500])
def test_if_is_the_clamp_map_up_to_one_over_t(steps: int, alpha: float) -> None:
    """Constant current I in [0, V]: after T steps the potential lies in [(alpha - 1) V, alpha V), and it is what the
    mean output still owes: ``T (I - mean y) = v'[T-1]``; so the error is V / T at most. Outside, the clamp is met
    within V / T as well.
    """
    threshold = 1.7
    settings = DsrSettings(steps=steps, alpha=alpha, floor=0.01)
    steady = torch.linspace(-1.0, 3.0, 401, dtype=torch.float64)
    sent = neuron(settings, threshold)(steady.expand(steps, -1))
    error = (sent.mean(dim=0) - steady.clamp(0.0, threshold)).abs()
    assert error.max() <= threshold / steps * (1 + 1e-9)
    assert error.max() > 0.2 * threshold / steps  # a bound that is nearly met


@pytest.mark.parametrize("steps", [40, 160])
def test_lif_is_its_clamp_map_up_to_the_last_potential(steps: int) -> None:
    """LIF under constant current I: ``sum_t decay^(T-1-t) ((1-decay) I - V s[t]) = v'[T-1]``. Divided by the sum of
    weights, dt and taken over [0, V / dt]: the error of ``clamp((1 - decay) I / dt, 0, V / dt)`` is at most
    V / dt over that sum: about V / tau once decay^T is small.
    """
    threshold = 0.3
    settings = DsrSettings(steps=steps, alpha=0.3, floor=0.001, time_constant=1.0, time_step=0.05)
    steady = torch.linspace(-1.0, 8.0, 301, dtype=torch.float64)
    sent = neuron(settings, threshold)(steady.expand(steps, -1))
    gain = (1.0 - settings.decay) / settings.time_step
    mapped = (gain * steady).clamp(0.0, threshold / settings.time_step)
    weights = sum(settings.decay**age for age in range(steps))
    error = (mean_over_time(sent, settings.decay) - mapped).abs()
    assert error.max() <= threshold / settings.time_step / weights * (1 + 1e-9)


def test_gradient_of_if_is_that_of_the_clamp() -> None:
    x = currents(IF.steps).requires_grad_()
    layer = neuron(IF, 1.3)
    weights = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((layer(x).mean(dim=0) * weights).sum(), (x, layer.scale))
    again = x.detach().requires_grad_()
    ceiling = torch.tensor(1.3, dtype=torch.float64).float().double().requires_grad_()
    mapped = torch.minimum(again.mean(dim=0).clamp(min=0.0), ceiling)
    wanted = torch.autograd.grad((mapped * weights).sum(), (again, ceiling))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_exact_gradient_of_lif_is_that_of_the_clamp_of_weighted_means() -> None:
    x = (currents(EXACT.steps) * 2).requires_grad_()
    layer = neuron(EXACT, 0.3)
    weights = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((mean_over_time(layer(x), EXACT.decay) * weights).sum(), (x, layer.scale))
    again = x.detach().requires_grad_()
    scale = torch.tensor(0.3).double().requires_grad_()
    gain = (1.0 - EXACT.decay) / EXACT.time_step
    mapped = torch.minimum((gain * mean_over_time(again, EXACT.decay)).clamp(min=0.0), scale / EXACT.time_step)
    wanted = torch.autograd.grad((mapped * weights).sum(), (again, scale))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)  # V / dt is a float32 scale


def test_gradient_of_lif_as_in_the_code() -> None:
    """Rule by rule: ``g = T wmean(dL/dy)``; ``g / (tau T)`` inside; ``dt sum g`` above."""
    x = (currents(LIF.steps) * 2).requires_grad_()
    layer = neuron(LIF, 0.3)
    upstream = torch.randn(LIF.steps, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found, scale = torch.autograd.grad((layer(x) * upstream).sum(), (x, layer.scale))
    tau, dt, steps = LIF.time_constant, LIF.time_step, LIF.steps
    w = torch.tensor([math.exp(-(steps - n) * dt / tau) for n in range(1, steps + 1)], dtype=torch.float64)
    g = steps * (w[:, None] * upstream).sum(dim=0) / w.sum()
    mean = (w[:, None] * x.detach()).sum(dim=0) / w.sum()
    threshold = layer.amount
    inside = (mean > 0) & (mean < threshold * tau / dt)
    torch.testing.assert_close(found, (g / (tau * steps) * inside).expand(steps, -1), rtol=1e-12, atol=1e-14)
    assert scale.item() == pytest.approx(dt * float(g[mean > threshold * tau / dt].sum()), rel=1e-12)
    assert inside.any()
    assert (mean > threshold * tau / dt).any()


@pytest.mark.parametrize("model", ["if", "lif"])
def test_alpha_folds_away_exactly(model: Literal["if", "lif"]) -> None:
    """Threshold alpha V with reset V is threshold and reset 1, currents divided by V, a start at 1 - alpha, and for LIF
    a constant current (1 - alpha)(1 - decay): the same spikes. V and alpha are powers of two, so that ties are ties.
    """
    alpha, threshold, steps = 0.25, 0.5, 64
    decay = 1.0 if model == "if" else 0.75
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(-64, 128, (steps, 4000), generator=generator).double() / 64
    gain = 1.0 if model == "if" else 1.0 - decay
    official = Spiking(
        decay, alpha * threshold, ">=", reset="subtract", amount=threshold, gain=gain, amplitude=threshold
    )
    folded = Spiking(decay, 1.0, ">=", reset="subtract", amount=1.0, initial=1.0 - alpha)
    sent = official(x)
    spikes = folded(x * (gain / threshold) + (1.0 - alpha) * (1.0 - decay))
    assert torch.equal(sent, threshold * spikes)
    assert 0.05 < spikes.mean() < 0.95


def test_the_threshold_stays_above_its_floor() -> None:
    layer = neuron(IF, 0.5)
    with torch.no_grad():
        layer.scale.fill_(-3.0)
    layer.keep_above_floor()
    assert layer.amount == pytest.approx(0.01)
    with torch.no_grad():
        layer.scale.fill_(0.7)
    layer.keep_above_floor()
    assert layer.amount == pytest.approx(0.7)
    assert layer.threshold == pytest.approx(0.35)

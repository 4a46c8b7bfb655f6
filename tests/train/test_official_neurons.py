"""Spikes of every neuron against a restatement, line by line, of the update in its authors' code; ties included.

Inputs and parameters are multiples of 1/64 with few bits, so that float64 is exact and potentials do meet thresholds:
each test checks that they did. ``1 - decay`` of DSR's LIF is a power of two for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from snncompile.recipe import Recipe
from snncompile.train.neurons import Spiking
from snncompile.train.populations import population
from snncompile.train.representation import Represented

STEPS, COUNT = 16, 20_000


def tet(x: Tensor) -> tuple[Tensor, Tensor]:
    """LIFSpike: ``mem = mem * tau + x``; ``spike = act(mem - thresh)`` with ``> 0``; ``mem = (1 - spike) * mem``."""
    mem, spikes, seen = torch.zeros_like(x[0]), [], []
    for t in range(len(x)):
        mem = mem * 0.5 + x[t]
        spike = ((mem - 1.0) > 0).double()
        seen.append(mem)
        mem = (1 - spike) * mem
        spikes.append(spike)
    return torch.stack(spikes), torch.stack(seen)


def sew(x: Tensor) -> tuple[Tensor, Tensor]:
    """IFNode: ``v = v + x``; ``spike = heaviside(v - 1)`` with ``>= 0``; ``v = (1 - spike) * v + spike * 0``."""
    v, spikes, seen = torch.zeros_like(x[0]), [], []
    for t in range(len(x)):
        v = v + x[t]
        spike = ((v - 1.0) >= 0).double()
        seen.append(v)
        v = (1.0 - spike) * v + spike * 0.0
        spikes.append(spike)
    return torch.stack(spikes), torch.stack(seen)


def idsnn(x: Tensor) -> tuple[Tensor, Tensor]:
    """``mem = mem * decay * (1 - spike) + x``; ``spike = mem.gt(thresh)``."""
    mem, spike = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    spikes, seen = [], []
    for t in range(len(x)):
        mem = mem * 0.25 * (1.0 - spike) + x[t]
        spike = mem.gt(0.5).double()
        seen.append(mem)
        spikes.append(spike)
    return torch.stack(spikes), torch.stack(seen)


def asf(leak: float, threshold: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """``V += I``; spike where ``V > Vth``; ``V[spiked] = 0``; then ``V = leak * V + V - V``."""

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        v, spikes, seen = torch.zeros_like(x[0]), [], []
        for t in range(len(x)):
            v = v + x[t]
            seen.append(v)
            spiked = v > threshold
            v = torch.where(spiked, torch.zeros_like(v), v)
            v = leak * v + v - v
            spikes.append(spiked.double())
        return torch.stack(spikes), torch.stack(seen)

    return run


def dsr(decay: float, threshold: float, alpha: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """``v = decay * v + (1 - decay) * I`` (IF: ``v += I``); spike where ``v >= alpha * Vth``; ``v -= Vth * spike``."""

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        v, spikes, seen = torch.zeros_like(x[0]), [], []
        for t in range(len(x)):
            v = v + x[t] if decay == 1.0 else decay * v + (1.0 - decay) * x[t]
            seen.append(v)
            spike = (v >= alpha * threshold).double()
            v = v - threshold * spike
            spikes.append(spike)
        return torch.stack(spikes), torch.stack(seen)

    return run


def ide(leak: float, threshold: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """First ``u = x``; then ``u = leak * (u - Vth * s) + x``; ``s = u >= Vth``."""

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        u, spikes, seen = x[0], [], []
        s = (u >= threshold).double()
        spikes.append(s)
        seen.append(u)
        for t in range(1, len(x)):
            u = leak * (u - threshold * s) + x[t]
            s = (u >= threshold).double()
            spikes.append(s)
            seen.append(u)
        return torch.stack(spikes), torch.stack(seen)

    return run


def recipe(method: str, neuron: dict[str, Any], settings: dict[str, Any]) -> Recipe:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "neuron", "summary": "a test", "method": method, "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": "10FC"},
        "neuron": neuron,
        method: {"steps": STEPS} | settings,
        "training": {"epochs": 1, "batch": 8, "learning_rate": 0.1, "seed": 1},
        "data": {"name": "digits"},
    }
    return Recipe.from_dict(tables, "a test")


SOFT = {"fires": ">=", "reset": "subtract"}
TET = recipe("tet", {"decay": 0.5}, {"lambda": 0.05, "phi": 1.0})
SEW = recipe(
    "tet", {"decay": 1.0, "fires": ">=", "detach_reset": True, "surrogate": "atan"}, {"lambda": 0.0, "phi": 1.0}
)
IDSNN = recipe("idsnn", {"decay": 0.25, "threshold": 0.5, "surrogate": "rectangle"}, {"teacher": "none"})
CASES: dict[str, tuple[Recipe, Any, Any, float]] = {
    "tet": (TET, "hidden", tet, 1.0),
    "sew": (SEW, "hidden", sew, 1.0),
    "idsnn": (IDSNN, "hidden", idsnn, 0.5),
    "asf-if": (recipe("asf", {"decay": 1.0, "threshold": 2.0}, {}), "hidden", asf(1.0, 2.0), 2.0),
    "asf-lif": (recipe("asf", {"decay": 0.75}, {}), "hidden", asf(0.75, 1.0), 1.0),
    "asf-pool": (recipe("asf", {"decay": 0.75}, {}), "pool", asf(1.0, 0.75), 0.75),
    "dsr-if": (recipe("dsr", {"threshold": 0.5}, {"alpha": 0.5, "floor": 0.01}), "hidden", dsr(1.0, 0.5, 0.5), 0.25),
    "ide-if": (recipe("ide", {"decay": 1.0, "threshold": 2.0, **SOFT}, {}), "hidden", ide(1.0, 2.0), 2.0),
    "ide-lif": (recipe("ide", {"decay": 0.5, "threshold": 0.5, **SOFT}, {}), "hidden", ide(0.5, 0.5), 0.5),
}


def currents() -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randint(-24, 64, (STEPS, COUNT), generator=generator).double() / 64


@pytest.mark.parametrize("name", CASES)
def test_spikes_and_potentials_are_those_of_the_official_update(name: str) -> None:
    of, role, official, threshold = CASES[name]
    neuron = population(of, role)
    assert isinstance(neuron, Spiking)
    x = currents()
    sent, potentials = neuron.integrate(x)
    spikes, seen = official(x)
    assert torch.equal(sent, neuron.amplitude * spikes)
    assert torch.equal(potentials, seen)
    ties = int((seen == threshold).sum())
    assert ties > 20, "no potential met the threshold: the tie rule was not seen"
    assert 0.01 < spikes.mean() < 0.9


def test_leaky_neurons_of_dsr_likewise() -> None:
    """decay 3/4 in place of exp(-dt/tau), so that all numbers are exact."""
    of = recipe("dsr", {"threshold": 0.25}, {"alpha": 0.5, "floor": 0.01, "time_constant": 1.0, "time_step": 0.25})
    neuron = population(of)
    assert isinstance(neuron, Represented)
    neuron.decay, neuron.gain = 0.75, 0.25
    x = currents()
    sent, potentials = neuron.integrate(x)
    spikes, seen = dsr(0.75, 0.25, 0.5)(x)
    assert torch.equal(sent, 1.0 * spikes)  # V / dt
    assert torch.equal(potentials, seen)
    assert int((seen == 0.125).sum()) > 20


@pytest.mark.parametrize(("fires", "expected"), [(">=", [0, 1] * 4), (">", [0, 0, 1, 0, 1, 0, 1, 0])])
def test_soft_reset_at_a_tie(fires: Any, expected: list[int]) -> None:
    """IF, I = 0.5, threshold 1."""
    neuron = Spiking(1.0, 1.0, fires, reset="subtract")
    assert neuron(torch.full((8, 1), 0.5)).flatten().tolist() == expected


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", ["triangle", "rectangle", "atan"])
def test_gradient_through_a_soft_reset_is_that_of_the_loop_written_out(detach: bool, surrogate: Any) -> None:
    from snncompile.train.surrogates import SURROGATES

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            ctx.save_for_backward(v)
            return (v >= 0.8).to(v.dtype)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return grads[0] * SURROGATES[surrogate](ctx.saved_tensors[0], 0.8, 0.9, None)

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(7, 50, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.randn(7, 50, dtype=torch.float64, generator=generator)
    rest, total = torch.full((50,), 0.3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for t in range(7):
        v = 0.7 * rest + 1.5 * x[t]
        s = Fire.apply(v)
        total = total + (weights[t] * 2.0 * s).sum()
        rest = v - 0.6 * (s.detach() if detach else s)
    (wanted,) = torch.autograd.grad(total, x)
    neuron = Spiking(
        0.7,
        0.8,
        ">=",
        0.9,
        detach,
        reset="subtract",
        surrogate=surrogate,
        gain=1.5,
        amount=0.6,
        amplitude=2.0,
        initial=0.3,
    )
    (found,) = torch.autograd.grad((weights * neuron(x)).sum(), x)
    assert wanted.abs().sum() > 1
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("surrogate", ["triangle", "rectangle", "atan"])
@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_surrogates_have_area_one(surrogate: Any, width: float) -> None:
    from snncompile.train.surrogates import SURROGATES

    v = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    slope = SURROGATES[surrogate](v, 1.0, width, None)
    assert slope.sum().item() * 1e-3 == pytest.approx(1.0, abs=2e-3)
    peak = 1 / (2 * width) if surrogate == "rectangle" else 1 / width
    assert slope.max().item() == pytest.approx(peak, rel=1e-2)

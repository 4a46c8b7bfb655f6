"""IDE: rates come to the fixed point as 1 / T, the implicit gradient is that of the equilibrium, weights are
restricted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from snncompile.errors import SheetError
from snncompile.recipe import Recipe
from snncompile.train.feedback import RestrictedConv2d, RestrictedConvTranspose2d, RestrictedLinear
from snncompile.train.layers import Signal
from snncompile.train.methods.ide import Ide, Loop, solve
from snncompile.train.networks import Network

SINGLE = "Loop(6C3S2|6C3)-10FC"
MULTIPLE = "Loop(6C3S2-8C3-8C3S2|6T3S2)-10FC"


def recipe(architecture: str = SINGLE, steps: int = 30, **changes: Any) -> Recipe:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "loop", "summary": "a test", "method": "ide", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": architecture, "weights": "unit-rows"},
        "neuron": {"decay": 1.0, "threshold": 2.0, "fires": ">=", "reset": "subtract"},
        "ide": {"steps": steps},
        "training": {"epochs": 1, "batch": 16, "learning_rate": 0.05, "seed": 3},
        "data": {"name": "digits"},
    }
    for table, entries in changes.items():
        tables[table].update(entries)
    return Recipe.from_dict(tables, "a test")


def network(of: Recipe) -> Network:
    torch.manual_seed(5)
    net = Network(of).double()
    with torch.no_grad():
        for name, module in net.modules_of.items():
            if name.startswith("norm"):
                module.bias.fill_(0.6)
    return net.eval()


def images(count: int = 12) -> Tensor:
    return torch.rand(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2


def fixed_point(loop: Loop, means: dict[str, Tensor], start: Tensor) -> Tensor:
    a = start
    for _ in range(300):
        a = loop.f(a, means)
    assert (loop.f(a, means) - a).abs().max() < 1e-12
    return a


@pytest.mark.parametrize("architecture", [SINGLE, MULTIPLE, "Loop(20FC|20FC)-10FC"])
def test_rates_come_to_the_fixed_point_as_one_over_t(architecture: str) -> None:
    """The last potential of a population is what its rate still owes, so the distance falls like 1 / T."""
    errors = []
    for steps in (30, 150, 750):
        loop = Loop(network(recipe(architecture, steps)))
        with torch.no_grad():
            means, signals = loop.lead_in(images())
            rate = loop.rate(signals)
            settled = fixed_point(loop, means, rate)
        errors.append(float((rate - settled).abs().mean()) * steps)
        assert 0.02 < settled.mean() < 0.98
    assert max(errors) < 4.0 * min(errors)
    assert errors[-1] / 750 < 4e-3


@pytest.mark.parametrize("architecture", [SINGLE, MULTIPLE])
def test_weighted_rates_of_leaky_neurons_come_close_too(architecture: str) -> None:
    distances = []
    for decay in (0.9, 0.99):
        loop = Loop(network(recipe(architecture, 400, neuron={"decay": decay})))
        assert loop.decay == decay
        with torch.no_grad():
            means, signals = loop.lead_in(images())
            rate = loop.rate(signals)
            distances.append(float((rate - fixed_point(loop, means, rate)).abs().mean()))
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("architecture", [SINGLE, MULTIPLE])
def test_the_implicit_gradient_is_that_of_a_long_unrolling(architecture: str) -> None:
    net = network(recipe(architecture, 2))
    loop = Loop(net)
    parameters = [parameter for name, parameter in net.named_parameters() if "fc" not in name]
    weights = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        means, _ = loop.lead_in(images())
        settled = fixed_point(loop, means, torch.full_like(loop.f(_zero(loop, means), means), 0.3))

    means, _ = loop.lead_in(images())
    a = _zero(loop, means)
    for _ in range(200):
        a = loop.f(a, means)
    wanted = torch.autograd.grad((loop.answer(a) @ weights).sum(), parameters, allow_unused=True)

    means, _ = loop.lead_in(images())
    rate = settled.clone().requires_grad_()
    (g,) = torch.autograd.grad((loop.answer(rate) @ weights).sum(), rate)
    given = settled.clone().requires_grad_()
    once = loop.f(given, means)
    solution = solve(lambda x: torch.autograd.grad(once, given, x, retain_graph=True)[0], g, 200, 1e-13)
    assert solution.residual < 1e-12
    found = torch.autograd.grad((once * solution.x).sum(), parameters, allow_unused=True)
    compared = 0
    for one, other in zip(found, wanted, strict=True):
        if other is not None:
            assert one is not None
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
            compared += 1
    assert compared == len(parameters)


def _zero(loop: Loop, means: dict[str, Tensor]) -> Tensor:
    signals = {name: Signal(value, loop.network.steps, static=True) for name, value in means.items()}
    return torch.zeros_like(loop.rate(signals))


def test_the_authors_iteration_would_be_wrong_and_ours_is_not() -> None:
    """``(I - J^T)^-1 g``, not ``(2 I - J^T)^-1 g``."""
    generator = torch.Generator().manual_seed(0)
    j = torch.randn(30, 30, dtype=torch.float64, generator=generator) * 0.05
    g = torch.randn(30, dtype=torch.float64, generator=generator)
    solution = solve(lambda x: j.t() @ x, g, 100, 1e-13)
    torch.testing.assert_close(
        solution.x, torch.linalg.solve(torch.eye(30).double() - j.t(), g), rtol=1e-10, atol=1e-12
    )
    assert not solution.damped


def test_what_does_not_settle_is_damped_and_its_residual_told() -> None:
    """J with eigenvalue -1.5: the plain iteration runs away, the damped one settles (factor 1/4)."""
    j = torch.diag(torch.tensor([-1.5, 0.5], dtype=torch.float64))
    g = torch.tensor([1.0, 1.0], dtype=torch.float64)
    solution = solve(lambda x: j.t() @ x, g, 100, 1e-10)
    assert solution.damped
    torch.testing.assert_close(solution.x, torch.tensor([0.4, 2.0], dtype=torch.float64), rtol=1e-8, atol=1e-8)
    grows = solve(lambda x: 3.0 * x, g, 20, 1e-10)  # nothing helps an eigenvalue of 3
    assert grows.residual > 1.0
    nothing = solve(lambda x: j @ x, torch.zeros(2), 10, 1e-10)
    assert nothing.residual == 0.0


def test_a_step_trains_the_loop_and_what_surrounds_it() -> None:
    course = Ide(recipe(MULTIPLE, 20, network={"dropout": 0.2}))
    before = {name: value.clone() for name, value in course.network.named_parameters()}
    course.network.train()
    course.begin_epoch(0)
    loss, hits = course.step(images(16).float(), torch.arange(16) % 10)
    assert loss > 0
    assert 0 <= hits <= 16
    still = [
        name
        for name, value in course.network.named_parameters()
        if torch.equal(value, before[name]) and "restriction.g" not in name
    ]
    assert not still
    told = course.metrics()
    assert told["residual"] < 1e-5
    assert told["equilibrium_gap"] < 0.2


def test_norms_inside_the_loop_learn_their_statistics_once_and_hold_still_while_spikes_flow() -> None:
    course = Ide(recipe(MULTIPLE, 10))
    course.network.train()
    norm = course.network.modules_of["norm2"]
    means, signals = course.loop.lead_in(images(16).float())
    before = norm.running_mean.clone()
    rate = course.loop.rate(signals)
    assert torch.equal(norm.running_mean, before)
    assert norm.training
    course.loop.f(rate, means)
    assert not torch.equal(norm.running_mean, before)
    assert int(norm.num_batches_tracked) == 1


def test_frames_are_normed_by_the_statistics_of_their_mean() -> None:
    loop = Loop(network(recipe(steps=6)).train())
    frames = (torch.rand(10, 6, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    shown = frames.clone()
    means, signals = loop.lead_in(frames)
    assert torch.equal(frames, shown)  # the mean is not written into the data
    conv, norm = loop.network.modules_of["conv1"], loop.network.modules_of["norm1"]
    mean = conv(frames.mean(dim=1))
    deviation, average = torch.std_mean(mean, dim=(0, 2, 3), correction=0)
    scale = (1.0 / (deviation**2 + norm.eps).sqrt()).reshape(-1, 1, 1)
    each = (conv(frames[:, 4]) - average.reshape(-1, 1, 1)) * scale + norm.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(signals["norm1"].timed()[4], each, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(means["norm1"], signals["norm1"].timed().mean(dim=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "module", [RestrictedLinear(30, 20), RestrictedConv2d(4, 6, 3), RestrictedConvTranspose2d(4, 6, 3)]
)
def test_the_weight_in_use_has_the_norm_of_its_gain_at_most(module: Any) -> None:
    for _ in range(200):
        module.iterate()
    largest = torch.linalg.matrix_norm(module.frozen().flatten(1), 2)
    assert largest.item() == pytest.approx(min(1.0, float(module.restriction.g.detach())), rel=1e-4)
    raw = torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)
    assert raw > 1.0
    with torch.no_grad():
        module.restriction.g.fill_(0.3)
    assert torch.linalg.matrix_norm(module.frozen().flatten(1), 2).item() == pytest.approx(0.3, rel=1e-4)
    frozen = module.frozen().clone()
    module.eval()(torch.rand(2, 30) if isinstance(module, RestrictedLinear) else torch.rand(2, 4, 5, 5))
    assert torch.equal(module.frozen(), frozen)  # looking changes nothing


def test_networks_without_a_loop_are_refused() -> None:
    with pytest.raises(SheetError, match="has 0 loops"):
        Ide(recipe("6C3-10FC"))
    with pytest.raises(SheetError, match="lif1 fires in front of the loop"):
        Ide(recipe("6C3-Loop(6C3|6C3)-10FC"))

"""ASF: the flow identity, the gradient against the rule written by hand, what the ratios count, and exact replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe
from snncompile.train.encoders import encoded, poisson
from snncompile.train.losses import squared_loss
from snncompile.train.methods.asf import Asf, measured, ratio, simulate, through_sums
from snncompile.train.networks import Network

STEPS = 12


def recipe(architecture: str = "6C3-P2-12FC-10FC", *, bias: bool = False, **changes: Any) -> Recipe:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "flow", "summary": "a test", "method": "asf", "source": "nobody"},
        "network": {
            "input": [1, 8, 8],
            "architecture": architecture,
            "bias": bias,
            "dense_bias": bias,
            "norm": False,
            "pool_neurons": True,
            "weights": "he",
        },
        "neuron": {"decay": 1.0, "threshold": 1.0, "fires": ">"},
        "asf": {"steps": STEPS, "rate": 1.0} | changes.pop("asf", {}),
        "training": {"epochs": 2, "batch": 16, "learning_rate": 0.001, "seed": 3},
        "data": {"name": "digits"},
    }
    for table, entries in changes.items():
        tables[table].update(entries)
    return Recipe.from_dict(tables, "a test")


def spikes(count: int = 16, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return (torch.rand(count, STEPS, channels, 8, 8, generator=generator) < 0.4).double()


def network(of: Recipe) -> Network:
    torch.manual_seed(5)
    return Network(of).double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_what_arrives_is_the_weights_of_what_was_sent(bias: bool, decay: float) -> None:
    """``FI of a layer = W FO of the layer before (+ T b)``, summed over all steps, whatever the neurons did."""
    net = network(recipe(bias=bias, neuron={"decay": decay}))
    flows = simulate(net, spikes())
    ones = {name: torch.ones(()).double() for name in flows.arrived}
    sums = {"input": flows.given} | flows.sent
    conv, fc = net.modules_of["conv1"], net.modules_of["fc1"]
    own = torch.nn.functional.conv2d(sums["input"], conv.weight, padding=1)
    dense = sums["pool1_lif"].flatten(1) @ fc.weight.t()
    if bias:
        own, dense = own + STEPS * conv.bias.reshape(-1, 1, 1), dense + STEPS * fc.bias
    torch.testing.assert_close(flows.arrived["lif1"], own, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flows.arrived["lif2"], dense, rtol=1e-12, atol=1e-12)
    output = through_sums(net, flows, ones)
    torch.testing.assert_close(output, net(spikes()).sum(dim=1), rtol=1e-12, atol=1e-12)


def test_the_sums_are_those_of_the_network_run_at_once() -> None:
    net = network(recipe())
    flows, trace = simulate(net, spikes()), net.record(spikes())
    for name, sent in flows.sent.items():
        assert torch.equal(sent, trace[f"{name}.s"].sum(dim=1))
        assert 0.0 < sent.mean() < STEPS


@pytest.mark.parametrize("gated", [True, False])
def test_gradient_is_the_rule_written_by_hand(gated: bool) -> None:
    """``d FO / d FI = S 1[FI > 0]`` layer by layer, from the output back to the first weights."""
    net = network(recipe("12FC-9FC-10FC"))
    flows = simulate(net, spikes())
    ratios = {"lif1": torch.tensor(0.3, dtype=torch.float64), "lif2": torch.tensor(0.7, dtype=torch.float64)}
    labels = torch.arange(16) % 10
    scale = STEPS * 1.0
    loss = squared_loss(through_sums(net, flows, ratios, gated=gated) / scale, labels)
    weights = [net.modules_of[name].weight for name in ("fc1", "fc2", "fc3")]
    found = torch.autograd.grad(loss, weights)

    w2, w3 = weights[1].detach(), weights[2].detach()
    output = flows.sent["lif2"] @ w3.t() / scale
    error = 2.0 * (output - torch.nn.functional.one_hot(labels, 10)) / scale
    gate2, gate1 = (flows.arrived[name] > 0 if gated else torch.ones(()).double() for name in ("lif2", "lif1"))
    back2 = error @ w3 * 0.7 * gate2
    back1 = back2 @ w2 * 0.3 * gate1
    wanted = (back1.t() @ flows.given.flatten(1), back2.t() @ flows.sent["lif1"], error.t() @ flows.sent["lif2"])
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().sum() > 0
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_the_gradient_pass_is_as_long_for_many_steps_as_for_few() -> None:
    """Modules that run with a gradient, and nodes of the graph that is gone through backward."""

    def counts(steps: int) -> tuple[int, int]:
        net, calls = network(recipe(asf={"steps": steps})), 0

        def called(*_: object) -> None:
            nonlocal calls
            calls += torch.is_grad_enabled()

        for module in net.modules_of.values():
            module.register_forward_hook(called)
        x = (torch.rand(4, steps, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()
        flows = simulate(net, x)
        assert not any(sums.requires_grad for sums in (*flows.arrived.values(), *flows.sent.values()))
        seen, waiting = set(), [through_sums(net, flows, measured(net, flows, masked=True)).grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                waiting += [before for before, _ in node.next_functions]
        return calls, len(seen)

    assert counts(2) == counts(40)
    assert counts(2)[0] == 5  # a convolution, its pool, what flattens it, two layers; neurons are a factor


def test_ratios_by_hand() -> None:
    arrived, sent = torch.tensor([4.0, -3.0, 1.0, 2.0]), torch.tensor([2.0, 0.0, 3.0, 2.0])
    assert ratio(arrived, sent, masked=True).item() == pytest.approx(4.0 / 6.0)  # the first and the last
    assert ratio(arrived, sent, masked=False).item() == pytest.approx(7.0 / 4.0)
    assert ratio(torch.tensor([1e-4, -5e-4]), torch.tensor([0.0, 0.0]), masked=False).item() == 1.0
    assert ratio(torch.tensor([-4.0]), torch.tensor([1.0]), masked=False).item() < 0  # why the slides' rule fails


def test_populations_behind_pools_are_not_masked() -> None:
    net = network(recipe())
    flows = simulate(net, spikes())
    found = measured(net, flows, masked=True)
    pool = flows.sent["pool1_lif"].sum() / flows.arrived["pool1_lif"].sum()
    assert found["pool1_lif"].item() == pytest.approx(pool.item())
    assert found["lif1"].item() != pytest.approx((flows.sent["lif1"].sum() / flows.arrived["lif1"].sum()).item())


def test_pool_neurons_fire_as_often_as_the_authors_say() -> None:
    """k of 4 inputs firing at every one of 12 steps: 3, 6, 6 and 12 spikes."""
    net = network(recipe("1C1-P2-10FC", network={"input": [1, 8, 8]}))
    with torch.no_grad():
        net.modules_of["conv1"].weight.fill_(2.0)
    x = torch.zeros(4, STEPS, 1, 8, 8).double()
    for k in range(4):
        x[k, :, 0, [0, 0, 1, 1][: k + 1], [0, 1, 0, 1][: k + 1]] = 1.0
    counts = simulate(net, x).sent["pool1_lif"][:, 0, 0, 0]
    assert counts.tolist() == [3, 6, 6, 12]


def test_a_maximum_pool_passes_its_spikes_and_the_gradient_of_its_sums() -> None:
    net = network(recipe("4C3-MP2-10FC"))
    flows = simulate(net, spikes())
    ones = {name: torch.ones(()).double() for name in flows.arrived}
    torch.testing.assert_close(through_sums(net, flows, ones), net(spikes()).sum(dim=1), rtol=1e-12, atol=1e-12)
    largest = torch.nn.functional.max_pool2d(flows.sent["lif1"], 2)
    assert (flows.sent["pool1"] > largest).any()  # maxima of steps against the maximum of sums
    through_sums(net, flows, ones).sum().backward()
    gradient = net.modules_of["conv1"].weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_ratios_are_averaged_and_then_stand_still() -> None:
    course = Asf(recipe(asf={"encoder": "direct"}))
    x, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    flows = simulate(course.network, x)
    share = measured(course.network, flows, masked=True)["lif1"]
    course.step(x, labels)
    assert course.ratios["lif1"].item() == pytest.approx(0.6 * share.item() + 0.4)
    before = dict(course.ratios)
    course.history = [{}]  # the second epoch
    course.step(x, labels)
    assert all(torch.equal(course.ratios[name], before[name]) for name in before)


def test_ratios_come_back_on_resuming_and_damaged_ones_do_not() -> None:
    course = Asf(recipe())
    course.ratios["lif1"] = torch.tensor(0.25)
    kept = course.extra()
    again = Asf(recipe())
    again.restore(kept, "a file")
    assert again.ratios["lif1"].item() == 0.25
    for damaged in ({}, {"ratios": {"lif1": "a"}}, {"ratios": {"lif1": 1.0}}):
        with pytest.raises(ReadError, match="ratios are damaged"):
            again.restore(damaged, "a file")


def test_a_norm_between_the_neurons_is_refused() -> None:
    with pytest.raises(SheetError, match="norm1 has no accumulated flow"):
        Asf(recipe(network={"norm": True}))


# Drawn spikes


def test_the_same_sample_draws_the_same_spikes_wherever_it_stands() -> None:
    x = np.random.default_rng(0).random((6, 1, 4, 4))
    whole = poisson(x, np.arange(6), 20, seed=3, epoch=0, rate=1.0)
    assert np.array_equal(poisson(x[4:], np.array([4, 5]), 20, seed=3, epoch=0, rate=1.0), whole[4:])
    assert not np.array_equal(poisson(x, np.arange(6), 20, seed=3, epoch=1, rate=1.0), whole)
    assert not np.array_equal(poisson(x, np.arange(6), 20, seed=4, epoch=0, rate=1.0), whole)
    assert np.array_equal(poisson(x, np.arange(6), 12, seed=3, epoch=0, rate=1.0), whole[:, :12])


def test_frequencies_are_the_rate_times_the_pixel_and_signs_those_of_the_pixel() -> None:
    x = np.array([[0.0, 0.3, 1.0, -0.5]])
    drawn = poisson(x, np.array([0]), 20_000, seed=1, epoch=0, rate=0.5)
    mean = drawn.mean(axis=(0, 1))
    deviation = np.sqrt(0.25 / 20_000)
    assert np.abs(mean - [0.0, 0.15, 0.5, -0.25]).max() < 5 * deviation
    assert set(np.unique(drawn[..., 3])) == {-1, 0}
    assert drawn.dtype == np.int8


def test_pixels_that_are_no_probabilities_are_refused() -> None:
    x = np.zeros((2, 1, 8, 8))
    x[0, 0, 0, :2] = -1.0, 1.0
    with pytest.raises(ReadError, match="pixels reach from -1 to 1"):
        encoded(recipe(), x)
    drawn = encoded(recipe(asf={"signed": True}), x)
    assert drawn.shape == (2, STEPS, 1, 8, 8)
    assert drawn.min() == -1
    assert encoded(recipe(), drawn) is drawn  # spikes are not drawn again
    with pytest.raises(ReadError, match="pixels reach from 0 to 2"):
        encoded(recipe(), np.full((1, 1, 8, 8), 2.0))


def test_direct_images_are_shown_as_they_are() -> None:
    x = np.ones((2, 1, 8, 8))
    assert encoded(recipe(asf={"encoder": "direct"}), x) is x

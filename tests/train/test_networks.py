"""Networks: the plan, the parameters, and the shortcut for images against the naive repetition."""

from __future__ import annotations

import pytest
import torch

from snncompile.errors import ReadError
from snncompile.train.networks import Network, Step

BLOCKS = "4C3-Res(4C3-4C3)-Res(6C3S2-8C3)-AP2-12FC-10FC"


def test_plan_of_a_residual_block(small) -> None:
    network = Network(small(network={"architecture": BLOCKS}))
    assert network.plan[:4] == (
        Step("conv1", ("input",)),
        Step("norm1", ("conv1",)),
        Step("lif1", ("norm1",)),
        Step("block1_conv1", ("lif1",)),
    )
    plan = {step.name: step.sources for step in network.plan}
    assert plan["block1_lif2"] == ("block1_norm2", "lif1")
    assert plan["block2_lif2"] == ("block2_norm2", "block2_skip_norm")
    assert plan["block2_skip"] == ("block1_lif2",)
    assert [step.name for step in network.plan[-7:]] == ["pool1", "flatten", "fc1", "norm2", "lif2", "fc2", "readout"]


SEW = "4C3-Sew(4C3-4C3)-Sew(6C3S2-6C3)-Sew(6C3-6C3)-AP2-10FC"


def test_plan_of_a_block_that_adds_spikes(small) -> None:
    network = Network(small(network={"architecture": SEW, "bias": False, "dense_norm": False}))
    plan = {step.name: step.sources for step in network.plan}
    assert plan["block1_lif2"] == ("block1_norm2",)
    assert plan["block2_conv1"] == plan["block2_skip"] == ("block1_lif2", "lif1")
    assert plan["block2_skip_lif"] == ("block2_skip_norm",)
    assert plan["pool1"] == ("block3_lif2", "block2_lif2", "block2_skip_lif")
    assert network.modules_of["conv1"].bias is None
    assert network.modules_of["fc1"].bias is not None


@pytest.mark.parametrize("architecture", [BLOCKS, SEW, "Res(1C3-1C3)-10FC", "AP2-6FC-10FC"])
def test_images_shown_once_equal_images_repeated(small, architecture: str) -> None:
    recipe = small(network={"architecture": architecture}, tet={"steps": 3})
    torch.manual_seed(1)
    once, repeated = Network(recipe).double(), Network(recipe).double()
    repeated.load_state_dict(once.state_dict())
    x = 2 * torch.rand(16, 1, 8, 8, dtype=torch.float64)
    frames = x[:, None].expand(16, 3, 1, 8, 8)
    left, right = once(x), repeated(frames)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    left.square().sum().backward()
    right.square().sum().backward()
    for (name, a), b in zip(once.named_parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10, msg=name)
    states = once.state_dict(), repeated.state_dict()
    for name in states[0]:
        if name.endswith("running_mean"):
            torch.testing.assert_close(states[0][name], states[1][name])
        elif name.endswith("running_var"):  # unbiased over n or over 3 n values: n = 16 at least
            torch.testing.assert_close(states[0][name], states[1][name], rtol=1 / 15, atol=0)


def test_record_agrees_with_the_outputs_and_leaves_the_mode_alone(small) -> None:
    torch.manual_seed(1)
    network = Network(small(network={"architecture": BLOCKS}))
    x = 3 * torch.rand(6, 1, 8, 8)
    network(x)
    trace = network.record(x)
    assert network.training
    assert trace["lif1.s"].shape == trace["lif1.v"].shape == (6, 2, 4, 8, 8)
    assert set(trace["lif1.s"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(trace["lif1.s"] > 0, trace["lif1.v"] > 1.0)
    with torch.no_grad():
        outputs = network.eval()(x)
    torch.testing.assert_close(trace["readout.v"][:, -1] / 2, outputs.mean(dim=1))
    torch.testing.assert_close(trace["readout.v"][:, 0], outputs[:, 0])
    torch.testing.assert_close(network.predict(x), outputs.mean(dim=1))


def test_input_of_another_shape_is_refused(small) -> None:
    with pytest.raises(ReadError, match=r"has shape \[2, 1, 9, 9\]"):
        Network(small())(torch.zeros(2, 1, 9, 9))

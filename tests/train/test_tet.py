"""The losses: the closed gradient of the paper, and what reduces to what."""

from __future__ import annotations

import math

import pytest
import torch

from snncompile.train.methods.tet import sdt_loss, tet_loss

B, T, C = 5, 3, 4


@pytest.fixture
def outputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, T, C, dtype=torch.float64, generator=generator).requires_grad_()


LABELS = torch.tensor([0, 3, 1, 1, 2])


@pytest.mark.parametrize("mix", [0.0, 0.05, 1.0])
def test_gradient_is_the_closed_form(outputs: torch.Tensor, mix: float) -> None:
    phi = 1.0
    (found,) = torch.autograd.grad(tet_loss(outputs, LABELS, mix, phi), outputs)
    wanted = torch.nn.functional.one_hot(LABELS, C)[:, None].to(torch.float64)
    value = outputs.detach()
    expected = ((1 - mix) * (value.softmax(-1) - wanted) / T + 2 * mix * (value - phi) / (T * C)) / B
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_value_by_hand() -> None:
    outputs = torch.zeros(1, 2, 2)
    assert tet_loss(outputs, torch.tensor([1]), 0.25, 3.0).item() == pytest.approx(0.75 * math.log(2) + 0.25 * 9)


def test_one_step_of_both_is_the_same_and_tet_bounds_sdt(outputs: torch.Tensor) -> None:
    assert sdt_loss(outputs[:, :1], LABELS).item() == pytest.approx(tet_loss(outputs[:, :1], LABELS, 0.0, 1.0).item())
    assert sdt_loss(outputs, LABELS).item() <= tet_loss(outputs, LABELS, 0.0, 1.0).item()

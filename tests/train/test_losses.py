"""The losses: the closed gradient of the paper, and what reduces to what."""

from __future__ import annotations

import math

import pytest
import torch

from snncompile.train.losses import distillation_loss, sdt_loss, squared_loss, tet_loss

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


@pytest.mark.parametrize("seed", range(20))
def test_sdt_is_never_above_tet(seed: int) -> None:
    """Jensen: cross entropy is convex. (Lemma 4.1 is true; the step of its printed proof that softmax is convex is
    not.)"""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(64, 6, 10, dtype=torch.float64, generator=generator) * 4 ** (seed % 4)
    labels = torch.randint(10, (64,), generator=generator)
    for one, label in zip(values, labels, strict=True):
        below, above = sdt_loss(one[None], label[None]), tet_loss(one[None], label[None], 0.0, 1.0)
        assert below <= above * (1 + 1e-12)


def test_gradient_of_sdt_is_the_closed_form(outputs: torch.Tensor) -> None:
    (found,) = torch.autograd.grad(sdt_loss(outputs, LABELS), outputs)
    wanted = torch.nn.functional.one_hot(LABELS, C).to(torch.float64)
    expected = ((outputs.detach().mean(dim=1).softmax(-1) - wanted) / (T * B))[:, None].expand(B, T, C)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_gradient_of_the_squared_loss_is_the_closed_form(outputs: torch.Tensor) -> None:
    mean = outputs.mean(dim=1)
    (found,) = torch.autograd.grad(squared_loss(mean, LABELS), mean)
    expected = 2 * (mean.detach() - torch.nn.functional.one_hot(LABELS, C))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_of_distillation_is_the_closed_form(outputs: torch.Tensor, temperature: float) -> None:
    student = outputs.mean(dim=1)
    teacher = torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad(distillation_loss(student, teacher, temperature), student)
    difference = (student.detach() / temperature).softmax(1) - (teacher / temperature).softmax(1)
    torch.testing.assert_close(found, temperature * difference / B, rtol=1e-12, atol=1e-15)
    same = distillation_loss(teacher, teacher, temperature)
    assert same.item() == pytest.approx(0.0, abs=1e-14)

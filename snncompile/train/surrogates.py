"""Surrogates: what stands for ds/dv in the gradient. Each has the area 1 for every width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["triangle", "rectangle", "atan"]


def triangle(potential: Tensor, threshold: float, width: float, out: Tensor | None = None) -> Tensor:
    """The surrogate of TET, Eq. 5: ``max(0, width - |v - threshold|) / width^2``; its area is 1 for every width."""
    slope = torch.empty_like(potential) if out is None else out
    torch.sub(potential, threshold, out=slope)
    slope.abs_().neg_().add_(width)
    return slope.clamp_(min=0.0).mul_(1.0 / width**2)


def rectangle(potential: Tensor, threshold: float, width: float, out: Tensor | None = None) -> Tensor:
    """``1 / (2 width)`` where ``|v - threshold| < width`` (Wu et al. 2018; IDSNN with width 0.5)."""
    slope = torch.empty_like(potential) if out is None else out
    torch.sub(potential, threshold, out=slope)
    torch.lt(slope.abs_(), width, out=slope)
    return slope.mul_(0.5 / width)


def atan(potential: Tensor, threshold: float, width: float, out: Tensor | None = None) -> Tensor:
    """``1 / (width (1 + (pi (v - threshold) / width)^2))``: the ATan of Fang et al. 2021 with alpha = 2 / width."""
    slope = torch.empty_like(potential) if out is None else out
    torch.sub(potential, threshold, out=slope)
    return slope.mul_(math.pi / width).square_().add_(1.0).mul_(width).reciprocal_()


SURROGATES: dict[Surrogate, Callable[[Tensor, float, float, Tensor | None], Tensor]] = {
    "triangle": triangle,
    "rectangle": rectangle,
    "atan": atan,
}

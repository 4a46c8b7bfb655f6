"""Feedback weights of a restricted spectral norm, for networks that settle into an equilibrium (IDE)::

    W' = clamp(g, -1, 1) W / sigma,    sigma = u^T W v

with W as a matrix [out, in * kernel] and u, v from one step of power iteration per use in training. ``g`` starts at
sigma, so that W' starts as W where the norm of that matrix is below 1. For a convolution this is not the norm of the
operator: whether the network settles is measured, not assumed.

Source: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit Differentiation on the
Equilibrium State", NeurIPS 2021, and the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

START = 15
"""Steps of power iteration before the first use."""


class _Restriction(nn.Module):
    """``g``, ``u`` and ``v`` of a weight, and the weight that they make of it."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        if matrix.is_meta:
            start = matrix.new_empty(matrix.shape[0]), matrix.new_empty(matrix.shape[1])
            self.g = nn.Parameter(matrix.new_empty(()))
        else:
            start = functional.normalize(torch.randn(matrix.shape[0]), dim=0), torch.zeros(matrix.shape[1])
        self.register_buffer("u", start[0])
        self.register_buffer("v", start[1])
        if not matrix.is_meta:
            for _ in range(START):
                self.iterate(weight)
            self.g = nn.Parameter(self.sigma(weight).detach().clone())

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One step of power iteration."""
        matrix = weight.detach().flatten(1)
        self.v.copy_(functional.normalize(matrix.t() @ self.u, dim=0))
        self.u.copy_(functional.normalize(matrix @ self.v, dim=0))

    def sigma(self, weight: Tensor) -> Tensor:
        """The estimate of the largest singular value; the gradient goes through the weight alone."""
        value: Tensor = self.u.clone() @ weight.flatten(1) @ self.v.clone()
        return value

    def forward(self, weight: Tensor) -> Tensor:
        restricted: Tensor = self.g.clamp(-1.0, 1.0) * weight / self.sigma(weight)
        return restricted


def _unit_rows(weight: Tensor) -> None:
    """Uniform in [-1, 1], then every row of unit norm: the start of the authors' code."""
    with torch.no_grad():
        weight.uniform_(-1.0, 1.0)
        weight.div_(weight.flatten(1).norm(dim=1).reshape(-1, *(1,) * (weight.dim() - 1)))


class RestrictedConv2d(nn.Conv2d):
    """A convolution without bias whose weight is restricted; ``frozen()`` is the weight in use."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, *, restrict: bool = True) -> None:
        super().__init__(channels, out, kernel, stride, kernel // 2, bias=False)
        _unit_rows(self.weight)
        self.restriction = _Restriction(self.weight) if restrict else None

    def iterate(self) -> None:
        """One step of power iteration: once before every step of the optimiser."""
        if self.restriction is not None:
            self.restriction.iterate(self.weight)

    def in_use(self) -> Tensor:
        """The restricted weight, with a gradient."""
        return self.weight if self.restriction is None else self.restriction(self.weight)

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """The restricted weight as it stands: what is exported."""
        return self.in_use().detach()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.in_use(), None)


class RestrictedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution without bias whose weight [in, out, *kernel] is restricted, of twice the size by stride
    2.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 2, *, restrict: bool = True) -> None:
        super().__init__(channels, out, kernel, stride, kernel // 2, output_padding=stride - 1, bias=False)
        _unit_rows(self.weight)
        self.restriction = _Restriction(self.weight) if restrict else None

    def iterate(self) -> None:
        """One step of power iteration: once before every step of the optimiser."""
        if self.restriction is not None:
            self.restriction.iterate(self.weight)

    def in_use(self) -> Tensor:
        """The restricted weight, with a gradient."""
        return self.weight if self.restriction is None else self.restriction(self.weight)

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """The restricted weight as it stands: what is exported."""
        return self.in_use().detach()

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return functional.conv_transpose2d(
            x,
            self.in_use(),
            None,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,  # type: ignore[arg-type]
        )


class RestrictedLinear(nn.Linear):
    """A full connection without bias whose weight is restricted."""

    def __init__(self, features: int, out: int, *, restrict: bool = True) -> None:
        super().__init__(features, out, bias=False)
        _unit_rows(self.weight)
        self.restriction = _Restriction(self.weight) if restrict else None

    def iterate(self) -> None:
        """One step of power iteration: once before every step of the optimiser."""
        if self.restriction is not None:
            self.restriction.iterate(self.weight)

    def in_use(self) -> Tensor:
        """The restricted weight, with a gradient."""
        return self.weight if self.restriction is None else self.restriction(self.weight)

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """The restricted weight as it stands: what is exported."""
        return self.in_use().detach()

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.in_use())


Restricted = RestrictedConv2d | RestrictedConvTranspose2d | RestrictedLinear
RESTRICTED = (RestrictedConv2d, RestrictedConvTranspose2d, RestrictedLinear)

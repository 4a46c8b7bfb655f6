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
        with torch.autocast(weight.device.type, enabled=False):  # a parameter, whatever its products are computed in
            value: Tensor = self.u.clone() @ weight.flatten(1) @ self.v.clone()
        return value

    def forward(self, weight: Tensor) -> Tensor:
        restricted: Tensor = self.g.clamp(-1.0, 1.0) * weight / self.sigma(weight)
        return restricted


class _HasRestriction(nn.Module):
    """What the three share: ``weight`` is what is trained, ``frozen()`` the weight in use."""

    weight: Tensor
    restriction: _Restriction | None

    def begin(self, restrict: bool) -> None:
        """Initial values, uniform in [-1, 1] with rows of unit norm (the authors' code), and the restriction."""
        with torch.no_grad():
            self.weight.uniform_(-1.0, 1.0)
            self.weight.div_(self.weight.flatten(1).norm(dim=1).reshape(-1, *(1,) * (self.weight.dim() - 1)))
        self.restriction = _Restriction(self.weight) if restrict else None

    def iterate(self) -> None:
        """One step of power iteration: once before every step of the optimiser."""
        if self.restriction is not None:
            self.restriction.iterate(self.weight)

    def in_use(self) -> Tensor:
        """The restricted weight, with a gradient."""
        if self.restriction is None:
            return self.weight
        restricted: Tensor = self.restriction(self.weight)
        return restricted

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """The restricted weight as it stands: what is exported."""
        return self.in_use().detach()


class RestrictedConv2d(_HasRestriction, nn.Conv2d):
    """A convolution without bias whose weight is restricted."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, *, restrict: bool = True) -> None:
        nn.Conv2d.__init__(self, channels, out, kernel, stride, kernel // 2, bias=False)
        self.begin(restrict)

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self._conv_forward(x, self.in_use(), None)
        return given


class RestrictedConvTranspose2d(_HasRestriction, nn.ConvTranspose2d):
    """A transposed convolution without bias whose weight [in, out, *kernel] is restricted; ``stride`` times the
    size."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 2, *, restrict: bool = True) -> None:
        nn.ConvTranspose2d.__init__(self, channels, out, kernel, stride, kernel // 2, stride - 1, bias=False)
        self.begin(restrict)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        padding, more = _pair(self.padding), _pair(self.output_padding)
        return functional.conv_transpose2d(x, self.in_use(), None, _pair(self.stride), padding, more)


class RestrictedLinear(_HasRestriction, nn.Linear):
    """A full connection without bias whose weight is restricted."""

    def __init__(self, features: int, out: int, *, restrict: bool = True) -> None:
        nn.Linear.__init__(self, features, out, bias=False)
        self.begin(restrict)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.in_use())


def _pair(values: object) -> tuple[int, int]:
    assert isinstance(values, tuple)
    return (int(values[0]), int(values[1]))


Restricted = RestrictedConv2d | RestrictedConvTranspose2d | RestrictedLinear
RESTRICTED = (RestrictedConv2d, RestrictedConvTranspose2d, RestrictedLinear)

"""The LIF neuron of TET in torch, with its surrogate gradient."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn


def triangle(distance: Tensor, width: float) -> Tensor:
    """The surrogate of TET, Eq. 5: ``max(0, width - |v - threshold|) / width^2``; its area is 1 for every width."""
    return distance.abs().neg_().add_(width).clamp_(min=0.0).mul_(1.0 / width**2)


class _Integrate(torch.autograd.Function):
    """All steps of a LIF population at once, with the exact chain rule written out.

    Forward, for x [T, ...]: ``v[t] = decay w[t-1] + x[t]``, ``s[t] = v[t] > threshold``, ``w[t] = v[t] (1 - s[t])``.
    Backward, G being the surrogate at v[t]: ``dv[t] = ds[t] G + decay dv[t+1] (1 - s[t] - v[t] G)``; a detached reset
    lacks the term ``v[t] G``. ``dx[t] = dv[t]``. One function for the whole loop keeps one tensor (v) instead of six.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, neuron: LIF) -> tuple[Tensor, Tensor]:
        potentials = torch.empty_like(x)
        spikes = torch.empty_like(x)
        rest: Tensor | None = None
        for t in range(x.shape[0]):
            if rest is None:
                potentials[t].copy_(x[t])
            else:
                torch.add(x[t], rest, alpha=neuron.decay, out=potentials[t])
            spikes[t].copy_(neuron.fired(potentials[t]))
            rest = potentials[t] * (1.0 - spikes[t])
        ctx.save_for_backward(potentials, spikes)
        ctx.neuron = neuron
        ctx.mark_non_differentiable(potentials)
        ctx.set_materialize_grads(False)
        return spikes, potentials

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        upstream = grads[0]
        if upstream is None:
            return None, None
        potentials, spikes = ctx.saved_tensors
        neuron: LIF = ctx.neuron
        result = torch.empty_like(potentials)
        later: Tensor | None = None
        for t in reversed(range(potentials.shape[0])):
            slope = triangle(potentials[t] - neuron.threshold, neuron.width)
            torch.mul(upstream[t], slope, out=result[t])
            if later is not None:
                kept = 1.0 - spikes[t]
                if not neuron.detach_reset:
                    kept.addcmul_(potentials[t], slope, value=-1.0)
                result[t].addcmul_(later, kept, value=neuron.decay)
            later = result[t]
        return result, None


class LIF(nn.Module):
    """Leaky integrate and fire with a hard reset to zero (TET, Eq. 1 to 3 and 5)::

        v[t] = decay w[t-1] + x[t],   s[t] = v[t] > threshold (or >=),   w[t] = v[t] (1 - s[t]),   w[-1] = 0

    By default the gradient passes through the reset, as in the authors' code (surrogate for ds/dv there too).
    """

    def __init__(
        self,
        decay: float = 0.5,
        threshold: float = 1.0,
        fires: Literal[">", ">="] = ">",
        width: float = 1.0,
        detach_reset: bool = False,
    ) -> None:
        super().__init__()
        self.decay, self.threshold, self.fires = decay, threshold, fires
        self.width, self.detach_reset = width, detach_reset

    def extra_repr(self) -> str:
        return f"decay={self.decay}, fires v {self.fires} {self.threshold}, width={self.width}"

    def fired(self, potential: Tensor) -> Tensor:
        """Which neurons fire at this potential."""
        return potential > self.threshold if self.fires == ">" else potential >= self.threshold

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T, ...] for input [T, ...]."""
        return self.integrate(x)[0]

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and potentials before the reset, both [T, ...]; the gradient goes through the spikes only."""
        spikes, potentials = _Integrate.apply(x, self)  # type: ignore[no-untyped-call]
        return spikes, potentials

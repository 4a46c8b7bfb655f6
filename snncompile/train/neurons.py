"""The LIF neuron of TET in torch, with its surrogate gradient."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

_ONE = torch.ones(())


def triangle(potential: Tensor, threshold: float, width: float, out: Tensor | None = None) -> Tensor:
    """The surrogate of TET, Eq. 5: ``max(0, width - |v - threshold|) / width^2``; its area is 1 for every width."""
    slope = torch.empty_like(potential) if out is None else out
    torch.sub(potential, threshold, out=slope)
    torch.sub(torch.tensor(width, dtype=slope.dtype), slope.abs_(), out=slope)
    return slope.clamp_(min=0.0).mul_(1.0 / width**2)


class _Integrate(torch.autograd.Function):
    """All steps of a LIF population at once, with the exact chain rule written out.

    Forward, for x [T, ...]: ``v[t] = decay w[t-1] + x[t]``, ``s[t] = v[t] > threshold``, ``w[t] = v[t] (1 - s[t])``.
    Backward, G being the surrogate at v[t]: ``dv[t] = ds[t] G + decay dv[t+1] (1 - s[t] - v[t] G)``; a detached reset
    lacks the term ``v[t] G``. ``dx[t] = dv[t]``.

    Half of a training step on a CPU would be spent here, most of it on fresh memory. So one function does the whole
    loop, keeps v and s only, and writes into the same few buffers at every step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, neuron: LIF) -> tuple[Tensor, Tensor]:
        potentials, spikes = torch.empty_like(x), torch.empty_like(x)
        after = torch.empty_like(x[0])
        for t in range(x.shape[0]):
            v, s = potentials[t], spikes[t]
            if t == 0:
                v.copy_(x[0])
            else:
                torch.add(x[t], after, alpha=neuron.decay, out=v)
            neuron.fire(v, s)
            torch.mul(v, s, out=after)
            torch.sub(v, after, out=after)
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
        slope, kept = torch.empty_like(potentials[0]), torch.empty_like(potentials[0])
        last = len(potentials) - 1
        for t in range(last, -1, -1):
            triangle(potentials[t], neuron.threshold, neuron.width, out=slope)
            torch.mul(upstream[t], slope, out=result[t])
            if t < last:
                torch.sub(_ONE, spikes[t], out=kept)
                if not neuron.detach_reset:
                    kept.addcmul_(potentials[t], slope, value=-1.0)
                result[t].addcmul_(result[t + 1], kept, value=neuron.decay)
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

    def fire(self, potential: Tensor, out: Tensor) -> None:
        """Writes 1 where a neuron fires at this potential, else 0."""
        if self.fires == ">":
            torch.gt(potential, self.threshold, out=out)
        else:
            torch.ge(potential, self.threshold, out=out)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T, ...] for input [T, ...]."""
        return self.integrate(x)[0]

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and potentials before the reset, both [T, ...]; the gradient goes through the spikes only."""
        spikes, potentials = _Integrate.apply(x, self)  # type: ignore[no-untyped-call]
        return spikes, potentials

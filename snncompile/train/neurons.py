"""Integrate and fire neurons in torch, all steps at once, with surrogate gradients."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from snncompile.train.fused import Constants, Fused
from snncompile.train.surrogates import SURROGATES, Surrogate, triangle

__all__ = ["Spiking", "triangle", "whole"]

_ONE = torch.ones(())


class _Integrate(torch.autograd.Function):
    """All steps of a population at once, with the exact chain rule written out.

    Forward, for x [T, ...]: the equations of ``Spiking``. Backward, G being the surrogate at v[t], and the derivative
    of the reset ``k[t] = 1 - s[t] - v[t] G`` (to zero) or ``1 - amount G`` (by an amount)::

        dv[t] = amplitude dy[t] G + decay dv[t+1] k[t],   dx[t] = gain dv[t]

    A detached reset lacks the term with G.

    Half of a training step on a CPU would be spent here, most of it on fresh memory. So one function does the whole
    loop, keeps v and s only, and writes into the same few buffers at every step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor]:
        spikes, potentials = neuron.simulate(x)
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
        neuron: Spiking = ctx.neuron
        result = torch.empty_like(potentials)
        slope, kept = torch.empty_like(potentials[0]), torch.empty_like(potentials[0])
        last = len(potentials) - 1
        for t in range(last, -1, -1):
            SURROGATES[neuron.surrogate](potentials[t], neuron.threshold, neuron.width, slope)
            torch.mul(upstream[t], slope, out=result[t])
            if t < last:
                neuron.kept(potentials[t], spikes[t], slope, kept)
                result[t].addcmul_(result[t + 1], kept, value=neuron.decay)
        return (result if neuron.gain == 1.0 else result.mul_(neuron.gain)), None


class Spiking(nn.Module):
    """A population of integrate and fire neurons::

        v[t] = decay w[t-1] + gain x[t]                     potential before the reset
        s[t] = v[t] > threshold                             or >=, where ``fires`` says so
        w[t] = v[t] (1 - s[t])   or   v[t] - amount s[t]    reset to ``zero``, or ``subtract``
        y[t] = amplitude s[t],   w[-1] = initial

    With decay 1 it is IF, below 1 LIF. ``amount`` is the threshold where nothing else is said. By default the gradient
    passes through the reset, as in the authors' code of TET (surrogate for ds/dv there too).
    """

    def __init__(
        self,
        decay: float = 0.5,
        threshold: float = 1.0,
        fires: Literal[">", ">="] = ">",
        width: float = 1.0,
        detach_reset: bool = False,
        *,
        reset: Literal["zero", "subtract"] = "zero",
        surrogate: Surrogate = "triangle",
        gain: float = 1.0,
        amount: float | None = None,
        amplitude: float = 1.0,
        initial: float = 0.0,
    ) -> None:
        super().__init__()
        self._threshold, self._amount, self._amplitude = threshold, threshold if amount is None else amount, amplitude
        self.decay, self.fires, self.reset, self.gain, self.initial = decay, fires, reset, gain, initial
        self.surrogate, self.width, self.detach_reset = surrogate, width, detach_reset
        self.compiled = False
        """Whether all steps at once run as compiled kernels (``fused``)."""

    @property
    def threshold(self) -> float:
        """The potential at which a neuron fires."""
        return self._threshold

    @property
    def amount(self) -> float:
        """What a soft reset takes off."""
        return self._amount

    @property
    def amplitude(self) -> float:
        """What a spike is worth to its receivers."""
        return self._amplitude

    def extra_repr(self) -> str:
        return f"decay={self.decay}, fires v {self.fires} {self.threshold}, reset {self.reset}, width={self.width}"

    def fire(self, potential: Tensor, out: Tensor) -> None:
        """Writes 1 where a neuron fires at this potential, else 0."""
        if self.fires == ">":
            torch.gt(potential, self.threshold, out=out)
        else:
            torch.ge(potential, self.threshold, out=out)

    def forward(self, x: Tensor) -> Tensor:
        """What is sent [T, ...] for input [T, ...]: spikes times the amplitude."""
        return self.integrate(x)[0]

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is sent and the potentials before the reset, both [T, ...]; the gradient goes through what is sent."""
        if self.compiled:
            spikes, potentials = Fused.apply(x, self.constants)  # type: ignore[no-untyped-call]
        else:
            spikes, potentials = _Integrate.apply(whole(x), self)  # type: ignore[no-untyped-call]
        return (spikes if self.amplitude == 1.0 else spikes * self.amplitude), potentials

    @property
    def constants(self) -> Constants:
        """What the compiled kernels are made for."""
        reaches, subtracts = self.fires == ">=", self.reset == "subtract"
        numbers = (self.decay, self.gain, self.initial, self.threshold, self.amount)
        return Constants(*numbers, reaches, subtracts, self.surrogate, self.width, self.detach_reset)

    @torch.no_grad()
    def simulate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Bare spikes and potentials before the reset, [T, ...], without a gradient."""
        potentials, spikes = torch.empty_like(x), torch.empty_like(x)
        rest = torch.empty_like(x[0])
        for t in range(x.shape[0]):
            self.advance(x[t], rest if t else None, potentials[t], spikes[t], rest)
        return spikes, potentials

    @torch.no_grad()
    def step(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """One step for [B, ...] without a gradient: what is sent, the potential before and behind the reset."""
        x = whole(x)
        s, v, after = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        self.advance(x, before, v, s, after)
        return (s if self.amplitude == 1.0 else s * self.amplitude), v, after

    @torch.no_grad()
    def advance(self, x: Tensor, before: Tensor | None, v: Tensor, s: Tensor, after: Tensor) -> None:
        """One step, written into v (before the reset), s and ``after`` (behind it, may be ``before``); None: at
        rest."""
        arriving = x if self.gain == 1.0 else torch.mul(x, self.gain, out=v)
        if before is not None:
            torch.add(arriving, before, alpha=self.decay, out=v)
        else:
            torch.add(arriving, self.decay * self.initial, out=v)
        self.fire(v, s)
        if self.reset == "subtract":
            torch.sub(v, s, alpha=self.amount, out=after)
        else:
            torch.mul(v, s, out=after)
            torch.sub(v, after, out=after)

    def kept(self, v: Tensor, s: Tensor, slope: Tensor, out: Tensor) -> None:
        """How what is left after the reset depends on the potential, written into ``out``."""
        if self.reset == "subtract":
            out.fill_(1.0)
            if not self.detach_reset:
                out.sub_(slope, alpha=self.amount)
            return
        torch.sub(_ONE, s, out=out)
        if not self.detach_reset:
            out.addcmul_(v, slope, value=-1.0)


def whole(x: Tensor) -> Tensor:
    """Currents in float32 where products were computed in half the bits: potentials add up over many steps."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

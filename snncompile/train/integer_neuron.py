"""A population in a machine's integers, in torch: exact forward, straight-through and surrogate gradients behind it.

The integers are held in floating point. That is exact, and proven for each population before each pass: every value
on the way, the products of decays included, is an integer (or an integer over a power of two) below 2^24 in magnitude,
else the population computes in float64, which holds them below 2^53.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from snncompile.fixed import Integers
from snncompile.target import Target

FLOAT32_HOLDS = 2.0**24
"""float32 holds every integer up to this magnitude."""

_Returned = tuple[Tensor, Tensor, Tensor | None, Tensor]


@dataclass(frozen=True)
class Parameters:
    """What a population's neurons do, in the machine's integers: potentials on its grid, decays in its steps."""

    alpha: Integers
    beta: Integers
    threshold: Integers
    reset: Integers
    initial: Integers
    fires: Literal[">", ">="] = ">"
    soft: bool = False


class Cell:
    """A population's arithmetic for one pass: its constants in the type that holds every value, and what can happen.

    With ``F`` the potential's fraction bits, ``D`` the bits of a decay, for the sum ``x`` of what arrives::

        u[t] = wrap(decay(u[t-1], alpha) + 2^F x[t])            skipped where the worst case cannot reach it
        v[t] = saturate(decay(w[t-1], beta) + u[t] + bias)      likewise
        s[t] = v[t] > threshold
        w[t] = reset where s[t], else v[t]                      soft: v[t] - s[t] reset
        decay(z, a) = trunc(z (2^D - a) / 2^D)                  or floor, as the sheet says

    ``arriving`` and ``bias`` are the largest magnitudes of x (weight units) and of the bias (on the grid) over all
    inputs. ``width`` is that of the surrogate, in thresholds; ``detach``: no gradient through the reset.
    """

    def __init__(
        self,
        own: Parameters,
        target: Target,
        steps: int,
        arriving: float,
        bias: float,
        *,
        width: float = 1.0,
        detach: bool = False,
    ) -> None:
        self.own, self.target, self.detach = own, target, detach
        self.floor = target.decay.rounding != "toward-zero"
        self.scale = 2.0**target.potential.fraction_bits
        whole = 2**target.decay.bits
        self.has_current = bool((own.alpha != whole).any())
        self.has_leak = bool((own.beta != 0).any())
        self.has_initial = bool(own.initial.any())
        exact = self._prove(steps, arriving * self.scale, bias)
        self.dtype = torch.float32 if exact else torch.float64

        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(values).to(self.dtype)

        self.kept_current = tensor((whole - own.alpha) / whole)
        self.kept = tensor((whole - own.beta) / whole)
        self.threshold, self.reset, self.initial = tensor(own.threshold), tensor(own.reset), tensor(own.initial)
        self.width = width * torch.clamp(self.threshold, min=self.scale)

    def _prove(self, steps: int, arriving: float, bias: float) -> bool:
        """Whether float32 is exact; sets whether the current and the potential can leave their ranges."""
        own, sheet, whole = self.own, self.target, 2**self.target.decay.bits
        slack = 1.0 if self.floor else 0.0  # rounding down makes negative values larger in magnitude
        top_u, top_v = 2.0 ** (sheet.current.bits - 1), 2.0 ** (sheet.potential.bits - 1) - 1
        free = min(float(steps), whole / max(1, int(own.alpha.min()))) * (arriving + slack)
        self.current_leaves = free > top_u - 1
        # one wrap brings back what is one turn away at most; what arrives beyond that stays outside
        once = sheet.current.overflow == "saturate" or arriving + slack <= 2 * top_u
        settled = top_u if self.current_leaves and once else free
        added = settled + bias + abs(own.reset).max() + slack
        lasting = min(float(steps), whole / max(1, int(own.beta.min())))
        free = float(abs(own.initial).max()) + lasting * added
        self.potential_leaves = free > top_v
        # one wrap may leave a value outside: only saturation is a bound of its own
        held = min(free, top_v + float(abs(own.reset).max())) if sheet.potential.overflow == "saturate" else free
        before_bias = held + settled
        peak = before_bias if sheet.potential.overflow == "saturate" else before_bias + bias
        decayed = max(held * _odd(whole - own.beta), settled * _odd(whole - own.alpha) if self.has_current else 0.0)
        return bool(
            max(peak, decayed, settled + arriving, 2 * top_v if self.potential_leaves else 0.0) <= FLOAT32_HOLDS
        )

    def decay(self, values: Tensor, kept: Tensor) -> Tensor:
        """``values kept`` without the fraction that the machine drops."""
        product = values * kept
        return product.floor_() if self.floor else product.trunc_()

    def fire(self, v: Tensor, out: Tensor) -> None:
        """Write 1 where a potential fires, else 0."""
        if self.own.fires == ">":
            torch.gt(v, self.threshold, out=out)
        else:
            torch.ge(v, self.threshold, out=out)

    def slope(self, v: Tensor) -> Tensor:
        """The surrogate of TET, Eq. 5, on the grid: ``max(0, g - |v - threshold|) / g^2``, g the width."""
        return torch.clamp(self.width - (v - self.threshold).abs_(), min=0.0) / self.width**2

    def integrate(self, x: Tensor, bias: Tensor, state: tuple[Tensor | None, Tensor | None]) -> _Returned:
        """Spikes and potentials before the reset [T, B, ...], then u (None where there is no current) and w after the
        last step, for x [T, B, ...] in weight units; ``state`` is u and w before the first (None: at rest).
        """
        returned: _Returned = _Integrate.apply(x, bias, *state, self)  # type: ignore[no-untyped-call]
        return returned


def leave(values: Tensor, bits: int, rule: str) -> Tensor:
    """A sheet's overflow rule in place, as ``fixed.overflow``: one wrap into (-M, M], or symmetric saturation."""
    top = 2.0 ** (bits - 1)
    if rule == "wrap":
        over, under = values > top, values <= -top
        return values.sub_(over * (2 * top)).add_(under * (2 * top))
    return values.clamp_(-(top - 1), top - 1)


def _odd(kept: Integers) -> int:
    """The largest odd part of some integers: what a product with them, over a power of two, needs bits for."""
    numbers = [int(value) for value in kept.ravel()]
    return max((value // (value & -value) for value in numbers if value), default=0)


class _Integrate(torch.autograd.Function):
    """All steps of a population at once, with the chain rule written out.

    G being the surrogate at v[t], and rounding, wrap and saturation passed straight through::

        dv[t] = (ds[t] + dw[t] dw/ds) G + dw[t] dw/dv       dw/ds = reset - v (soft: -reset; detached: 0)
        dw[t-1] = (1 - beta) dv[t]                          dw/dv = 1 - s (soft: 1)
        du[t] = dv[t] + (1 - alpha) du[t+1],   dx[t] = 2^F du[t],   dbias = sum of dv
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, u: Tensor | None, w: Tensor | None, cell: Cell) -> _Returned:
        v_all = torch.empty(x.shape, dtype=cell.dtype)
        s_all = torch.empty(x.shape, dtype=cell.dtype)
        kinds = (x.dtype, bias.dtype, bias.shape, u is not None, w is not None)
        bias = bias.to(cell.dtype)
        if w is None and cell.has_initial:
            w = cell.initial.expand(x.shape[1:])
        for t in range(x.shape[0]):
            v, s = v_all[t], s_all[t]
            torch.mul(x[t], cell.scale, out=v)
            if cell.has_current and u is not None:
                v.add_(cell.decay(u, cell.kept_current))
            if cell.current_leaves:
                leave(v, cell.target.current.bits, cell.target.current.overflow)
            if cell.has_current:
                u = v.clone()
            if w is not None:
                v.add_(cell.decay(w, cell.kept) if cell.has_leak else w)
            v.add_(bias)
            if cell.potential_leaves:
                leave(v, cell.target.potential.bits, cell.target.potential.overflow)
            cell.fire(v, s)
            w = v - s * cell.reset if cell.own.soft else v * (1.0 - s) + s * cell.reset
        ctx.save_for_backward(v_all, s_all)
        ctx.cell, ctx.kinds = cell, kinds
        ctx.mark_non_differentiable(v_all)
        ctx.set_materialize_grads(False)
        assert w is not None, "there is at least one step"
        return s_all, v_all, u, w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        upstream, _, du, dw = grads
        v_all, s_all = ctx.saved_tensors
        cell: Cell = ctx.cell
        x_type, bias_type, bias_shape, had_u, had_w = ctx.kinds
        dx, dbias = torch.empty_like(v_all), torch.zeros_like(v_all[0])
        for t in range(len(v_all) - 1, -1, -1):
            v, s = v_all[t], s_all[t]
            spike = None if upstream is None else upstream[t]
            if dw is not None and not cell.detach:
                through = dw * (-cell.reset if cell.own.soft else cell.reset - v)
                spike = through if spike is None else spike + through
            dv = torch.zeros_like(v) if spike is None else spike * cell.slope(v)
            if dw is not None:
                dv = dv + (dw if cell.own.soft else dw * (1.0 - s))
            dw = dv * cell.kept
            dbias += dv
            du = dv if du is None or not cell.has_current else dv + du
            torch.mul(du, cell.scale, out=dx[t])
            du = du * cell.kept_current if cell.has_current else None
        dbias = dbias.sum(0).sum_to_size(bias_shape).to(bias_type)
        return dx.to(x_type), dbias, du if had_u else None, dw if had_w else None, None

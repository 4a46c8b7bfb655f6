"""The neuron of DSR: spikes forward, one gradient for all steps backward.

Source: Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural Networks by
Differentiation on Spike Representation", CVPR 2022, and the authors' code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snncompile.recipe.methods import DsrSettings
from snncompile.train.neurons import Spiking, whole


def ages(decay: float, steps: int, like: Tensor) -> Tensor:
    """The weights of a weighted mean over the steps [T]: ``decay^(T-1-t) / sum``, most recent largest."""
    powers = torch.tensor([decay ** (steps - 1 - t) for t in range(steps)], dtype=torch.float64)
    return (powers / powers.sum()).to(like)


def mean_over_time(x: Tensor, decay: float) -> Tensor:
    """The (weighted) mean over the first axis of [T, ...], in the precision of x."""
    if decay == 1.0:
        return x.mean(dim=0)
    with torch.autocast(x.device.type, enabled=False):  # a product by name, but the sums of a neuron
        weighted: Tensor = torch.tensordot(ages(decay, len(x), x), x, dims=1)
    return weighted


class _Represent(torch.autograd.Function):
    """Forward, the simulated spikes times their amplitude; backward, the gradient of the map between means.

    IF, with ``m = mean_t x[t]`` and ``g = sum_t dL/dy[t]``: the map is ``clamp(m, 0, V)``, so ::

        dL/dx[t] = g / T  where 0 <= m <= V,      dL/dV = sum of g where m > V

    LIF, with weighted means and ``g = T mean_t(dL/dy)``: the map is ``clamp(k m, 0, V / dt)``, ``k`` its slope, so ::

        dL/dx[t] = k g / T  where 0 < k m < V / dt,      dL/dV = rate * sum of g where k m > V / dt

    with ``rate`` 1 / dt, or dt (a damping of the authors' code). ``DsrSettings`` names the other liberties of that code
    and what is exact in their place: ``g = sum_t dL/dy[t]``, and ``dL/dx[t]`` in proportion to the weight of step t.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, neuron: Represented) -> tuple[Tensor, Tensor]:
        spikes, potentials = neuron.simulate(x)
        ctx.save_for_backward(mean_over_time(x, neuron.decay))
        ctx.neuron, ctx.steps = neuron, len(x)
        ctx.mark_non_differentiable(potentials)
        ctx.set_materialize_grads(False)
        return spikes.mul_(neuron.amplitude), potentials

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        upstream = grads[0]
        if upstream is None:
            return None, None, None
        (mean,) = ctx.saved_tensors
        neuron: Represented = ctx.neuron
        own, steps, ceiling = neuron.settings, ctx.steps, neuron.amplitude
        arriving = mean_over_time(upstream, neuron.decay if own.output_gradient == "code" else 1.0)
        if own.leaky:
            mapped = mean * neuron.slope
            inside = (mapped > 0.0) & (mapped < ceiling)
        else:
            mapped = mean
            inside = (mapped >= 0.0) & (mapped <= ceiling)
        above = (arriving * (mapped > ceiling)).sum() * steps
        each = arriving * inside if neuron.slope == 1.0 else arriving * inside * neuron.slope
        if own.leaky and own.weight_gradient == "exact":
            shares = ages(neuron.decay, steps, each) * steps
            whole = shares.reshape(-1, *(1,) * each.dim()) * each
        else:
            whole = each.expand(steps, *each.shape)
        return whole, above.mul(neuron.threshold_slope).to(upstream.dtype), None


class Represented(Spiking):
    """Integrate and fire with a trained threshold V, one for the population, and soft reset by V::

        v[t] = decay v'[t-1] + (1 - decay) x[t]  (LIF),  v'[t-1] + x[t]  (IF)
        s[t] = v[t] >= alpha V,   v'[t] = v[t] - V s[t],   y[t] = V s[t]  (IF),  V s[t] / dt  (LIF)

    Its gradient is that of the map from the mean input to the mean output.
    """

    def __init__(self, settings: DsrSettings, threshold: float) -> None:
        decay = settings.decay
        super().__init__(decay, fires=">=", reset="subtract", gain=1.0 - decay if settings.leaky else 1.0)
        self.settings = settings
        self.scale = nn.Parameter(torch.tensor(float(threshold)))

    def extra_repr(self) -> str:
        return f"decay={self.decay}, alpha={self.settings.alpha}, threshold trained"

    @property
    def threshold(self) -> float:
        """``alpha V`` in the precision that it is compared in."""
        return float(self.scale.detach() * self.settings.alpha)

    @property
    def amount(self) -> float:
        return float(self.scale.detach())

    @property
    def amplitude(self) -> float:
        return float(self.scale.detach() / self.settings.time_step) if self.settings.leaky else self.amount

    @property
    def slope(self) -> float:
        """How the mean output grows with the mean input."""
        own = self.settings
        if not own.leaky:
            return 1.0
        return 1.0 / own.time_constant if own.map_gain == "code" else (1.0 - self.decay) / own.time_step

    @property
    def threshold_slope(self) -> float:
        """What multiplies the gradient of the threshold."""
        own = self.settings
        if not own.leaky:
            return own.threshold_rate
        return own.threshold_rate * (own.time_step if own.threshold_gradient == "damped" else 1.0 / own.time_step)

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sent, potentials = _Represent.apply(whole(x), self.scale, self)  # type: ignore[no-untyped-call]
        return sent, potentials

    @torch.no_grad()
    def keep_above_floor(self) -> None:
        """``V <- max(V - floor, 0) + floor``: after every step of the optimiser."""
        floor = self.settings.floor
        self.scale.sub_(floor).clamp_(min=0.0).add_(floor)

"""Weights and biases in a machine's integers, with the real numbers behind them that are trained.

``latent`` is a share of the machine's largest weight. Each pass rounds it to the sheet's grid and computes with the
integer alone; the gradient goes straight through the rounding (Bengio, Leonard, Courville: "Estimating or Propagating
Gradients Through Stochastic Neurons for Conditional Computation", 2013).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from snncompile.fixed import FixedPoint, Integers
from snncompile.ir.ops import Conv, Dense, Scale, Shape
from snncompile.ir.ops import Synapse as SynapseOp
from snncompile.target import Target


class _Straight(torch.autograd.Function):
    """``exact`` forward; backward as if it were ``slope latent``."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, exact: Tensor, slope: float) -> Tensor:
        ctx.slope, ctx.kind = slope, latent.dtype
        return exact

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return (grads[0] * ctx.slope).to(ctx.kind), None, None


def straight(latent: Tensor, exact: Tensor, slope: float) -> Tensor:
    """The straight-through estimator: ``exact``, with the gradient of ``slope latent``."""
    result: Tensor = _Straight.apply(latent, exact, slope)  # type: ignore[no-untyped-call]
    return result


class Synapse(nn.Module):
    """One synapse op. ``source``: the shape it works on; ``weight``: its integers, as the graph has them.

    Where a kernel repeats every weight in blocks, because a mean pool went into it, one number stands for the block and
    the source is summed over blocks first: the same integers, with the parameters and the work of the trained network.
    """

    def __init__(self, op: SynapseOp, weight: Integers, source: Shape, target: Target) -> None:
        super().__init__()
        self.op, self.source = op, source
        self.shape = weight.shape
        self.sheet = target.weight
        self.scale = float(max(-self.sheet.least, self.sheet.most))
        self.blocks = _blocks(op, weight, source)
        small = weight if isinstance(op, Scale) else _first_of_blocks(self._spread(weight), self.blocks)
        self.latent = nn.Parameter(torch.as_tensor(small / self.scale).to(torch.float32))

    def _spread(self, weight: Any) -> Any:
        """Weights with the axes of the source: [out, in, *size of the kernel]; a matrix is as wide as its source."""
        return weight.reshape(len(weight), *self.source) if isinstance(self.op, Dense) else weight

    def integers(self) -> Tensor:
        """The machine's weights as floats, one for each block."""
        sheet = self.sheet
        steps = torch.round(self.latent.detach() * (self.scale / sheet.step))
        return torch.clamp(steps, sheet.least / sheet.step, sheet.most / sheet.step) * sheet.step

    def forward(self) -> Tensor:
        """The machine's weights, with a gradient."""
        return straight(self.latent, self.integers(), self.scale)

    def number(self) -> FixedPoint:
        """The weights as the graph has them."""
        weight = self.integers().to(torch.int64).numpy()
        if not isinstance(self.op, Scale):
            for axis, block in enumerate(self.blocks):
                weight = np.repeat(weight, block, axis=2 + axis)
        return FixedPoint(weight.reshape(self.shape))

    @torch.no_grad()
    def worst(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """For every neuron the largest magnitude that inputs of 0 or 1 and of -1 to 1 can make."""
        if isinstance(self.op, Scale):
            size = weight.abs().reshape(-1)
            return size, size
        rows = weight.double().reshape(len(weight), -1)
        positive, negative = torch.clamp(rows, min=0).sum(1), torch.clamp(-rows, min=0).sum(1)
        each = prod(self.blocks)
        return torch.maximum(positive, negative) * each, (positive + negative) * each

    def apply_to(self, x: Tensor, weight: Tensor) -> Tensor:
        """What arrives behind the synapse, for source values [N, ...]."""
        op = self.op
        if isinstance(op, Scale):
            return x.reshape(-1, *self.source) * weight
        x = self._summed(x.reshape(-1, *self.source))
        source = self.source[1:]
        if isinstance(op, Conv) and op.spread:
            x, source = _apart(x, op.spread), tuple(n * step for n, step in zip(source, op.spread, strict=True))
        if isinstance(op, Dense):
            return x.flatten(1) @ weight.flatten(1).T
        stride = [step // block for step, block in zip(op.stride, self.blocks, strict=True)]
        padding = [pad // block for pad, block in zip(op.padding, self.blocks, strict=True)]
        convolve = functional.conv1d if weight.dim() == 3 else functional.conv2d
        y: Tensor = convolve(x, weight, None, stride, padding, op.dilation, op.groups)
        kept = tuple(
            slice((size + 2 * pad - (d * (taps - 1) + 1)) // step + 1)  # blocks at the rim may make one more
            for size, pad, d, taps, step in zip(source, op.padding, op.dilation, self.shape[2:], op.stride, strict=True)
        )
        return y[(slice(None), slice(None), *kept)]

    def _summed(self, x: Tensor) -> Tensor:
        """Sums over blocks; what lies outside is zero."""
        if prod(self.blocks) == 1:
            return x
        missing = [-size % block for size, block in zip(x.shape[2:], self.blocks, strict=True)]
        if any(missing):
            x = functional.pad(x, [entry for lack in reversed(missing) for entry in (0, lack)])
        if len(self.blocks) == 2:
            return functional.avg_pool2d(x, self.blocks, divisor_override=1)
        return x.reshape(*x.shape[:2], -1, self.blocks[0]).sum(3)


def _blocks(op: SynapseOp, weight: Integers, source: Shape) -> tuple[int, ...]:
    """The largest blocks, axis by axis, in which all weights are the same and which the geometry keeps whole."""
    if isinstance(op, Scale) or (isinstance(op, Dense) and len(source) == 1):
        return ()
    if isinstance(op, Conv) and op.spread:
        return (1,) * len(op.spread)
    spread = weight.reshape(len(weight), *source) if isinstance(op, Dense) else weight
    found: list[int] = []
    for axis, size in enumerate(spread.shape[2:]):
        whole = True if isinstance(op, Dense) else op.dilation[axis] == 1
        tried = [block for block in range(size, 1, -1) if size % block == 0] if whole and len(spread.shape) <= 4 else []
        if isinstance(op, Conv):
            tried = [block for block in tried if op.stride[axis] % block == 0 and op.padding[axis] % block == 0]
        lined = np.moveaxis(spread, 2 + axis, -1)
        for block in tried:
            parts = lined.reshape(*lined.shape[:-1], size // block, block)
            if (parts == parts[..., :1]).all():
                found.append(block)
                break
        else:
            found.append(1)
    return tuple(found)


def _apart(x: Tensor, spread: tuple[int, ...]) -> Tensor:
    """``linear.spread_out``, with a gradient."""
    for axis, step in enumerate(spread):
        x = torch.cat(
            [x.unsqueeze(3 + axis), x.new_zeros(*x.shape[: 3 + axis], step - 1, *x.shape[3 + axis :])], 3 + axis
        )
        x = x.flatten(2 + axis, 3 + axis)
    return x


def _first_of_blocks(weight: Integers, blocks: tuple[int, ...]) -> Integers:
    return weight[(slice(None), slice(None), *(slice(None, None, block) for block in blocks))] if blocks else weight


class Bias(nn.Module):
    """``mantissa 2^exponent`` on the potential's grid, the mantissa inside the sheet's range.

    ``latent`` has the scale of the weights': a bias is a weight from something that always fires.
    """

    def __init__(self, on_grid: Integers, exponent: int, target: Target) -> None:
        super().__init__()
        sheet, fraction = target.bias, target.potential.fraction_bits
        self.exponent = max(0, exponent)  # of the grid; what lies below the grid is dropped by the machine as well
        self.least, self.most, self.fraction = sheet.mantissa_least, sheet.mantissa_most, fraction
        self.scale = -target.weight.least * 2.0 ** (fraction - self.exponent)  # of a latent 1, in mantissas
        mantissa = on_grid >> self.exponent
        self.latent = nn.Parameter(torch.as_tensor(mantissa / self.scale).to(torch.float32))

    def mantissa(self) -> Tensor:
        """Integers, as floats."""
        return torch.clamp(torch.round(self.latent.detach() * self.scale), self.least, self.most)

    def forward(self) -> Tensor:
        """The bias on the potential's grid, with a gradient."""
        unit = 2.0**self.exponent
        return straight(self.latent, self.mantissa() * unit, self.scale * unit)

    def number(self) -> FixedPoint:
        """The bias as the graph has it."""
        return FixedPoint(self.mantissa().to(torch.int64).numpy(), self.exponent - self.fraction)

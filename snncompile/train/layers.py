"""Layers that only this package has: signals with time in the batch, the readout, dropout alike at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snncompile.train.neurons import whole


@dataclass
class Signal:
    """Values on the way: [T * B, ...] with the steps outermost, or [B, ...] while they are the same at every step."""

    value: Tensor
    steps: int
    static: bool

    def timed(self) -> Tensor:
        """[T, B, ...]; what is the same at every step is not copied."""
        if self.static:
            return self.value.expand(self.steps, *self.value.shape)
        return self.value.reshape(self.steps, -1, *self.value.shape[1:])

    @staticmethod
    def sum(arriving: Sequence[Signal]) -> Signal:
        """Signals into one place add, in their order."""
        first = arriving[0]
        if len(arriving) == 1:
            return first
        if all(signal.static for signal in arriving):
            return Signal(sum((signal.value for signal in arriving[1:]), first.value), first.steps, static=True)
        values = [signal.timed().flatten(0, 1) for signal in arriving]
        return Signal(sum(values[1:], values[0]), first.steps, static=False)


class Readout(nn.Module):
    """What the network says at the end of a sample, of outputs o [B, T, classes]::

    mean       sum_t o[t] / T
    weighted   a[T-1] / sum_t decay^(T-1-t),   a[t] = decay a[t-1] + o[t]
    """

    def __init__(self, kind: Literal["mean", "weighted"] = "mean", decay: float = 1.0) -> None:
        super().__init__()
        self.kind, self.decay = kind, decay if kind == "weighted" else 1.0

    def extra_repr(self) -> str:
        return f"{self.kind}, decay={self.decay}"

    def forward(self, outputs: Tensor) -> Tensor:
        outputs = whole(outputs)
        if self.kind == "mean":
            return outputs.mean(dim=1)
        ages = torch.arange(outputs.shape[1] - 1, -1, -1, dtype=outputs.dtype, device=outputs.device)
        weights = self.decay**ages
        return (outputs * weights[:, None]).sum(dim=1) / weights.sum()

    def sums(self, outputs: Tensor) -> Tensor:
        """a[t] at every step, [B, T, classes]."""
        if self.kind == "mean":
            return outputs.cumsum(dim=1)
        sums = [outputs[:, 0]]
        for t in range(1, outputs.shape[1]):
            sums.append(torch.add(outputs[:, t], sums[-1], alpha=self.decay))
        return torch.stack(sums, dim=1)


class SharedDropout(nn.Module):
    """Dropout whose choice is drawn once a sample and holds for all its steps. Nothing in eval mode.

    ``kept`` is the last choice: what is computed beside the steps (an equilibrium) uses the same.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.kept: Tensor | None = None

    def extra_repr(self) -> str:
        return f"{self.share}, the same at every step"

    def mask(self, one_step: Tensor) -> Tensor:
        """Draws a choice: 0 with probability ``share``, else 1 / (1 - share); of the shape of what one step sends."""
        self.kept = torch.empty_like(one_step).bernoulli_(1.0 - self.share).div_(1.0 - self.share)
        return self.kept

    def on(self, signal: Signal) -> Signal:
        """The signal with the same places dropped at every step."""
        if not self.training:
            return signal
        timed = signal.timed()
        return Signal((timed * self.mask(timed[0])).flatten(0, 1), signal.steps, static=False)

    def forward(self, x: Tensor) -> Tensor:
        """Values of one step, or means over all, with the last choice."""
        return x * self.kept if self.training and self.kept is not None else x


class Repeat(nn.Module):
    """One place [.., C, 1, 1] as ``size`` equal ones: what adaptive average pooling makes of a map of one place."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(*x.shape[:-2], *self.size)

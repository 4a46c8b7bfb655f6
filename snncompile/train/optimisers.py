"""Optimisers, schedules of the learning rate, and half precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from snncompile.recipe import TrainingSettings

CPU = torch.device("cpu")
_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def optimiser_of(training: TrainingSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum; ``weight_decay`` is added to the gradient (L2), as the papers' codes do."""
    rate, decay = training.learning_rate, training.weight_decay
    match training.optimiser:
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=training.momentum, weight_decay=decay)


def scheduled_rate(training: TrainingSettings, step: int, batches: int, total: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``total``, in epochs of ``batches`` steps::

        constant   r
        cosine     r (1 + cos(pi step / total)) / 2, which ends at 0
        steps      r factor^k, k: how many of the epochs ``milestones`` are over

    In the first ``warm_up`` steps it is multiplied by ``(step + 1) / warm_up``.
    """
    rate = training.learning_rate
    match training.schedule:
        case "constant":
            pass
        case "cosine":
            rate = rate * 0.5 * (1.0 + math.cos(math.pi * step / total))
        case "steps":
            rate = rate * training.factor ** sum(step // batches >= epoch for epoch in training.milestones)
    return rate * min(1.0, (step + 1) / training.warm_up) if training.warm_up else rate


class Precision:
    """What the forward pass computes in: ``float32``, or convolutions and products in half the bits (torch's autocast).

    With ``float16`` the loss is scaled, so that small gradients are not rounded to zero.
    """

    def __init__(self, name: str, device: torch.device = CPU) -> None:
        self.kind, self.device = _HALF.get(name), device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")

    def forward(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.kind or torch.bfloat16, enabled=self.kind is not None)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradient is taken."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """The step of the optimiser; left out where a scaled gradient overflowed."""
        self.scaler.step(optimiser)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """What a resume file holds."""
        return dict(self.scaler.state_dict())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` gave."""
        if state:
            self.scaler.load_state_dict(dict(state))

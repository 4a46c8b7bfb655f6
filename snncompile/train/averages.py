"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from snncompile.train.course import Trainee


class Average:
    """``a <- decay a + (1 - decay) w`` after every step of the optimiser, from the weights before the first; 0: none.

    What is no real (a count of batches) is taken as it is. Statistics of batch norm are averaged like weights.
    """

    def __init__(self, decay: float, network: Trainee) -> None:
        self.decay = decay
        self.averaged: dict[str, Tensor] = {}
        if decay:
            self.averaged = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: Trainee) -> None:
        """Take the weights of a step in."""
        if not self.decay:
            return
        for name, value in network.state_dict().items():
            own = self.averaged[name]
            if own.is_floating_point():
                own.mul_(self.decay).add_(value, alpha=1.0 - self.decay)
            else:
                own.copy_(value)

    @contextmanager
    def in_force(self, network: Trainee) -> Iterator[None]:
        """The network with the averaged weights, until the block ends."""
        if not self.decay:
            yield
            return
        kept = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.averaged)
        try:
            yield
        finally:
            network.load_state_dict(kept)

    def state(self) -> dict[str, Tensor]:
        """What a resume file holds."""
        return self.averaged

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` gave. Raises KeyError, ValueError where it is of another network."""
        if set(state) != set(self.averaged):
            raise ValueError("the averaged weights are of another network")
        for name, own in self.averaged.items():
            if state[name].shape != own.shape:
                raise ValueError(f"the averaged weights {name!r} have another shape")
            if state[name].layout is not torch.strided or not torch.isfinite(state[name]).all():
                raise ValueError(f"the averaged weights {name!r} hold what they cannot")
            own.copy_(state[name])

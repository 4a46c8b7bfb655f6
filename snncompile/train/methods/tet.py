"""TET with its baseline SDT, and TIT: backpropagation through time.

Source: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting", ICLR
2022, and the authors' code.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from snncompile.recipe import TrainingSettings
from snncompile.recipe.methods import TetSettings
from snncompile.train.course import Course, right
from snncompile.train.losses import sdt_loss, tet_loss
from snncompile.train.networks import Network
from snncompile.train.neurons import whole
from snncompile.train.optimisers import optimiser_of, scheduled_rate


class Tet(Course):
    """The loss at every step, or of the mean (SDT).

    With a table ``tit`` the training has two stages: the recipe's own with ``tet.steps``, and then, with the weights
    and batch statistics that it left, ``tit.epochs`` more with ``tit.steps`` and an optimiser of its own (time
    inheritance training). No parameter depends on the number of steps.
    """

    network: Network
    later = False
    """Whether the second stage has begun."""

    @property
    def settings(self) -> TetSettings:
        """The method's table."""
        assert isinstance(self.recipe.settings, TetSettings)
        return self.recipe.settings

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        own = self.settings
        with self.precision.forward():
            outputs = self.network(x)
            judged = whole(outputs)
            loss = sdt_loss(judged, labels) if own.loss == "sdt" else tet_loss(judged, labels, own.mix, own.phi)
        self.descend(loss)
        return float(loss.detach()), right(outputs.mean(dim=1), labels)

    @property
    def steps(self) -> int:
        return self.recipe.steps if self.later else self.settings.steps

    @property
    def total_epochs(self) -> int:
        return self.recipe.training.epochs + (self.settings.tit.epochs if self.settings.tit else 0)

    @property
    def training(self) -> TrainingSettings:
        first, tit = self.recipe.training, self.settings.tit
        if tit is None or not self.later:
            return first
        momentum = 0.9 if tit.optimiser == "sgd" else 0.0
        return replace(
            first, epochs=tit.epochs, learning_rate=tit.learning_rate, optimiser=tit.optimiser, momentum=momentum
        )

    def begin_epoch(self, epoch: int) -> None:
        later = self.settings.tit is not None and epoch >= self.recipe.training.epochs
        if later != self.later:
            self.later = later
            self.optimiser = optimiser_of(self.training, self.network.parameters())
        self.network.steps = self.steps

    def learning_rate(self, step: int, batches: int) -> float:
        before = self.recipe.training.epochs if self.later else 0
        done = (self.epoch - before) * batches + step
        return scheduled_rate(self.training, done, batches, self.training.epochs * batches)

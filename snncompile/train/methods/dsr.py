"""DSR: spikes forward, the gradient of their means backward (``snncompile/train/representation.py``)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from snncompile.train.course import Course, right
from snncompile.train.networks import Network
from snncompile.train.neurons import whole
from snncompile.train.representation import Represented


class Dsr(Course):
    """Cross entropy of the (weighted) mean of what the output neurons send; thresholds stay above their floor."""

    network: Network

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        with self.precision.forward():
            output = self.network.predict(x)
            loss = functional.cross_entropy(whole(output), labels)
        self.descend(loss)
        self.after_step()
        return float(loss.detach()), right(output, labels)

    def after_step(self) -> None:
        for module in self.network.modules():
            if isinstance(module, Represented):
                module.keep_above_floor()

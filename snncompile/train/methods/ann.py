"""An ordinary network of rectifiers: the teacher of IDSNN."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from snncompile.train.course import Course, right
from snncompile.train.networks import Network
from snncompile.train.neurons import whole


class Ann(Course):
    """Cross entropy of the answer."""

    network: Network

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        with self.precision.forward():
            output = self.network.predict(x)
            loss = functional.cross_entropy(whole(output), labels)
        self.descend(loss)
        return float(loss.detach()), right(output, labels)

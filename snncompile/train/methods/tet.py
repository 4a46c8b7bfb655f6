"""TET, its losses and its training: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural Network via
Gradient Re-weighting", ICLR 2022."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from snncompile.recipe.methods import TetSettings
from snncompile.train.course import Course, right


def tet_loss(outputs: Tensor, labels: Tensor, mix: float, phi: float) -> Tensor:
    """TET, Eq. 9 to 13, for outputs O [B, T, C] and labels y [B]::

        L = (1 - mix) mean_t CE(O(t), y) + mix mean_t MSE(O(t), phi)

    Its gradient is ``((1 - mix) (softmax(O(t)) - y) / T + 2 mix (O(t) - phi) / (T C)) / B``. ``mix`` is the paper's
    lambda.
    """
    steps = outputs.shape[1]
    each_step = functional.cross_entropy(outputs.flatten(0, 1), labels.repeat_interleave(steps))
    if mix == 0.0:
        return each_step
    return (1.0 - mix) * each_step + mix * (outputs - phi).square().mean()


def sdt_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Standard direct training, TET Eq. 7: the cross entropy of the mean output, ``CE(mean_t O(t), y)``."""
    return functional.cross_entropy(outputs.mean(dim=1), labels)


class TetCourse(Course):
    """Backpropagation through time of the TET loss."""

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        settings = self.recipe.settings
        assert isinstance(settings, TetSettings)
        with self.precision.forward():
            outputs = self.network(x)
            loss = tet_loss(outputs.float(), labels, settings.mix, settings.phi)
        self.descend(loss)
        return float(loss.detach()), right(outputs.mean(dim=1), labels)

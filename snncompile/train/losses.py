"""The losses of the methods, each with its gradient in closed form.

Sources: TET: Deng, Li, Zhang, Gu, "Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting",
ICLR 2022. ASF: Wu et al., "Training Spiking Neural Networks with Accumulated Spiking Flow", AAAI 2021. IDSNN: the
authors' code (``fei015/IDSNN``), after Hinton, Vinyals, Dean 2015.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


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
    """Standard direct training, TET Eq. 7: the cross entropy of the mean output, ``CE(mean_t O(t), y)``.

    Its gradient is ``(softmax(mean O) - y) / (T B)`` at every step. By Jensen's inequality never above ``tet_loss``
    with ``mix = 0``: cross entropy is convex in the output.
    """
    return functional.cross_entropy(outputs.mean(dim=1), labels)


def squared_loss(output: Tensor, labels: Tensor) -> Tensor:
    """ASF: ``sum over samples and classes of (o - onehot(y))^2`` for outputs [B, C]; gradient ``2 (o - onehot(y))``."""
    wanted = functional.one_hot(labels, output.shape[1]).to(output.dtype)
    return (output - wanted).square().sum()


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """IDSNN: ``tau^2 KL(softmax(teacher / tau) || softmax(student / tau))``, the mean over [B, C].

    Its gradient by the student is ``tau (softmax(student / tau) - softmax(teacher / tau)) / B``. The paper writes the
    divergence the other way round; this is the authors' code.
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2

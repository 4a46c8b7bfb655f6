"""The neurons of a recipe: the table ``[neuron]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snncompile.recipe.methods import MODERATE, Rule, moderate


@dataclass(frozen=True)
class NeuronSettings:
    """``v = decay w + gain x``, fires where ``v > threshold`` (or ``>=``), then ``w = 0`` or ``w = v - threshold``.

    ``surrogate_width`` is gamma of TET, Eq. 5 (0.5 and ``rectangle``: IDSNN; 1 and ``atan``: alpha = 2 of SEW).
    ``detach_reset``: whether the gradient ignores the reset. ``gain``: ``one``, or ``one-minus-decay`` (the LIF of
    ASF's slides). ``pool_threshold``: of the neurons that ASF puts behind an average pool, which have no leak.
    """

    decay: float = 0.5
    threshold: float = 1.0
    fires: Literal[">", ">="] = ">"
    reset: Literal["zero", "subtract"] = "zero"
    surrogate: Literal["triangle", "rectangle", "atan"] = "triangle"
    surrogate_width: float = 1.0
    detach_reset: bool = False
    gain: Literal["one", "one-minus-decay"] = "one"
    pool_threshold: float = 0.75


def neuron_ranges(neuron: NeuronSettings) -> list[Rule]:
    """What the numbers of ``[neuron]`` must hold."""
    return [
        ("neuron.decay", 0.0 <= neuron.decay <= 1.0, "from 0 (no memory) to 1 (no leak)"),
        ("neuron.threshold", moderate(neuron.threshold), MODERATE),
        ("neuron.surrogate_width", moderate(neuron.surrogate_width), MODERATE),
        ("neuron.pool_threshold", moderate(neuron.pool_threshold), MODERATE),
    ]

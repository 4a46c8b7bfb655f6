"""How a recipe is optimised: the tables ``[training]`` and ``[quantise]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snncompile.recipe.methods import Rule


@dataclass(frozen=True)
class TrainingSettings:
    """Optimisation. ``evaluate_every`` epochs (and after the last) the test split is measured.

    ``milestones`` are the epochs after which the schedule ``steps`` multiplies the rate by ``factor``; over the first
    ``warm_up`` steps of the optimiser the rate rises linearly. ``weight_decay`` is added to the gradient. ``average``
    is the decay of a moving average of the weights, which is then what is measured and kept; 0: none. A ``precision``
    other than ``float32`` computes products in half the bits. ``samples`` of the training split make an epoch, others
    in each; 0: all.
    """

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    optimiser: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "constant", "steps"] = "cosine"
    evaluate_every: int = 1
    momentum: float = 0.0
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    warm_up: int = 0
    average: float = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    samples: int = 0


@dataclass(frozen=True)
class QuantiseSettings:
    """Training in a target's integers, after the training in reals: ``epochs`` of ``samples`` each (0: all).

    ``learning_rate`` is in shares of the machine's largest weight; ``target`` a name of the catalogue or a sheet.
    """

    target: str
    epochs: int = 1
    learning_rate: float = 0.0001
    samples: int = 0


def training_ranges(training: TrainingSettings) -> list[Rule]:
    """What the numbers of ``[training]`` must hold."""
    return [
        ("training.epochs", training.epochs >= 1, "at least 1"),
        ("training.batch", training.batch >= 2, "at least 2: batch norm needs two samples"),
        ("training.learning_rate", 0.0 < training.learning_rate <= 100.0, "positive, and 100 at most"),
        ("training.seed", 0 <= training.seed < 2**32, "from 0 to 2^32 - 1"),
        ("training.evaluate_every", training.evaluate_every >= 1, "at least 1"),
        ("training.momentum", 0.0 <= training.momentum < 1.0, "from 0 to below 1"),
        ("training.momentum", training.optimiser == "sgd" or not training.momentum, "0 for adam, which has its own"),
        ("training.weight_decay", 0.0 <= training.weight_decay <= 1.0, "from 0 to 1"),
        ("training.milestones", all(epoch >= 1 for epoch in training.milestones), "epochs from 1"),
        ("training.milestones", bool(training.milestones) == (training.schedule == "steps"), "there for steps alone"),
        ("training.factor", 0.0 < training.factor <= 1.0, "above 0, and 1 at most"),
        ("training.warm_up", training.warm_up >= 0, "a number of steps, or 0"),
        ("training.samples", training.samples >= 0, "a number of samples, or 0 for all"),
        ("training.average", 0.0 <= training.average < 1.0, "from 0 (none) to below 1"),
    ]


def quantise_ranges(quantise: QuantiseSettings) -> list[Rule]:
    """What the numbers of ``[quantise]`` must hold."""
    return [
        ("quantise.epochs", quantise.epochs >= 1, "at least 1"),
        ("quantise.learning_rate", 0.0 < quantise.learning_rate <= 1.0, "positive, and 1 at most"),
        ("quantise.samples", quantise.samples >= 0, "a number of samples, or 0 for all"),
    ]

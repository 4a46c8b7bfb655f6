"""Which neurons and which read-out a recipe's method puts into its network."""

from __future__ import annotations

from typing import Literal

from torch import nn

from snncompile.recipe import Recipe
from snncompile.recipe.methods import AnnSettings, DsrSettings
from snncompile.train.neurons import Spiking
from snncompile.train.representation import Represented

Role = Literal["hidden", "pool", "output"]


def population(recipe: Recipe, role: Role = "hidden") -> Spiking | nn.ReLU:
    """The neurons of a layer: ``hidden`` ones, those behind a pool (ASF), or those of the output (DSR)."""
    neuron, settings = recipe.neuron, recipe.settings
    if isinstance(settings, AnnSettings):
        return nn.ReLU()
    if isinstance(settings, DsrSettings):
        return Represented(settings, neuron.threshold)
    pool = role == "pool"
    decay = 1.0 if pool else neuron.decay
    return Spiking(
        decay,
        neuron.pool_threshold if pool else neuron.threshold,
        neuron.fires,
        neuron.surrogate_width,
        neuron.detach_reset,
        reset=neuron.reset,
        surrogate=neuron.surrogate,
        gain=1.0 if neuron.gain == "one" or pool else 1.0 - neuron.decay,
    )


def readout_of(recipe: Recipe) -> tuple[Literal["mean", "weighted"], float]:
    """How outputs are taken together over the steps: the kind, and the decay of a weighted mean."""
    settings = recipe.settings
    if isinstance(settings, DsrSettings) and settings.leaky:
        return "weighted", settings.decay
    if recipe.method == "ide" and recipe.neuron.decay < 1.0:
        return "weighted", recipe.neuron.decay
    return "mean", 1.0


def fires_at_the_output(recipe: Recipe) -> bool:
    """Whether the last layer has a norm and neurons of its own, whose spikes are the answer (DSR)."""
    return recipe.method == "dsr"

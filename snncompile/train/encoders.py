"""Images as spikes, drawn on the host: the same spikes again for the same seed, epoch, sample and step.

Poisson: at every step and pixel anew a spike of the sign of x with probability ``rate abs(x)``. Sample i of epoch e
draws from NumPy's Philox with the key (seed, e) and the counter (0, 0, 0, i); 64-bit numbers, one a pixel, step by
step. Evaluation, export and simulation are epoch 0; training epochs count from 1.

Source: ASF's authors' code (MNIST: rate 0.5; CIFAR: signed, rate 1), whose generator is torch's global one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AsfSettings

Array = NDArray[Any]
EVALUATION = 0


def poisson(x: Array, indices: Array, steps: int, *, seed: int, epoch: int, rate: float) -> NDArray[np.int8]:
    """Spikes -1, 0 and 1 [samples, steps, ...] for images [samples, ...]; ``indices``: which samples of their data
    set."""
    probability = np.abs(np.asarray(x, dtype=np.float64)) * rate
    sign = np.sign(x).astype(np.int8)
    spikes = np.empty((len(x), steps, *x.shape[1:]), dtype=np.int8)
    for place, index in enumerate(indices):
        bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, int(index)])
        drawn = np.random.Generator(bits).random((steps, *x.shape[1:]))
        np.multiply(drawn < probability[place], sign[place], out=spikes[place])
    return spikes


def draws(recipe: Recipe) -> bool:
    """Whether the network of a recipe receives drawn spikes and not its data."""
    settings = recipe.settings
    return isinstance(settings, AsfSettings) and settings.encoder == "poisson" and recipe.data.static


def encoded(recipe: Recipe, x: Array, first: int = 0, epoch: int = EVALUATION, indices: Array | None = None) -> Array:
    """What the network receives for a part of a data set that begins at sample ``first``: spikes drawn from images
    where the recipe says so, else (and where they are spikes already) the data themselves. Raises ReadError where a
    pixel has no probability.
    """
    if not draws(recipe) or x.shape[1:] != recipe.input:
        return x
    settings = recipe.settings
    assert isinstance(settings, AsfSettings)
    largest, least = float(np.max(x, initial=0.0)), float(np.min(x, initial=0.0))
    if max(largest, -least) * settings.rate > 1.0 or (least < 0.0 and not settings.signed):
        raise ReadError(
            f"pixels reach from {least:g} to {largest:g}",
            where=f"{recipe.name}, asf.encoder",
            why=f"rate {settings.rate:g} times a pixel is a probability"
            + ("" if settings.signed else ", not negative"),
            remedy="scale them with data.mean and data.std, or say signed = true",
        )
    chosen = np.arange(first, first + len(x)) if indices is None else indices
    return poisson(x, chosen, settings.steps, seed=recipe.training.seed, epoch=epoch, rate=settings.rate)

"""What training samples undergo. Each is a function of the sample and of a generator that belongs to it alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snncompile.train.samples import Array

Augment = Callable[[Array, np.random.Generator], Array]

MARGIN = 4
ROLL = 5


def drawn_for(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of a sample in an epoch, whatever batch, thread or process it is shown in."""
    return np.random.default_rng([seed, epoch, index + 1])  # [seed, epoch] draws the order of the epoch


def crop_and_flip(black: Array) -> Augment:
    """Images [C, H, W]: a margin of 4 black pixels all round, a random window of the old size, and a mirror image half
    the time. ``black`` is that colour, [C, 1, 1]."""

    def augment(x: Array, drawn: np.random.Generator) -> Array:
        channels, height, width = x.shape
        wide = np.empty((channels, height + 2 * MARGIN, width + 2 * MARGIN), x.dtype)
        wide[:] = black
        wide[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width] = x
        top, left = drawn.integers(0, 2 * MARGIN + 1, 2)
        x = wide[:, top : top + height, left : left + width]
        return x[..., ::-1] if drawn.random() < 0.5 else x

    return augment


def roll_and_flip(x: Array, drawn: np.random.Generator) -> Array:
    """Frames [T, C, H, W]: mirrored half the time, then shifted round by -5 to 5 pixels down and right, all alike."""
    return roll(x[..., ::-1] if drawn.random() < 0.5 else x, drawn)


def roll(x: Array, drawn: np.random.Generator) -> Array:
    """Frames [T, C, H, W]: shifted round by -5 to 5 pixels down and right, all alike."""
    down, right = drawn.integers(-ROLL, ROLL + 1, 2)
    return np.roll(x, (int(down), int(right)), axis=(-2, -1))

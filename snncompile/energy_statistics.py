"""How energy is spread over samples, and how sure its mean is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED, CHUNK_NUMBERS = 2000, 0, 1 << 22


@dataclass(frozen=True)
class Spread:
    """Of one number a sample: mean, standard deviation, percentiles, and a 95 % interval of the mean (bootstrap).

    ``least``, ``most``: the samples (counted from 0) with the smallest and the largest number.
    """

    mean: float
    deviation: float
    low: float
    high: float
    p5: float
    median: float
    p95: float
    least: int
    most: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of ``values``; the bootstrap is seeded, so that the same values have the same interval."""
    array = np.asarray(values, dtype=np.float64)
    numbers, size = np.random.default_rng(SEED), len(array)
    rows = max(1, CHUNK_NUMBERS // size)
    means = []
    for first in range(0, RESAMPLES, rows):
        chosen = numbers.integers(0, size, (min(rows, RESAMPLES - first), size))
        means.append(array[chosen].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    p5, median, p95 = np.percentile(array, [5, 50, 95])
    deviation = float(array.std(ddof=1)) if size > 1 else 0.0
    ends = int(array.argmin()), int(array.argmax())
    return Spread(float(array.mean()), deviation, float(low), float(high), float(p5), float(median), float(p95), *ends)

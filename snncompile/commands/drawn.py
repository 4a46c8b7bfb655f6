"""Samples for a network that comes without any: drawn, from a seed that is told, so that they can be drawn again.

``Spike`` inputs fire at a rate that is drawn for each sample. Others hold a value until they change, a quarter of them
at each step; magnitudes are drawn by their number of bits, so that small and large ones are as frequent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.commands.imported import Data
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input
from snncompile.ir.signals import Signal, Spike, grid
from snncompile.run.stimulus import Inputs

Array = NDArray[Any]
SEED, SAMPLES, STEPS = 0, 4, 16
"""``STEPS``: of a sample, where a network does not say."""
CHANGING = 0.25


def drawn(graph: Graph, steps: int, *, seed: int = SEED, samples: int = SAMPLES) -> Data:
    """Frames [samples, steps, *shape] for every input of a graph in integers."""
    generator = np.random.default_rng(seed)
    arrays = {
        name: _frames(generator, op.signal, (samples, steps, *op.shape))
        for name in graph.names(Input)
        if isinstance(op := graph.nodes[name], Input)
    }
    x = next(iter(arrays.values())) if len(arrays) == 1 else Inputs(arrays)
    return Data(f"{samples} samples drawn with seed {seed}", x, None, ())


def _frames(generator: np.random.Generator, signal: Signal, size: tuple[int, ...]) -> Array:
    unit, least, most = grid(signal)
    samples, steps, *shape = size
    if isinstance(signal, Spike):
        rates = generator.uniform(0.05, 0.6, (samples, *(1,) * (1 + len(shape))))
        return (generator.random(size) < rates) * unit
    bits = max(-least, most).bit_length()
    x = np.zeros(size)
    now = np.zeros((samples, *shape))
    for step in range(steps):
        new = np.rint(2.0 ** generator.uniform(-1, bits, now.shape) * generator.choice((-1, 1), now.shape))
        now = np.where(generator.random(now.shape) < (CHANGING if step else 1.0), np.clip(new, least, most), now)
        x[:, step] = now * unit
    return x

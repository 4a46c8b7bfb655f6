"""What a trained network does in torch, as a trace: rung 0 of the ladder, the thing that everything else must equal."""

from __future__ import annotations

import numpy as np
import torch

from snncompile.run.trace import Array, Trace
from snncompile.train.integer_network import IntegerNetwork
from snncompile.train.networks import Network

BATCH = 64


def record(network: Network | IntegerNetwork, x: Array) -> Trace:
    """Spikes and potentials of every population of ``network`` in eval mode on ``x`` [samples, ...]: float32 as
    trained, or the integers that it was trained in.
    """
    parts: dict[str, list[Array]] = {}
    for first in range(0, len(x), BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(x[first : first + BATCH], dtype=np.float32))
        for name, values in network.record(batch).items():
            parts.setdefault(name, []).append(values.numpy())
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    spikes = {name[:-2]: array.astype(bool) for name, array in whole.items() if name.endswith(".s")}
    potentials = {name[:-2]: array for name, array in whole.items() if name.endswith(".v")}
    return Trace(spikes, potentials, {"steps": network.steps, "latency": 0, "potential": "before reset"})

"""What a maximum is taken over: over the spikes of one population it is an OR, over anything else it is none."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Neuron, Pool, Scale, real
from snncompile.ir.signals import Spike


@dataclass(frozen=True)
class Spikes:
    """The spikes of ``source``, ``delay`` steps late, as they arrive at a node.

    ``sent``: what a spike is worth where it leaves the source; ``worth``: where it arrives. Both are above zero.
    """

    source: str
    delay: int
    sent: float
    worth: float


def spikes_into(graph: Graph, name: str) -> Spikes | None:
    """What arrives at a node, where that is nothing but the spikes of one population or input, or a maximum of such,
    times a factor above zero; None where it is something else.
    """
    factors, delay = [1.0], 0  # one more behind each maximum on the way
    first: tuple[str, int] | None = None
    while True:
        arriving = graph.into(name)
        if len(arriving) != 1:
            return None
        name, delay = arriving[0].source, delay + arriving[0].delay
        match graph.nodes[name]:
            case Neuron(amplitude=amplitude) | Input(signal=Spike(amplitude)) if amplitude > 0:
                sent = prod(factors[1:]) * amplitude
                source, late = first or (name, delay)
                return Spikes(source, late, sent, factors[0] * sent)
            case Pool(kind="max"):
                first = first or (name, delay)
                factors.append(1.0)
            case Scale(factor=scale) if np.unique(real(scale)).size == 1 and real(scale).flat[0] > 0:
                factors[-1] *= float(real(scale).flat[0])  # max(a s) = a max(s)
            case _:
                return None

"""What counting needs of a network, and no more: a bundle carries it, so that its runs are counted as the network's.

Weights become ones and zeros, biases a mark at the neurons that have one; forms, ways and declarations stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import numpy as np

from snncompile.energy_counts import biases
from snncompile.ir.graph import Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Op,
    Output,
    Pool,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    number,
    real,
)
from snncompile.ir.shapes import shapes


def skeleton(network: Graph) -> Graph:
    """A graph whose counts are those of the network, for any spikes."""
    extent = shapes(network)
    marks = {name: np.broadcast_to(mask, extent[name]) for name, mask in biases(network, extent).items()}

    def bare(name: str, op: Op) -> Op:
        match op:
            case Dense() | Conv():
                bias = None if op.bias is None else np.zeros(op.bias.shape)
                return replace(op, weight=(real(op.weight) != 0).astype(np.float64), bias=bias)
            case Norm():
                nothing, one = np.zeros(real(op.mean).shape), np.ones(real(op.mean).shape)
                return Norm(nothing, one, one, nothing, op.epsilon)
            case Neuron():
                return replace(op, bias=marks[name].astype(np.float64), gain=number(1.0))
            case Readout():
                return replace(op, bias=marks[name].astype(np.float64))
            case Input() | Output() | Pool() | Flatten() | Scale() | SigmaDelta() | Resonator():
                return op
            case _ as never:
                assert_never(never)

    return network.edit({name: bare(name, op) for name, op in network.nodes.items()})

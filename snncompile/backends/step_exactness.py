"""Whether the float form of a graph rounds at all: a proof, over all inputs that the graph declares.

Every signal is bounded by ``(bits, most)``: multiples of ``2^-bits``, at most ``most`` in magnitude. float32 holds such
numbers, and every sum of them in any order, while ``most 2^bits < 2^24``. A decay that is a dyadic fraction adds its
bits at every step of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod

import numpy as np

from snncompile.fixed import Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Output, Pool, Readout, Scale, real
from snncompile.ir.signals import Analog, grid
from snncompile.ir.store import Program

MANTISSA = 24
MOST_BITS = 60


@dataclass(frozen=True)
class Dyadic:
    """Multiples of ``2^-bits``, at most ``most`` in magnitude."""

    bits: float
    most: float

    @property
    def held(self) -> bool:
        """Whether float32 holds all of them."""
        return self.bits < inf and self.most * 2.0**self.bits < 2**MANTISSA


def exact_in_float32(program: Program) -> bool:
    """Whether no operation of a sample rounds."""
    proof = _Proof(program)
    return all(proof.population(name) for name in program.graph.names(Neuron, Readout))


def dyadic(values: Reals | float) -> Dyadic:
    """The bound of numbers; ``bits`` is infinite where they are no multiples of a power of two."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    most = float(np.abs(array).max(initial=0.0))
    for bits in range(MOST_BITS):
        scaled = np.ldexp(array, bits)
        if np.array_equal(scaled, np.rint(scaled)):
            return Dyadic(bits, most)
    return Dyadic(inf, most)


class _Proof:
    def __init__(self, program: Program) -> None:
        self.graph: Graph = program.graph
        self.steps = program.steps
        self.known: dict[str, Dyadic] = {}

    def population(self, name: str) -> bool:
        """Whether currents, potentials and parameters of a population are held over a whole sample."""
        op = self.graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        x, bias = self._arriving(name), dyadic(real(op.bias))
        if isinstance(op, Readout):
            return op.decay == 1.0 and self._summed(x, bias, Dyadic(0, 0.0), Dyadic(0, 0.0))
        if np.any(real(op.rest)) or np.any(real(op.gain) != 1.0):
            return False
        kept_u, kept_w = dyadic(1.0 - real(op.alpha)), dyadic(1.0 - real(op.beta))
        if max(kept_u.most, kept_w.most) > 1:
            return False
        current = Dyadic(x.bits + kept_u.bits * (self.steps - 1), x.most * self.steps if kept_u.most else x.most)
        reset = dyadic(real(op.reset.amount if isinstance(op.reset, By) else op.reset.value))
        start = dyadic(real(op.initial))
        return current.held and self._summed(
            Dyadic(current.bits + kept_w.bits * self.steps, current.most),
            Dyadic(bias.bits + kept_w.bits * self.steps, bias.most),
            Dyadic(start.bits + kept_w.bits * self.steps, start.most),
            Dyadic(reset.bits + kept_w.bits * self.steps, reset.most),
        )

    def _summed(self, x: Dyadic, bias: Dyadic, start: Dyadic, reset: Dyadic) -> bool:
        bits = max(x.bits, bias.bits, start.bits, reset.bits)
        return Dyadic(bits, self.steps * (x.most + bias.most + reset.most) + start.most).held

    def _arriving(self, name: str) -> Dyadic:
        ends = [self._sent(edge.source) for edge in self.graph.into(name)]
        total = Dyadic(max((end.bits for end in ends), default=0), sum(end.most for end in ends))
        return total if total.held else Dyadic(inf, total.most)

    def _sent(self, name: str) -> Dyadic:
        if name not in self.known:
            self.known[name] = self._of(name)
        return self.known[name]

    def _of(self, name: str) -> Dyadic:
        """The bound of what a node sends; unheld where its own sums are not."""
        match self.graph.nodes[name]:
            case Input(signal=Analog()):
                return Dyadic(inf, inf)
            case Input() as op:
                unit, least, most = grid(op.signal)
                return Dyadic(dyadic(unit).bits, max(-least, most) * unit)
            case Neuron() as op:
                return dyadic(op.amplitude)
            case Dense() | Conv() as op:
                bias = Dyadic(0, 0.0) if op.bias is None else dyadic(real(op.bias))
                return _product(real(op.weight).reshape(op.weight.shape[0], -1), self._arriving(name), bias)
            case Scale() as op:
                return _product(real(op.factor).reshape(-1, 1), self._arriving(name), Dyadic(0, 0.0))
            case Pool() as op:
                cells = prod(op.kernel)
                ones = np.ones((1, 1 if op.kind == "max" else cells))
                summed = _product(ones, self._arriving(name), Dyadic(0, 0.0))
                mean = dyadic(1 / cells) if op.kind == "mean" else Dyadic(0, 1.0)
                return Dyadic(summed.bits + mean.bits, summed.most * mean.most)
            case Flatten() | Output():
                return self._arriving(name)
            case _:
                return Dyadic(inf, inf)


def _product(rows: Reals, x: Dyadic, bias: Dyadic) -> Dyadic:
    """Sums of weights ``rows`` [out, in] times ``x``, and a bias."""
    weight = dyadic(rows)
    most = float(np.abs(rows).sum(axis=1).max(initial=0.0)) * x.most + bias.most
    total = Dyadic(max(weight.bits + x.bits, bias.bits), most)
    return total if total.held else Dyadic(inf, most)

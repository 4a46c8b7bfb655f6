"""The machine's integers of weights, decays, thresholds, biases and potentials, for one unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import FixedPoint, Reals, round_half_away
from snncompile.ir.ops import By, Neuron, Param, Readout, Reset, Scale, Synapse, To, real
from snncompile.run.trace import Array
from snncompile.target import Target


@dataclass(frozen=True)
class Incoming:
    """One synapse op into a population: what its source sends on calibration data, in reals and as the machine gets
    it. Where several have equal weights (the terms of a sum that one kernel reads), what arrives is their sum.
    """

    names: tuple[str, ...]
    synapse: Synapse
    unit: float  # what 1 of the source's integers is worth
    most: int  # the largest magnitude of those integers
    signed: bool  # whether they may be negative
    values: Array  # [samples, steps, *shape]
    coded: Array  # the same as integers; the very same array where a source sends spikes
    delay: int

    @cached_property
    def real_weight(self) -> Reals:
        return real(self.synapse.factor if isinstance(self.synapse, Scale) else self.synapse.weight)

    @cached_property
    def halves(self) -> Reals:
        """A half with the sign of each weight."""
        return np.copysign(0.5, self.real_weight)


@dataclass(frozen=True)
class Candidate:
    """A unit with what follows from it, and what it gets wrong on calibration data.

    ``wrong``: spikes that differ, of ``compared``, when every step is given what the unquantised network sends and is
    reset by its spikes; ``error``: the root mean square in the potential, in thresholds. ``otherwise``: the spikes that
    differ with the unit of the least ``error``. ``addends``: as in ``Readout``.
    """

    unit: float
    threshold: int
    bias: FixedPoint
    error: float
    wrong: int = 0
    compared: int = 0
    otherwise: int = 0
    addends: int = 1

    @property
    def lost(self) -> tuple[int, float]:
        """What the search makes as small as it can: spikes first, the potential where spikes are equal."""
        return self.wrong, self.error


def integer_weights(item: Incoming, unit: float, target: Target) -> Reals:
    """``step * round(W q / (unit step))``, halves away from zero, clipped to the sheet's range: whole numbers."""
    sheet = target.weight
    scaled = np.asarray(item.real_weight * (item.unit / (unit * sheet.step)))
    scaled += item.halves  # units are positive
    np.trunc(scaled, out=scaled)
    scaled *= sheet.step
    return np.asarray(np.clip(scaled, sheet.least, sheet.most, out=scaled))


def integer_decays(op: Neuron, target: Target) -> tuple[int, int]:
    """``alpha`` and ``beta`` in units of the sheet's decay."""
    alpha, beta = (round_half_away(np.max(real(value)) * 2**target.decay.bits) for value in (op.alpha, op.beta))
    return int(alpha), int(beta)


def integer_potential(value: Param, unit: float, target: Target) -> FixedPoint:
    """A potential (a reset, a start) on the grid of the machine's potentials. Raises ``NotRepresentable`` beyond it."""
    fraction = target.potential.fraction_bits
    mantissa = round_half_away(real(value) / unit * 2.0**fraction)
    if np.abs(mantissa).max() >= 2 ** (target.potential.bits - 1):
        raise NotRepresentable(
            f"a potential of {np.abs(mantissa).max() / 2**fraction:.0f} is outside the machine's range",
            where="quantise",
            why=target.cite("potential.bits"),
        )
    if not (mantissa % 2**fraction).any():
        return FixedPoint(mantissa >> fraction)
    return FixedPoint(mantissa, -fraction)


def fixed_bias(bias: Reals, target: Target) -> FixedPoint:
    """A bias (in weight units) as mantissa and the smallest exponent that holds it, both as the sheet has them."""
    grid = bias * 2.0**target.potential.fraction_bits
    largest = float(np.abs(grid).max(initial=0.0))
    exponent = 0
    while exponent < target.bias.exponent_most and largest / 2**exponent > target.bias.mantissa_most:
        exponent += 1
    mantissa = round_half_away(grid / 2**exponent)
    return FixedPoint(mantissa, exponent - target.potential.fraction_bits)


def worst_sums(item: Incoming, weight: Reals) -> Reals:
    """The largest magnitude that each neuron (of a convolution: each channel) can receive through a synapse op in one
    step, in weight units; ``weight``: whole numbers.
    """
    magnitude = np.abs(weight)
    if isinstance(item.synapse, Scale):
        return magnitude.reshape(-1) * item.most
    axes = tuple(range(1, weight.ndim))
    both = magnitude.sum(axis=axes)
    # positive weights alone add up to (both + sum) / 2, negative ones to (both - sum) / 2
    return np.asarray((both if item.signed else (both + np.abs(weight.sum(axis=axes))) / 2) * item.most)


def worst_sum(item: Incoming, weight: Reals) -> float:
    """The largest of ``worst_sums``."""
    return float(worst_sums(item, weight).max(initial=0.0))


def integer_population(name: str, op: Neuron | Readout, best: Candidate, target: Target) -> Neuron | Readout:
    """The population in integers. Raises ``NotRepresentable`` where its decays or potentials have no form."""
    bits = target.decay.bits
    if isinstance(op, Readout):
        kept = float(round_half_away(op.decay * 2.0**bits)) / 2.0**bits
        return replace(op, bias=best.bias, unit=best.unit, decay=kept)
    alpha, beta = integer_decays(op, target)
    if not 1 <= alpha <= 2**bits or not 0 <= beta < 2**bits:
        raise NotRepresentable(
            f"its decays {real(op.alpha)} and {real(op.beta)} have no form in {bits} bits",
            where=f"{name} (Neuron)",
            why=target.cite("decay.bits"),
        )
    return replace(
        op,
        alpha=FixedPoint.number(alpha, -bits),
        beta=FixedPoint.number(beta, -bits),
        threshold=FixedPoint.number(best.threshold),
        bias=best.bias,
        reset=_integer_reset(op.reset, best.unit, target),
        initial=integer_potential(op.initial, best.unit, target),
        unit=best.unit,
    )


def _integer_reset(reset: Reset, unit: float, target: Target) -> Reset:
    if isinstance(reset, By):
        return By(integer_potential(reset.amount, unit, target))
    return To(integer_potential(reset.value, unit, target))

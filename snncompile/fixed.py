"""Integers with a scale, and the four things machines do to them: round, saturate, wrap, decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """The numbers ``mantissa * 2**exponent``.

    ``mantissa`` is an int64 array of any shape (0-d for a scalar), ``exponent`` one integer for all of it.
    """

    mantissa: Integers
    exponent: int = 0

    def __post_init__(self) -> None:
        mantissa = np.array(self.mantissa, dtype=np.int64)
        mantissa.setflags(write=False)
        object.__setattr__(self, "mantissa", mantissa)
        object.__setattr__(self, "exponent", int(self.exponent))

    @staticmethod
    def number(mantissa: int, exponent: int = 0) -> FixedPoint:
        """One number for all."""
        return FixedPoint(np.asarray(mantissa, dtype=np.int64), exponent)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mantissa.shape

    @property
    def real(self) -> Reals:
        """The value as float64: exact while the mantissa has at most 53 bits."""
        return np.ldexp(self.mantissa.astype(np.float64), self.exponent)

    def on_grid(self, fraction_bits: int) -> Integers:
        """The value in units of ``2**-fraction_bits``; bits below the grid are dropped (arithmetic shift, floor)."""
        shift = self.exponent + fraction_bits
        return self.mantissa << shift if shift >= 0 else self.mantissa >> -shift


def round_half_away(values: ArrayLike) -> Integers:
    """Nearest integer, halves away from zero: ``sign(x) * floor(abs(x) + 1/2)``."""
    reals = np.asarray(values, dtype=np.float64)
    return (np.sign(reals) * np.floor(np.abs(reals) + 0.5)).astype(np.int64)


def shift_toward_zero(values: Integers, bits: int) -> Integers:
    """``sign(x) * (abs(x) >> bits)``: division by ``2**bits`` that drops the fraction on both sides of zero."""
    return np.asarray(np.sign(values) * (np.abs(values) >> bits), dtype=np.int64)


def shift_down(values: Integers, bits: int) -> Integers:
    """``x >> bits``: division by ``2**bits`` rounded toward minus infinity."""
    return values >> bits


def decay(values: Integers, lost: Integers, bits: int, rounding: str) -> Integers:
    """``x * (2**bits - lost) / 2**bits`` with the machine's rounding (``toward-zero`` or ``floor``)."""
    product = values * ((1 << bits) - lost)
    return shift_toward_zero(product, bits) if rounding == "toward-zero" else shift_down(product, bits)


def wrap(values: Integers, bits: int) -> Integers:
    """One wrap of a signed register of ``bits`` bits as Lava does it: into ``(-M, M]`` with ``M = 2**(bits-1)``.

    Source: ``lava-nc/lava`` 0.10.0, ``src/lava/proc/lif/models.py``: ``+M`` itself is kept and a value more than one
    turn away stays outside.
    """
    top = 1 << (bits - 1)
    return values - np.where(values > top, 2 * top, 0) + np.where(values <= -top, 2 * top, 0)


def saturate(values: Integers, bits: int) -> Integers:
    """Clip to ``+-(2**(bits-1) - 1)``, the symmetric range of Lava's potential."""
    top = (1 << (bits - 1)) - 1
    return np.clip(values, -top, top)


def overflow(values: Integers, bits: int, rule: str) -> Integers:
    """Apply a sheet's overflow rule: ``wrap`` or ``saturate``."""
    return wrap(values, bits) if rule == "wrap" else saturate(values, bits)


def as_fixed(value: Any, exponent: int) -> FixedPoint:
    """The exact fixed-point form of reals that lie on the grid ``2**exponent``.

    Raises ``ValueError`` when a value is not on the grid, or too large for 64 bits.
    """
    scaled = np.ldexp(np.asarray(value, dtype=np.float64), -exponent)
    mantissa = np.rint(scaled)
    if not np.array_equal(mantissa, scaled) or np.any(np.abs(mantissa) >= 2.0**63):
        raise ValueError(f"not a multiple of 2**{exponent}")
    return FixedPoint(mantissa.astype(np.int64), exponent)

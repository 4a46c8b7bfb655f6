"""Events as bits, so that what they reach is found by counting bits: exact whole numbers, many events at a time.

With ``bit_i(n)`` the i-th binary digit of n, for events e and fan-outs f of elements::

    sum over elements of |e| f = sum over i, j of 2^(i + j) popcount(bit_i(|e|) and bit_j(f))

The digits of the fan-outs are packed once for a graph, those of the events once for a run: 64 elements a word. Spikes
have one digit; fan-outs have few digits or few values (``FanOut``), none where all of them are one number.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Integers
from snncompile.ir.ops import Shape
from snncompile.run.bits import Bits, ever_and_always, met, packed
from snncompile.run.trace import Packed

Array = NDArray[Any]
FEW = 3  # values of a fan-out: inside, at a border, in a corner
LITTLE = 1 << 12  # numbers up to it are counted by themselves, without sorting


class FanOut:
    """How many synapses each element feeds, ready for counting; ``number``: int64, none negative, for all of ``shape``.

    ``reached = each * events + sum over masks of worth * (events in the mask)``. The masks are the elements of every
    value but the most frequent, which is ``each``; or, where those are more, the digits of what is left of the numbers
    when what is common to all is divided out (``each`` is 0).
    """

    def __init__(self, number: Integers, shape: Shape) -> None:
        first = int(number.flat[0]) if number.size else 0
        self.each, self.worth = first, np.zeros(0, dtype=np.int64)
        self.masks: Bits = np.zeros((0, -(-prod(shape) // 64)), dtype=np.uint64)
        if number.size < 2 or (number == first).all():
            return

        def where(truths: NDArray[np.bool_]) -> Bits:
            return packed(np.broadcast_to(truths, (len(truths), *shape)).reshape(len(truths), -1))

        values, frequency = _frequencies(number.reshape(-1))  # each is as often among all, for each time it is here
        common = int(np.gcd.reduce(values)) if len(values) > FEW else 1
        digits, along = np.arange(int(values[-1] // common).bit_length()), (1,) * number.ndim
        if len(values) <= max(FEW, len(digits)):
            most = values[frequency.argmax()]
            others = values[values != most]
            self.each, self.worth = int(most), others - most
            self.masks = where(number == others.reshape(-1, *along))
        else:
            self.each, self.worth = 0, common << digits
            self.masks = where(number // common >> digits.reshape(-1, *along) & 1 == 1)


class Events:
    """Whole numbers of events [samples, steps, *shape] of one source: bool, or integers whose sign is of no account.

    An array whose steps are one and the same memory is looked at once. ``bits``: the same array, packed already; those
    of another are of no account.
    """

    def __init__(self, values: Array, bits: Packed | None = None) -> None:
        self.samples, self.steps = values.shape[:2]
        self._digits: tuple[Bits, ...]
        if bits is not None and bits.of is values:
            self._held, self._digits = False, (bits.words.reshape(-1, bits.words.shape[2]),)
            self.number = bits.number
            return
        held = self.steps > 1 and values.strides[1] == 0
        seen = values[:, :1] if held else values
        self._held, rows = held, seen.reshape(seen.shape[0] * seen.shape[1], -1)
        if rows.dtype == np.bool_:
            self._digits = (packed(rows),)
        else:
            magnitude = np.abs(rows)
            digits = range(max(1, int(magnitude.max(initial=0)).bit_length()))
            self._digits = tuple(packed(magnitude >> digit & 1 == 1) for digit in digits)

    def reached(self, fan_out: FanOut) -> Integers:
        """What the events of every sample and step reach: int64 [samples, steps]."""
        if not len(fan_out.masks):
            return self.number * fan_out.each
        total = self._summed([fan_out.worth @ met(digit, fan_out.masks) for digit in self._digits])
        return total + self.number * fan_out.each if fan_out.each else total

    @cached_property
    def number(self) -> Integers:
        """The events of every sample and step: int64 [samples, steps]."""
        every = np.full((1, self._digits[0].shape[1]), -1, dtype=np.int64).view(np.uint64)
        return self._summed([met(digit, every)[0] for digit in self._digits])

    @property
    def ever(self) -> Bits:
        """Which elements sent an event at any step of any sample, packed."""
        return self._ever_and_always[0]

    @property
    def always(self) -> Bits:
        """Which elements sent an event at every step of every sample, packed."""
        return self._ever_and_always[1]

    @cached_property
    def _ever_and_always(self) -> tuple[Bits, Bits]:
        first, *more = self._digits
        return ever_and_always(np.bitwise_or.reduce(self._digits) if more else first)

    @property
    def rows(self) -> NDArray[np.uint64]:
        """The digits of all events: [samples, steps (or 1, where one is shown again and again), words]."""
        digits = [digit.reshape(self.samples, -1, digit.shape[1]) for digit in self._digits]
        return np.concatenate(digits, axis=2)

    def _summed(self, digits: list[Integers]) -> Integers:
        """What was counted of every digit and row as numbers of every sample and step."""
        first, *more = digits
        total = first + sum(digit << index for index, digit in enumerate(more, start=1)) if more else first
        if self._held:
            return total.reshape(-1, 1).repeat(self.steps, axis=1)
        return total.reshape(self.samples, self.steps)


def _frequencies(number: Integers) -> tuple[Integers, Integers]:
    """Which numbers there are, ascending, and how often; none is negative."""
    if number.max() > max(number.size, LITTLE):
        return np.unique(number, return_counts=True)
    frequency = np.bincount(number)
    values = np.flatnonzero(frequency)
    return values, frequency[values]

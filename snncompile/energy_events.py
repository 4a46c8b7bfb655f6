"""Events as bits, so that what they reach is found by counting bits: exact whole numbers, many events at a time.

With ``bit_i(n)`` the i-th binary digit of n, for events e and fan-outs f of elements::

    sum over elements of |e| f = sum over i, j of 2^(i + j) popcount(bit_i(|e|) and bit_j(f))

The digits of the fan-outs are packed once for a graph, those of the events once for a run: 64 elements a word. Spikes
have one digit; fan-outs have few digits or few values (``FanOut``), none where all of them are one number.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Integers

Array = NDArray[Any]
Bits = NDArray[np.uint64]
CHUNK_WORDS = 1 << 15  # words that are looked at together: what a processor keeps at hand
FEW = 3  # values of a fan-out: inside, at a border, in a corner
EXACT = 1 << 24  # below it every whole number is a float32


class FanOut:
    """How many synapses each element feeds, ready for counting; ``number``: int64, of any shape, none negative.

    ``reached = each * events + sum over masks of worth * (events in the mask)``. The masks are the elements of every
    value but the most frequent, which is ``each``; or, where those are more, the digits of what is left of the numbers
    when what is common to all is divided out (``each`` is 0).
    """

    def __init__(self, number: Integers) -> None:
        flat = number.reshape(1, -1)
        first = int(flat[0, 0]) if flat.size else 0
        self.each, self.worth, self.masks = first, np.zeros(0, dtype=np.int64), packed(np.zeros((0, flat.size), bool))
        if (flat == first).all():
            return
        values, frequency = _frequencies(flat[0])
        common = int(np.gcd.reduce(values)) if len(values) > FEW else 1
        digits = range(int(values[-1] // common).bit_length())
        if len(values) <= max(FEW, len(digits)):
            most = values[frequency.argmax()]
            others = values[values != most]
            self.each, self.worth = int(most), others - most
            self.masks = packed(flat == others[:, None])
        else:
            rest = flat // common
            self.each, self.worth = 0, np.array([common << digit for digit in digits], dtype=np.int64)
            self.masks = np.concatenate([packed(rest >> digit & 1 == 1) for digit in digits])


class Events:
    """Whole numbers of events [samples, steps, *shape] of one source: bool, or integers whose sign is of no account.

    An array whose steps are one and the same memory is looked at once.
    """

    def __init__(self, values: Array) -> None:
        self.samples, self.steps = values.shape[:2]
        held = self.steps > 1 and values.strides[1] == 0
        seen = values[:, :1] if held else values
        self._held, rows = held, seen.reshape(seen.shape[0] * seen.shape[1], -1)
        if rows.dtype == np.bool_:
            self._digits: tuple[Bits, ...] = (packed(rows),)
        else:
            magnitude = np.abs(rows)
            digits = range(max(1, int(magnitude.max(initial=0)).bit_length()))
            self._digits = tuple(packed(magnitude >> digit & 1 == 1) for digit in digits)

    def reached(self, fan_out: FanOut) -> Integers:
        """What the events of every sample and step reach: int64 [samples, steps]."""
        if not len(fan_out.masks):
            return self.number * fan_out.each
        total = np.zeros(len(self._digits[0]), dtype=np.int64)
        rows = max(1, CHUNK_WORDS // max(1, fan_out.masks.size))
        for first in range(0, len(total), rows):
            for index, digit in enumerate(self._digits):
                met = _ones(digit[first : first + rows] & fan_out.masks[:, None])  # [digits of fan-outs, rows]
                total[first : first + rows] += (fan_out.worth @ met) << index
        reached = self._of_each_step(total)
        return reached + self.number * fan_out.each if fan_out.each else reached

    @cached_property
    def number(self) -> Integers:
        """The events of every sample and step: int64 [samples, steps]."""
        total = np.zeros(len(self._digits[0]), dtype=np.int64)
        for index, digit in enumerate(self._digits):
            total += _ones(digit) << index
        return self._of_each_step(total)

    @cached_property
    def ever(self) -> Bits:
        """Which elements sent an event at any step of any sample, packed."""
        return np.asarray(np.bitwise_or.reduce([_over(np.bitwise_or, digit) for digit in self._digits]))

    @cached_property
    def always(self) -> Bits:
        """Which elements sent an event at every step of every sample, packed."""
        some = self._digits[0] if len(self._digits) == 1 else np.bitwise_or.reduce(self._digits)
        return _over(np.bitwise_and, some)

    @property
    def rows(self) -> NDArray[np.uint64]:
        """The digits of all events: [samples, steps (or 1, where one is shown again and again), words]."""
        digits = [digit.reshape(self.samples, -1, digit.shape[1]) for digit in self._digits]
        return np.concatenate(digits, axis=2)

    def _of_each_step(self, rows: Integers) -> Integers:
        if self._held:
            return rows.reshape(-1, 1).repeat(self.steps, axis=1)
        return rows.reshape(self.samples, self.steps)


def packed(rows: NDArray[np.bool_]) -> Bits:
    """Truths [rows, elements] as words of 64, filled up with zeros: [rows, words]."""
    octets = np.packbits(rows, axis=1)
    missing = -octets.shape[1] % 8
    if missing:
        octets = np.concatenate([octets, np.zeros((len(octets), missing), dtype=np.uint8)], axis=1)
    return np.ascontiguousarray(octets).view(np.uint64)


def ones(bits: Bits) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def _frequencies(number: Integers) -> tuple[Integers, Integers]:
    """Which numbers there are, ascending, and how often; none is negative."""
    if number.max() > number.size:
        return np.unique(number, return_counts=True)
    frequency = np.bincount(number)  # no sorting
    values = np.flatnonzero(frequency)
    return values, frequency[values]


def _over(operation: np.ufunc, rows: Bits) -> Bits:
    """An operation of words over all rows, many rows at a time: [rows, words] as [words]."""
    together = 1 << (len(rows).bit_length() // 2)
    whole = len(rows) - len(rows) % together
    if together > 1:
        many = operation.reduce(rows[:whole].reshape(-1, together * rows.shape[1]), axis=0)
        rows = np.concatenate([many.reshape(together, -1), rows[whole:]])
    return np.asarray(operation.reduce(rows, axis=0))


def _ones(words: Bits) -> Integers:
    """How many bits are set in every row, which is the last axis."""
    count, size = np.bitwise_count(words), words.shape[-1]
    if 64 * size < EXACT:  # a product with ones is the fastest sum there is
        return (count.astype(np.float32) @ np.ones(size, dtype=np.float32)).astype(np.int64)
    return np.asarray(count.sum(axis=-1, dtype=np.int64))

"""What a signal carries. The declaration decides AC or MAC and what a target accepts; values only check it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Analog:
    """Any real number: an image, a current. Multiplying it by a weight is a MAC."""


@dataclass(frozen=True)
class Spike:
    """0 or ``amplitude``. Meeting a weight it costs one AC."""

    amplitude: float = 1.0


@dataclass(frozen=True)
class Count:
    """``amplitude`` times an integer from 0 to ``most``: a sum of spikes, counted as that many events."""

    most: int
    amplitude: float = 1.0


@dataclass(frozen=True)
class Signed:
    """-1, 0 or +1: events with a polarity."""


@dataclass(frozen=True)
class Fixed:
    """Integers of ``bits`` bits (sign included), each worth ``unit`` of the trained network's input.

    ``signed`` says whether any of them may be negative; the bits are the same either way.
    """

    bits: int
    unit: float = 1.0
    signed: bool = True

    @property
    def most(self) -> int:
        """The largest magnitude that the declaration admits."""
        return int(2 ** (self.bits - 1)) - 1


Signal = Analog | Spike | Count | Signed | Fixed


def grid(signal: Signal) -> tuple[float, int, int]:
    """What an integer of the signal is worth, the least and the largest. Raises ``ValueError`` for an analog signal."""
    match signal:
        case Spike(amplitude):
            return amplitude, 0, 1
        case Count(most, amplitude):
            return amplitude, 0, most
        case Signed():
            return 1.0, -1, 1
        case Fixed():
            return signal.unit, -signal.most if signal.signed else 0, signal.most
        case Analog():
            raise ValueError("an analog signal lies on no grid")


def is_event(signal: Signal) -> bool:
    """Whether meeting a weight costs ACs (one for each unit event) rather than a MAC."""
    return isinstance(signal, Spike | Count | Signed)

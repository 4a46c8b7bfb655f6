"""How large the numbers of a population can get in a run of so many steps: what makes narrow arithmetic exact.

``X`` bounds what arrives in one step, from the weights and the largest value that their source sends. With d = X 2^F, r
the largest reset or amount and b the largest bias::

    u:  d T without overflow; a saturating register keeps it inside its top, a wrapping one as well while d <= 2 top
    v:  initial + T (u + b + r) without overflow; likewise

Where a bound stays inside the register the overflow is left out, and where all that is computed on the way stays inside
32 bits the numbers are 32 bits wide; else they are 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.ir.ops import By, Neuron, Readout
from snncompile.run.integer import IntegerGraph
from snncompile.run.ways import Uncarried, Way

Array = NDArray[Any]
KEEP, SHIFT, PRODUCT, FORGET = range(4)  # the decays of network.hpp
NARROW, WIDE = 2**31 - 1, 2**62


@dataclass(frozen=True)
class Rules:
    """What the engine computes for a population, and whether in 64 bits."""

    record: dict[str, Any]
    wide: bool


def largest(value: Array) -> int:
    """The largest magnitude of integers, as a Python number: nothing overflows in it."""
    return max(abs(int(value.max(initial=0))), abs(int(value.min(initial=0))))


def arriving(ways: list[Way], most: dict[str, int]) -> int:
    """A bound on the magnitude of any partial sum of what reaches a population in one step."""
    total = 0
    for way in ways:
        each = most[way.source] * (int(np.prod(way.pool.kernel)) if way.pool and way.pool.kind == "sum" else 1)
        terms = way.weights.shape[1]
        if largest(way.weights) * terms >= WIDE:
            raise Uncarried(f"{way.name} has weights beyond 64 bits")
        total += each * int(np.abs(way.weights).sum(axis=1).max(initial=0))
    return total


def _decay(kept: Array, bits: int) -> tuple[int, int]:
    """How a decay is computed, and its shift. ``kept``: in units of 2^-bits."""
    least, most = int(kept.min()), int(kept.max())
    if least < 0 or most > 1 << bits:
        raise Uncarried("a decay that grows")
    if most == 0:
        return FORGET, 0
    if least == most == 1 << bits:
        return KEEP, 0
    if least == most and most & (most - 1) == 0:
        return SHIFT, bits - (most.bit_length() - 1)
    return PRODUCT, 0


def _register(growing: int, step: int, state: int, top: int, *, wraps: bool) -> tuple[int, int, bool]:
    """Bounds of a register and of what is computed for it, and whether its overflow has to be looked at."""
    if growing < top:
        return growing, growing, False
    if not wraps or step + state <= 2 * top:
        return top, top + step + state, True
    return growing, growing, True


def rules(machine: IntegerGraph, name: str, ways: list[Way], most: dict[str, int], steps: int) -> Rules:
    """The rules of a population that runs for so many steps. Raises ``Uncarried`` where 64 bits are too few."""
    op, sheet = machine.graph.nodes[name], machine.target
    fraction, bits = sheet.potential.fraction_bits, sheet.decay.bits
    x = arriving(ways, most)
    d = x << fraction
    u_wraps, v_wraps = sheet.current.overflow == "wrap", sheet.potential.overflow == "wrap"
    u_top, v_top = 1 << (sheet.current.bits - 1), 1 << (sheet.potential.bits - 1)
    if isinstance(op, Neuron):
        own = {key: np.asarray(value) for key, value in machine.neurons[name].items()}
        current, potential = (_decay((1 << bits) - own[key], bits) for key in ("alpha", "beta"))
        soft = isinstance(op.reset, By)
    else:
        assert isinstance(op, Readout)
        own = {"bias": np.asarray(machine.readouts[name])}
        current, soft, v_wraps = (FORGET, 0), False, False
        potential = _decay((1 << bits) - machine.forgets[name], bits)
    bias, reset, initial, threshold = (
        largest(own[key]) if key in own else 0 for key in ("bias", "reset", "initial", "threshold")
    )
    u, u_raw, u_checked = _register(d if current[0] == FORGET else d * steps, d, 0, u_top, wraps=u_wraps)
    step = u + bias
    growing = max(initial, reset) + steps * (step + reset)
    # a state that starts, or is reset, outside the register counts as one more step
    v, v_raw, v_checked = _register(growing, step, reset + initial, v_top, wraps=v_wraps)
    worst = max(
        u_raw, v_raw + reset, v + initial + reset, bias, threshold + 1, 2 * u_top * u_checked, 2 * v_top * v_checked
    )
    wide = worst >= NARROW or bits > 15
    if worst >= WIDE >> bits:  # a decay multiplies by up to 2^bits before it shifts, here and in run/integer
        raise Uncarried(f"{name} has numbers beyond 64 bits")
    record = {
        "fraction": fraction,
        "decay_bits": bits,
        "floor": sheet.decay.rounding != "toward-zero",
        "current": current[0],
        "potential": potential[0],
        "current_shift": current[1],
        "potential_shift": potential[1],
        "current_checked": u_checked,
        "potential_checked": v_checked,
        "current_wraps": u_wraps,
        "potential_wraps": v_wraps,
        "current_top": u_top if u_wraps else u_top - 1,
        "potential_top": v_top if v_wraps else v_top - 1,
        "soft": soft,
    }
    return Rules(record, wide)

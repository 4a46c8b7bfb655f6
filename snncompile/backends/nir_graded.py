"""Sigma-delta populations with the primitives of NIR, exactly: every number in them is an integer below 2^53.

With m bits, so that M = 2^(m - 1) lies above every change, and K = 2^m::

    sigma[t] = I(x)                                       ``delta``: x itself
    a[t]     = max(0, sigma + bias) = sigma - r0          r0: what is left of it without its digits; the bias of an
                                                          activation stands in the thresholds, as no NIR node adds one
    v[t]     = a[t] - e[t-1]                              e through a Delay of one step
    up, down = v > V - 1/2,  -v > V - 1/2                 V: the threshold, at least 1, so that 0 is no change
    told     = up + down > 1/2                            the spikes of the population
    p[t]     = v + (M + K) told                           v + M where it is told, below 0 where it is not, but for K
    change   = v + K told - q0,                           q0: p without its digits; v where it is told, else 0
    e[t]     = I(change)
    y[t]     = 2^-s (v + K told - qs)                     qs: p without its digits from 2^s on: v / 2^s, rounded down

as ``p - q0`` is ``v + M`` where it is told, and 0 where it is not. How many digits there are follows from the range
of all that may arrive (``nir_ranges.py``). Source of the population: ``SigmaDelta`` in ``ir/ops.py``.
"""

from __future__ import annotations

import numpy as np

from snncompile.backends.nir_ranges import Interval, Ranges
from snncompile.backends.nir_sketch import MOST_BITS, Sketch, Term
from snncompile.errors import NotRepresentable
from snncompile.fixed import Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import SigmaDelta, real


def graded(graph: Graph, name: str, known: Ranges, steps: int) -> tuple[Graph, str | None]:
    """The graph with a sigma-delta population in primitives, and the node that sends its spikes (a sum has none).

    Raises ``NotRepresentable`` where its numbers may be too large to be taken apart.
    """
    op = graph.nodes[name]
    assert isinstance(op, SigmaDelta)
    draw = Sketch(graph, name, op.shape)
    if op.kind == "sigma":
        draw.integral("", draw.terms())
        return draw.done(), None
    active = known.activation(name, op)
    spread = known.arrives[name].summed if op.kind == "sigma-delta" else known.arrives[name].once
    size = _bits(graph, name, max(spread.most, _changes(active)), steps)
    bias, threshold = real(op.bias), np.maximum(real(op.threshold), 1.0)
    a: list[Term]
    if op.kind == "sigma-delta":
        sigma = draw.integral("sigma", draw.terms())
        left = draw.digits("active", sigma, max(1, int(active.most).bit_length()), offset=bias)
        a, bias = [(sigma, 1.0, 0), (left, -1.0, 0)], np.zeros(())
    else:
        a = draw.terms()
    e = draw.integral("known", [])
    v = draw.sum("change", [*a, (e, -1.0, 1)])  # without the bias of a delta, which its thresholds hold
    told = _told(draw, v, threshold, bias)
    draw.connect(e, _send(draw, op, v, told, bias, size))
    return draw.done(), told


def _changes(active: Interval) -> float:
    """The largest change of an activation, as both it and what was told lie in its interval, or are 0."""
    whole = active.with_zero
    return float(np.max(whole.high - whole.low, initial=0.0))


def _bits(graph: Graph, name: str, most: float, steps: int) -> int:
    bits = int(most).bit_length() + 1 if np.isfinite(most) else MOST_BITS + 1
    if bits > MOST_BITS:
        raise NotRepresentable(
            f"its sum may reach {most:.3g} in {steps} steps",
            where=graph.label(name),
            why=f"NIR's numbers are float64, which takes integers of {MOST_BITS} bits apart and no larger ones",
            remedy="shorter samples, or `snncompile simulate`",
        )
    return bits


def _told(draw: Sketch, v: str, threshold: Reals, bias: Reals) -> str:
    up = draw.above("up", threshold - 0.5 - bias, [(v, 1.0, 0)])
    down = draw.above("down", threshold - 0.5 + bias, [(v, -1.0, 0)])
    return draw.above("told", 0.5, [(up, 1.0, 0), (down, 1.0, 0)])


def _send(draw: Sketch, op: SigmaDelta, v: str, told: str, bias: Reals, bits: int) -> list[Term]:
    """The message, and what receivers know more then."""
    shift = op.shift
    high = max(bits, shift + 1)
    middle, gate = 2.0 ** (high - 1), 2.0**high
    p = draw.sum("given", [(v, 1.0, 0), (told, middle + gate, 0)])
    upper = draw.digits("told_digit", p, high, lowest=shift, offset=bias - gate)
    lower = upper
    if shift:
        lower = draw.digits("told_low", upper, shift, offset=bias - gate)
    unit = 2.0**-shift
    draw.sum("", [(v, unit, 0), (told, gate * unit, 0), (upper, -unit, 0)])
    return [(v, 1.0, 0), (told, gate, 0), (lower, -1.0, 0)]

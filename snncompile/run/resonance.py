"""One step of the neurons that are not LIF, the same code for both number types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.ir.ops import Resonator, SigmaDelta
from snncompile.run.steps import Fired, State

Array = NDArray[Any]
Turn = Callable[[Array, Array], Array]  # a part of the state times a cosine or sine, with the machine's rounding


def change(op: SigmaDelta, x: Array, state: State, threshold: Array, bias: Array) -> Fired:
    """What receivers have not been told yet, and where it is told now. ``state``: the sum u, what they know w."""
    if op.kind == "sigma-delta":
        state.u = state.u + x
        activation = np.maximum(state.u + bias, 0)
    else:
        activation = x + bias
    v = activation - state.w
    return Fired(v, (np.abs(v) >= threshold) & (v != 0))


def resonate(
    op: Resonator,
    x: Array,
    state: State,
    factors: tuple[Array, Array],
    threshold: Array,
    turn: Turn,
    clip: Callable[[Array], Array],
) -> Fired:
    """The turned state plus ``x`` [batch, 2, *shape]. ``state``: real part u, imaginary part w."""
    cosine, sine = factors
    before = state.w
    real = turn(state.u, cosine) - turn(state.w, sine) + x[:, 0]
    imaginary = turn(state.u, sine) + turn(state.w, cosine) + x[:, 1]
    state.u, state.w = clip(real), clip(imaginary)
    if op.kind == "phase":
        return Fired(state.u, (state.u >= threshold) & (state.w >= 0) & (before < 0))
    return Fired(state.w, state.w >= threshold)


def settle(op: Resonator, s: Array, state: State, below: Array) -> None:
    """The reset of the Izhikevich form: just ``below`` the threshold, on the imaginary axis."""
    if op.kind == "izhikevich":
        state.u = np.where(s, 0, state.u)
        state.w = np.where(s, below, state.w)

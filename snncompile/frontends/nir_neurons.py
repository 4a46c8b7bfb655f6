"""NIR's nodes with state as populations; what a step of their equations is says ``nir_time.py``.

IF, LIF, CubaLIF         ``Neuron``
LI, I, CubaLI, Threshold ``Neuron`` without a reset; with Threshold -> Scale -> LI one with a soft reset, because::

    v[t] = (1 - beta) v[t-1] + gain (x[t] + scale s[t-1]) = (1 - beta) (v[t-1] - amount s[t-1]) + gain x[t],
    amount = -scale gain / (1 - beta)

Threshold                ``Neuron`` without memory (beta = 1)
LI or I at an Output     ``Readout``: its accumulator is the potential
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from snncompile.errors import UnsupportedNode
from snncompile.fixed import Reals
from snncompile.frontends.nir_layers import compact, fitted
from snncompile.frontends.nir_record import Node
from snncompile.frontends.nir_time import LEAKY, Leak, Time
from snncompile.ir.ops import By, Neuron, Readout, Reset, Shape, To, number

SPIKING = ("IF", "LIF", "CubaLIF")
ANALOG = ("I", "LI", "CubaLI")
CURRENT = ("CubaLI", "CubaLIF")
STATEFUL = (*SPIKING, *ANALOG, "Threshold")


@dataclass(frozen=True)
class Fired:
    """An LI, I or CubaLI whose potential a Threshold reads, which a Scale may take back to it."""

    threshold: Node
    back: Node | None = None


def settled(node: Node, shape: Shape) -> Node:
    """The node with every parameter as one number, or of the shape of its neurons."""
    return replace(node, fields={key: fitted(node, key, shape) for key in node.fields})


def leak_of(node: Node, time: Time) -> Leak:
    """What a node forgets in a step, and the gain of its input."""
    return time.leak(node, LEAKY.get(node.kind, ""))


def population(node: Node, shape: Shape, time: Time, fired: Fired | None = None) -> Neuron:
    """The neurons of a node that fires, or of one that a Threshold fires for."""
    node = settled(node, shape)
    leak = leak_of(node, time)
    rest = node.reals("v_leak") if node.kind in LEAKY else np.zeros(())
    threshold, reset, value = _fires(node, shape, time, leak, fired)
    alpha, gain = number(1.0), leak.gain
    if node.kind in CURRENT:
        current = time.current(node)
        alpha = current.beta
        gain = np.ones(()) if time.semantics == "exact" else np.asarray(gain * current.gain)
    start = {"reset": value, "leak": rest}.get(time.options.start or "zero", number(0.0))
    return Neuron(
        shape,
        alpha=compact(alpha, shape),
        beta=compact(leak.beta, shape),
        threshold=compact(threshold, shape),
        fires=_tie(time),
        reset=reset,
        initial=compact(start, shape),
        gain=compact(gain, shape),
        rest=compact(rest, shape),
    )


def _fires(node: Node, shape: Shape, time: Time, leak: Leak, fired: Fired | None) -> tuple[Reals, Reset, Reals]:
    """Threshold, reset, and the value that it resets to (0 where it takes something off)."""
    if fired is not None:
        amount = np.zeros(())
        if fired.back is not None:
            scale = fitted(fired.back, "scale", shape)
            amount = -(scale * leak.gain) / (1.0 - leak.beta)
        return fitted(fired.threshold, "threshold", shape), By(compact(amount, shape)), np.zeros(())
    threshold, value = node.reals("v_threshold"), node.reals("v_reset", 0.0)
    if subtracts(time):
        return threshold, By(compact(threshold, shape)), np.zeros(())
    return threshold, To(compact(value, shape)), value


def subtracts(time: Time) -> bool:
    """Whether a spike takes the threshold off the potential that fired, in place of NIR's reset to a value."""
    return time.options.reset == "subtract" or (time.options.reset is None and time.semantics == "sinabs")


def _tie(time: Time) -> Literal[">", ">="]:
    at_threshold = time.options.fires == "ge" or (time.options.fires is None and time.semantics == "sinabs")
    return ">=" if at_threshold else ">"


def stateless(node: Node, shape: Shape, time: Time) -> Neuron:
    """A Threshold that reads no potential: what arrives in a step is compared, and nothing is kept."""
    return Neuron(
        shape,
        beta=number(1.0),
        threshold=compact(fitted(node, "threshold", shape), shape),
        fires=_tie(time),
    )


def readout(node: Node, shape: Shape, time: Time) -> tuple[Readout, Reals]:
    """An LI or I that is only looked at, and what must scale its input. Raises ``UnsupportedNode``."""
    if node.kind == "CubaLI":
        why = "a read-out keeps one state, a CubaLI two"
        raise UnsupportedNode("is read as it is", where=node.where, why=why, remedy="an LI, or a Threshold behind it")
    node = settled(node, shape)
    leak = leak_of(node, time)
    beta, rest = compact(leak.beta, shape), node.reals("v_leak") if node.kind in LEAKY else np.zeros(())
    if beta.ndim:
        why = "a read-out has one decay for all its neurons"
        raise UnsupportedNode("its decay differs from neuron to neuron", where=node.where, why=why)
    if np.any(rest) and time.options.start == "leak":
        raise UnsupportedNode("starts at v_leak", where=node.where, why="a read-out starts at 0")
    gain = compact(leak.gain, shape)
    if not beta:
        return Readout(shape, kind="sum"), gain
    return Readout(shape, kind="weighted", decay=float(1.0 - beta), bias=compact(leak.beta * rest, shape)), gain

"""How many synapses an element feeds, in closed form: int64 maps ``[2, *shape]``, exact.

Row 0 counts every synapse (structural), row 1 those whose weight is not zero. A tap k of a convolution's axis reads
element i where a place p has ``stride p + dilation k - padding = spread i``; for one k and i there is one such p or
none. With ``M[k, i]`` 1 where there is, and n[c, k, l] weights (structural: all of them, at every tap) of the tap
(k, l) over the output channels that read channel c::

    fan_out[c, i, j] = sum over k, l of n[c, k, l] M[k, i] M'[l, j]

One factor an axis: borders, stride, dilation, groups and spread are all in M, and no convolution is run. Pools pass a
map on in the same way, axis by axis.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Integers, Reals
from snncompile.ir.ops import Conv, Dense, Flatten, Pool, Scale, Shape, real

Linear = Flatten | Pool | Scale  # what has no weights of its own: events pass through


def synapses(op: Dense | Conv, arriving: Shape, out: Shape) -> Integers:
    """The synapses of each arriving element: [2, *arriving]; ``out``: the shape of what the op sends."""
    weight = real(op.weight)
    outward, inward, *kernel = weight.shape
    found = np.empty((2, *arriving), dtype=np.int64)
    if isinstance(op, Dense):
        found[0] = outward
        found[1] = outward if weight.all() else np.count_nonzero(weight, axis=0).reshape(arriving)
        return found
    spread = op.spread or (1,) * len(kernel)
    axes = [
        meets(*axis)
        for axis in zip(kernel, out[1:], arriving[1:], op.stride, op.padding, op.dilation, spread, strict=True)
    ]
    each = outward // op.groups
    found[0] = each * reduce(np.multiply.outer, (axis.sum(axis=0, dtype=np.int64) for axis in axes))
    if weight.all():
        found[1] = found[0]
        return found
    # of each channel that arrives: the weights of a tap over the output channels of its group
    taps: Reals = np.count_nonzero(weight.reshape(op.groups, each, inward, *kernel), axis=1).astype(np.float64)
    taps = taps.reshape(op.groups * inward, *kernel)
    for axis in axes:  # the axis in front is summed away, its elements come last; far below 2^53, so exact
        taps = np.tensordot(taps, axis.astype(np.float64), axes=([1], [0]))
    found[1] = taps
    return found


def meets(
    kernel: int, places: int, size: int, stride: int, padding: int, dilation: int, spread: int
) -> NDArray[np.bool_]:
    """Along one axis, whether a tap meets an element at any place: [kernel, size]."""
    at = np.arange(size) * spread + padding - np.arange(kernel)[:, None] * dilation
    return np.asarray((at >= 0) & (at % stride == 0) & (at < places * stride))


def before(op: Linear, fan_out: Integers, arriving: Shape) -> Integers:
    """The map before an op without weights, from the map [2, *out] behind it."""
    match op:
        case Flatten():
            return fan_out.reshape(2, *arriving)
        case Scale():
            factor = real(op.factor)
            if factor.all():
                return fan_out
            return np.stack([fan_out[0], fan_out[1] * (factor != 0)])
        case Pool():
            for axis, (size, kernel, stride, padding) in enumerate(
                zip(arriving[1:], op.kernel, op.stride, op.padding, strict=True), start=2
            ):
                fan_out = _windows(fan_out, axis, size, kernel, stride, padding)
            return fan_out


def _windows(fan_out: Integers, axis: int, size: int, kernel: int, stride: int, padding: int) -> Integers:
    """A map of windows as one of the elements in them, along one axis: every window that holds an element adds."""
    places = fan_out.shape[axis]
    found = np.zeros((*fan_out.shape[:axis], size + 2 * padding, *fan_out.shape[axis + 1 :]), dtype=np.int64)
    ahead = (slice(None),) * axis
    for tap in range(kernel):
        found[(*ahead, slice(tap, tap + stride * (places - 1) + 1, stride))] += fan_out
    return found[(*ahead, slice(padding, padding + size))]

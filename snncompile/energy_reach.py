"""How many synapses an element feeds, in closed form: int64 maps of ``[2, *shape]``, exact.

Row 0 counts every synapse (structural), row 1 those whose weight is not zero. A tap k of a convolution's axis reads
element i where a place p has ``stride p + dilation k - padding = spread i``; for one k and i there is one such p or
none. With ``M[k, i]`` 1 where there is, and n[c, k, l] weights (structural: all of them, at every tap) of the tap
(k, l) over the output channels that read channel c::

    fan_out[c, i, j] = sum over k, l of n[c, k, l] M[k, i] M'[l, j]

One factor an axis: borders, stride, dilation, groups and spread are all in M, and no convolution is run. Pools pass a
map on in the same way, axis by axis. A map broadcasts to its shape: where it is the same all along an axis, or in both
rows, it may have one element there.
"""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Integers, Reals
from snncompile.ir.ops import Conv, Dense, Flatten, Pool, Scale, Shape, real

Linear = Flatten | Pool | Scale  # what has no weights of its own: events pass through


def total(row: Integers | NDArray[np.bool_], shape: Shape) -> int:
    """The sum of a row of a map, or the number of truths, over all elements."""
    return int(row.sum()) * (prod(shape) // row.size)


def ones(shape: Shape) -> Integers:
    """The map of one synapse an element."""
    return np.ones((1,) * (1 + len(shape)), dtype=np.int64)


def synapses(op: Dense | Conv, arriving: Shape, out: Shape) -> Integers:
    """The synapses of each arriving element: a map of [2, *arriving]; ``out``: the shape of what the op sends."""
    weight = real(op.weight)
    outward, inward, *kernel = weight.shape
    all_present = bool(weight.all())
    if isinstance(op, Dense):
        if all_present:
            return ones(arriving) * int(outward)
        return np.stack([np.full(arriving, outward), np.count_nonzero(weight, axis=0).reshape(arriving)])
    spread = op.spread or (1,) * len(kernel)
    along = list(zip(kernel, out[1:], arriving[1:], op.stride, op.padding, op.dilation, spread, strict=True))
    made = {axis: meets(*axis) for axis in dict.fromkeys(along)}
    each = outward // op.groups
    sums = {axis: taps.sum(axis=0, dtype=np.int64) for axis, taps in made.items()}
    every = each * reduce(np.multiply.outer, [sums[axis] for axis in along])
    if all_present:
        return np.asarray(every[None, None])
    # of each channel that arrives: the weights of a tap over the output channels of its group
    taps: Reals = np.count_nonzero(weight.reshape(op.groups, each, inward, *kernel), axis=1).astype(np.float64)
    taps = taps.reshape(op.groups * inward, *kernel)
    for axis in along:  # the axis in front is summed away, its elements come last; far below 2^53, so exact
        taps = np.tensordot(taps, made[axis].astype(np.float64), axes=([1], [0]))
    found = np.empty((2, *arriving), dtype=np.int64)
    found[0], found[1] = every, taps
    return found


def meets(
    kernel: int, places: int, size: int, stride: int, padding: int, dilation: int, spread: int
) -> NDArray[np.bool_]:
    """Along one axis, whether a tap meets an element at any place: [kernel, size]."""
    at = np.arange(size) * spread + padding - np.arange(kernel)[:, None] * dilation
    return np.asarray((at >= 0) & (at % stride == 0) & (at < places * stride))


def before(op: Linear, fan_out: Integers, arriving: Shape) -> Integers:
    """The map before an op without weights, of [2, *arriving], from the map behind it."""
    match op:
        case Flatten():
            if fan_out[0].size > 1:
                fan_out = np.broadcast_to(fan_out, (len(fan_out), *(op.shape or (prod(arriving),))))
                return fan_out.reshape(-1, *arriving)
            return fan_out.reshape(-1, *(1,) * len(arriving))
        case Scale():
            factor = real(op.factor)
            return fan_out if factor.all() else fan_out * (factor != 0)  # an event times zero is none
        case Pool():
            for axis, (size, kernel, stride, padding) in enumerate(
                zip(arriving[1:], op.kernel, op.stride, op.padding, strict=True), start=2
            ):
                fan_out = _windows(fan_out, axis, size, kernel, stride, padding)
            return fan_out


def _windows(fan_out: Integers, axis: int, size: int, kernel: int, stride: int, padding: int) -> Integers:
    """A map of windows as one of the elements in them, along one axis: every window that holds an element adds."""
    places = (size + 2 * padding - kernel) // stride + 1
    if fan_out.shape[axis] == 1 and not padding and kernel == stride and places * stride == size:
        return fan_out  # one window an element
    found = np.zeros((*fan_out.shape[:axis], size + 2 * padding, *fan_out.shape[axis + 1 :]), dtype=np.int64)
    ahead = (slice(None),) * axis
    for tap in range(kernel):
        found[(*ahead, slice(tap, tap + stride * (places - 1) + 1, stride))] += fan_out
    return found[(*ahead, slice(padding, padding + size))]

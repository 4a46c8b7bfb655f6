"""Two linear ops in a row as one: the algebra that ``fuse_pool`` and ``legalise`` share.

``compose(a, b, shape)`` is the op ``x -> b(a(x))`` for ``x`` of the given shape; biases are not looked at
(``canonical`` has moved them into the populations). Exact but for float64 rounding::

    pool = depthwise convolution with ones (sum) or 1/k^2 (mean)
    conv . conv: kernel sum_j K2[j] K1[u - s1 d2 j], stride s1 s2, padding p1 + s1 p2, where the zeros that the second
    one
                 sees outside its input are zeros of the first one too; else by the matrix
    dense . anything: the matrix times the adjoint of the map
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Op, Pool, Scale, Shape, Size, real
from snncompile.ir.shapes import shape_of
from snncompile.run import linear
from snncompile.run.reference import apply_linear

MATRIX_NUMBERS = 1 << 27  # the largest matrix made as a fall-back: 1 GiB

Linear = Dense | Conv | Pool | Scale | Flatten


def compose(first: Linear, second: Linear, shape: Shape, middle: Shape | None = None) -> Dense | Conv | Scale | Flatten:
    """One op that does what ``first`` and then ``second`` do to a signal of ``shape``.

    ``middle`` is the form in which ``second`` reads the signal, where ``first`` no longer gives it that form: a flatten
    that it has swallowed, or a matrix. Raises ``NotRepresentable`` for a maximum, and for a matrix that is too large.
    """
    given = shape_of("compose", first, shape)
    middle = given if middle is None else middle
    match first, second:
        case _, Flatten():
            return _plain(first, shape)
        case Flatten(), Scale():
            return Scale(np.broadcast_to(real(second.factor), middle).reshape(shape))
        case Flatten(), Conv() | Pool() if middle != shape:  # no population has the form that it reads
            return Dense(matrix(as_conv(second, middle[0]), middle))
        case Flatten(), _:  # a flatten in front only changes the form, and Dense reads any
            return _plain(second, middle)
        case _, Scale():
            return _scale_rows(_plain(first, shape), _in_form(real(second.factor), middle, given), given, shape)
        case Scale(), _:
            return _scale_columns(_plain(second, middle), real(first.factor), shape)
        case _, Dense():
            rows = real(second.weight)
            return Dense(adjoint(first, rows.reshape(len(rows), *given), shape).reshape(len(rows), -1))
        case Dense(), Conv() | Pool():
            return Dense(linear.product(matrix(as_conv(second, middle[0]), middle), real(first.weight)))
        case ((Conv() | Pool()), (Conv() | Pool())):
            one, two = as_conv(first, shape[0]), as_conv(second, middle[0])
            if zeros_agree(one, two, shape, middle):
                return _convolved(one, two)
            return Dense(linear.product(matrix(two, middle), matrix(one, shape)))
        case _:
            raise NotRepresentable(f"{first} before {second} has no common form", where="compose")


def as_conv(op: Conv | Pool, channels: int) -> Conv:
    """A pool as the depthwise convolution it is; a convolution as it stands, without its bias."""
    if isinstance(op, Conv):
        return replace(op, bias=None)
    if op.kind == "max":
        raise NotRepresentable("a maximum is not linear", where="Pool")
    value = 1.0 if op.kind == "sum" else 1.0 / prod(op.kernel)
    weight = np.full((channels, 1, *op.kernel), value)
    return Conv(weight, None, op.stride, op.padding, (1,) * len(op.kernel), channels)


def adjoint(op: Linear, y: Reals, shape: Shape) -> Reals:
    """The transposed map of ``op`` (which takes ``shape``) on ``y`` [n, *out]: [n, *shape]."""
    match op:
        case Flatten():
            return y.reshape(len(y), *shape)
        case Scale():
            return np.asarray(y * real(op.factor))
        case Dense():
            return linear.product(y.reshape(len(y), -1), real(op.weight)).reshape(len(y), *shape)
        case Conv() | Pool():
            conv = as_conv(op, shape[0])
            geometry = conv.stride, conv.padding, conv.dilation, conv.groups, conv.spread
            return linear.conv_adjoint(y, real(conv.weight), shape[1:], *geometry)


def _plain(op: Linear, shape: Shape) -> Dense | Conv | Scale | Flatten:
    """An op on a signal of ``shape`` without its bias, a pool as a convolution."""
    match op:
        case Dense():
            return Dense(op.weight)
        case Conv() | Pool():
            return as_conv(op, shape[0])
        case _:
            return op


def _in_form(factor: Reals, middle: Shape, given: Shape) -> Reals:
    """A factor on a signal of form ``middle`` as one on the same numbers in the form ``given``."""
    return factor if factor.ndim == 0 or middle == given else np.broadcast_to(factor, middle).reshape(given)


def _scale_rows(op: Op, factor: Reals, middle: Shape, shape: Shape) -> Dense | Conv | Scale:
    """``factor * op(x)``: into the rows where the factor is one number an output channel."""
    match op:
        case Scale():
            return Scale(real(op.factor) * factor)
        case Dense():
            return Dense(real(op.weight) * np.broadcast_to(factor, middle).reshape(-1, 1))
        case Conv():
            rows = _per_channel(factor, middle)
            if rows is None:
                return Dense(matrix(op, shape) * np.broadcast_to(factor, middle).reshape(-1, 1))
            weight = real(op.weight) * rows.reshape(-1, *(1,) * (real(op.weight).ndim - 1))
            return replace(op, weight=weight, bias=None)
        case _:
            raise NotRepresentable("no rows to scale", where="compose")


def _scale_columns(op: Op, factor: Reals, shape: Shape) -> Dense | Conv:
    """``op(factor * x)``: into the columns where the factor is one number an input channel."""
    match op:
        case Dense():
            return Dense(real(op.weight) * np.broadcast_to(factor, shape).reshape(1, -1))
        case Conv():
            columns = _per_channel(factor, shape)
            if columns is None:
                return Dense(matrix(op, shape) * np.broadcast_to(factor, shape).reshape(1, -1))
            out, inward, *kernel = op.weight.shape
            grouped = columns.reshape(op.groups, 1, inward, *(1,) * len(kernel))
            weight = real(op.weight).reshape(op.groups, out // op.groups, inward, *kernel) * grouped
            return replace(op, weight=weight.reshape(op.weight.shape), bias=None)
        case _:
            raise NotRepresentable("no columns to scale", where="compose")


def _per_channel(factor: Reals, shape: Shape) -> Reals | None:
    """The factor as one number a channel; None where it differs inside a channel."""
    whole = np.broadcast_to(factor, shape).reshape(shape[0], -1)
    return whole[:, 0] if (whole == whole[:, :1]).all() else None


def zeros_agree(one: Conv, two: Conv, shape: Shape, middle: Shape) -> bool:
    """Whether what the second convolution reads outside its input is zero in the composed one as well.

    Outside the middle signal the second op sees zeros. The composed op sees the first one's response there, which is
    zero only if no tap of it reaches into the input. A spread signal has zeros between, which no kernel repeats.
    """
    if max((*one.spread, *two.spread), default=1) > 1:
        return False
    for axis, pad in enumerate(two.padding):
        if pad == 0:
            continue
        reach = one.dilation[axis] * (one.weight.shape[2 + axis] - 1)
        last_before = -one.stride[axis] - one.padding[axis] + reach  # the furthest input that place -1 reads
        first_after = middle[1 + axis] * one.stride[axis] - one.padding[axis]
        if last_before >= 0 or first_after < shape[1 + axis]:
            return False
    return True


def _convolved(one: Conv, two: Conv) -> Conv:
    """The kernel of the second convolution, each of its taps replaced by the kernel of the first."""
    w1, w2 = ungrouped(one), ungrouped(two)
    axes = w1.ndim - 2
    spread: Size = tuple(s * d for s, d in zip(one.stride, two.dilation, strict=True))
    reach: Size = tuple(
        d * (k1 - 1) + e * (k2 - 1) + 1
        for d, k1, e, k2 in zip(one.dilation, w1.shape[2:], spread, w2.shape[2:], strict=True)
    )
    weight = np.zeros((w2.shape[0], w1.shape[1], *reach))
    for tap in np.ndindex(*w2.shape[2:]):
        first = tuple(e * j for e, j in zip(spread, tap, strict=True))
        where = tuple(
            slice(f, f + d * (k - 1) + 1, d) for f, d, k in zip(first, one.dilation, w1.shape[2:], strict=True)
        )
        weight[(slice(None), slice(None), *where)] += np.tensordot(w2[(slice(None), slice(None), *tap)], w1, axes=1)
    stride = tuple(a * b for a, b in zip(one.stride, two.stride, strict=True))
    padding = tuple(p1 + s * p2 for p1, s, p2 in zip(one.padding, one.stride, two.padding, strict=True))
    groups = one.groups if one.groups == two.groups and _depthwise(one) and _depthwise(two) else 1
    if groups > 1:
        weight = np.stack([weight[c, c] for c in range(groups)])[:, None]
    return Conv(weight, None, stride, padding, (1,) * axes, groups)


def _depthwise(op: Conv) -> bool:
    return op.groups == op.weight.shape[0] and op.weight.shape[1] == 1


def ungrouped(op: Conv) -> Reals:
    """The weights as if ``groups`` were 1: [out, in, *kernel], zeros between groups."""
    weight = real(op.weight)
    if op.groups == 1:
        return weight
    out, inward, *kernel = weight.shape
    whole = np.zeros((out, inward * op.groups, *kernel))
    each = out // op.groups
    for group in range(op.groups):
        rows = slice(group * each, (group + 1) * each)
        whole[rows, group * inward : (group + 1) * inward] = weight[rows]
    return whole


def matrix(op: Conv, shape: Shape) -> Reals:
    """A convolution over a signal of ``shape`` as the matrix it is. Raises ``NotRepresentable`` where that is too
    large.
    """
    size, out = prod(shape), prod(shape_of("compose", op, shape))
    if size * out > MATRIX_NUMBERS:
        raise NotRepresentable(
            f"its matrix would hold {size * out} numbers",
            where="compose",
            why="the borders of the two ops do not compose",
        )
    basis = np.eye(size).reshape(size, *shape)
    return apply_linear(Graph({"op": op}, ()), "op", basis).reshape(size, out).T

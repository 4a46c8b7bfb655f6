"""The linear ops on arrays ``[batch, *shape]``, the same code for float64 and int64.

Integers are what they are in any type that holds them: where every sum stays below 2^52, whatever its order, products
of integers run in float64, which matrix libraries multiply many times faster, and come back as the same integers.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snncompile.ir.ops import Size

Array = NDArray[Any]
EXACT = 2.0**52  # half of what float64 counts to: the bound itself is computed with rounding
PATCH_NUMBERS = 1 << 24  # a convolution copies its input patch by patch of the batch, this many numbers at a time


def float64_is_exact(x: Array, weight: Array) -> bool:
    """Whether both are integers and no sum of ``weight[o, ...] * x`` can reach what float64 does not count to."""
    if x.dtype.kind not in "iu" or weight.dtype.kind not in "iu" or not x.size or not weight.size:
        return False
    largest = max(abs(int(x.min())), abs(int(x.max())))
    sums = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1)
    return largest * float(sums.max()) < EXACT


def dense(x: Array, weight: Array) -> Array:
    """``y[n, o] = sum_i weight[o, i] x[n, i]``; ``x`` is flattened behind the batch axis."""
    if float64_is_exact(x, weight):
        return dense(x.astype(np.float64), weight.astype(np.float64)).astype(np.int64)
    return x.reshape(len(x), -1) @ weight.T


def spread_out(x: Array, spread: Size) -> Array:
    """``x`` [n, in, *size] with ``spread - 1`` zeros behind each value, axis by axis."""
    if all(step == 1 for step in spread):
        return x
    size = tuple(n * s for n, s in zip(x.shape[2:], spread, strict=True))
    result = np.zeros((*x.shape[:2], *size), dtype=x.dtype)
    result[(slice(None), slice(None), *(slice(None, None, step) for step in spread))] = x
    return result


def conv(x: Array, weight: Array, stride: Size, padding: Size, dilation: Size, groups: int, spread: Size = ()) -> Array:
    """Correlation of ``x`` [n, in, *size] with ``weight`` [out, in / groups, *kernel], zeros outside, as in torch."""
    x = spread_out(x, spread)
    if float64_is_exact(x, weight):
        y = conv(x.astype(np.float64), weight.astype(np.float64), stride, padding, dilation, groups)
        return y.astype(np.int64)
    out, inward, *kernel = weight.shape
    axes = len(kernel)
    windows = _windows(x, tuple(kernel), stride, padding, dilation)  # [n, in, *place, *kernel]
    place = windows.shape[2 : 2 + axes]
    result = np.empty((len(x), out, *place), dtype=np.result_type(x, weight))
    step = max(1, PATCH_NUMBERS // max(1, prod(windows.shape[1:])))
    each = out // groups
    for group in range(groups):
        rows = weight[group * each : (group + 1) * each].reshape(each, -1)
        for first in range(0, len(x), step):
            part = windows[first : first + step, group * inward : (group + 1) * inward]
            # [n, *place, in, *kernel], so that one row of the product is one output pixel
            patches = np.moveaxis(part, 1, 1 + axes).reshape(len(part) * prod(place), -1)
            product = (patches @ rows.T).reshape(len(part), *place, each)
            result[first : first + step, group * each : (group + 1) * each] = np.moveaxis(product, -1, 1)
    return result


def pool(x: Array, kind: str, kernel: Size, stride: Size, padding: Size) -> Array:
    """Sum, mean (over all kernel cells) or maximum of each window; padding counts as zeros."""
    axes = tuple(range(-len(kernel), 0))
    windows = _windows(x, kernel, stride, padding, (1,) * len(kernel))
    if kind == "max":
        return np.asarray(windows.max(axis=axes))
    total = windows.sum(axis=axes)
    return np.asarray(total / prod(kernel) if kind == "mean" else total)


def _windows(x: Array, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Array:
    edge = [(0, 0), (0, 0), *((p, p) for p in padding)]
    padded = np.pad(x, edge) if any(padding) else x
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + len(kernel))))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
    taps = tuple(slice(None, None, d) for d in dilation)
    return windows[steps + taps]


def conv_adjoint(
    y: Array, weight: Array, size: Size, stride: Size, padding: Size, dilation: Size, groups: int, spread: Size = ()
) -> Array:
    """The transposed map of ``conv`` on ``y`` [n, out, *place]: [n, in, *size], where ``size`` is the size of conv's
    input.
    """
    out, inward, *kernel = weight.shape
    each = out // groups
    apart = spread or (1,) * len(size)
    size = tuple(n * s for n, s in zip(size, apart, strict=True))
    padded = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
    result = np.zeros((len(y), inward * groups, *padded), dtype=np.result_type(y, weight))
    for group in range(groups):
        part = y[:, group * each : (group + 1) * each]
        into = result[:, group * inward : (group + 1) * inward]
        for tap in np.ndindex(*kernel):
            where = tuple(
                slice(d * k, d * k + s * (n - 1) + 1, s)
                for d, k, s, n in zip(dilation, tap, stride, y.shape[2:], strict=True)
            )
            taps = weight[(slice(group * each, (group + 1) * each), slice(None), *tap)]
            into[(slice(None), slice(None), *where)] += np.moveaxis(np.tensordot(part, taps, axes=([1], [0])), -1, 1)
    inside = tuple(slice(p, p + n, s) for p, n, s in zip(padding, size, apart, strict=True))
    return result[(slice(None), slice(None), *inside)]

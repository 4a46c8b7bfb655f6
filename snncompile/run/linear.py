"""The linear ops on arrays ``[batch, *shape]``, the same code for float64 and int64."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snncompile.ir.ops import Size

Array = NDArray[Any]
PATCH_NUMBERS = 1 << 24  # a convolution copies its input patch by patch of the batch, this many numbers at a time


def dense(x: Array, weight: Array) -> Array:
    """``y[n, o] = sum_i weight[o, i] x[n, i]``; ``x`` is flattened behind the batch axis."""
    return x.reshape(len(x), -1) @ weight.T


def conv(x: Array, weight: Array, stride: Size, padding: Size, dilation: Size, groups: int) -> Array:
    """Correlation of ``x`` [n, in, *size] with ``weight`` [out, in / groups, *kernel], zeros outside, as in torch."""
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
    y: Array, weight: Array, size: Size, stride: Size, padding: Size, dilation: Size, groups: int
) -> Array:
    """The transposed map of ``conv`` on ``y`` [n, out, *place]: [n, in, *size], where ``size`` is the size of conv's
    input.
    """
    out, inward, *kernel = weight.shape
    each = out // groups
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
    inside = tuple(slice(p, p + n) for p, n in zip(padding, size, strict=True))
    return result[(slice(None), slice(None), *inside)]

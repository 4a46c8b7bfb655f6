"""The linear ops on arrays ``[batch, *shape]``, the same code for float64 and int64.

Integers are what they are in any type that holds them: where every sum stays below what float32 or float64 counts to,
whatever its order, products of integers run in that type, which matrix libraries multiply many times faster, and come
back as the same integers.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snncompile.ir.ops import Size

Array = NDArray[Any]
COUNTS: dict[type[np.floating[Any]], float] = {np.float32: 2.0**24, np.float64: 2.0**53}
"""Every whole number up to here is one of the type."""

PATCH_NUMBERS = 1 << 22  # a convolution copies its input patch by patch of the batch, this many numbers at a time


def largest_sum(weight: Array) -> float:
    """The largest sum of magnitudes of a row ``weight[o, ...]``."""
    return float(np.abs(weight).reshape(len(weight), -1).sum(axis=1, dtype=np.float64).max()) if weight.size else 0.0


def exact_type(x: Array, weight: Array, most: float | None = None) -> type[np.floating[Any]] | None:
    """The fastest type in which products of integers are exact: no sum of ``weight[o, ...] * x`` can reach half of what
    it counts to (half: the bound itself is computed with rounding). None where there is none, or no integers.

    ``most``: the ``largest_sum`` of the weights, where it is known.
    """
    if x.dtype.kind not in "iu" or weight.dtype.kind not in "iu" or not x.size or not weight.size:
        return None
    largest = max(abs(int(x.min())), abs(int(x.max())))
    most = largest_sum(weight) if most is None else most
    bound = largest * max(most, 1.0)  # the values themselves must be held as well
    return next((held for held, end in COUNTS.items() if max(bound, most) < end / 2), None)


def product(a: Array, b: Array) -> Array:
    """``a @ b``, silent about flags of the processor.

    OpenBLAS's AVX-512 kernels for few columns compute on lanes they never use, with whatever numbers lie there, so that
    an "invalid value" is reported of products in which every number is finite. A NaN that comes out is seen by its
    value.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(a @ b)


def dense(x: Array, weight: Array, most: float | None = None) -> Array:
    """``y[n, o] = sum_i weight[o, i] x[n, i]``; ``x`` is flattened behind the batch axis. ``most`` as in
    ``exact_type``.
    """
    if (held := exact_type(x, weight, most)) is not None:
        return dense(x.astype(held), weight.astype(held)).astype(np.int64)
    return product(x.reshape(len(x), -1), weight.T)


def spread_out(x: Array, spread: Size) -> Array:
    """``x`` [n, in, *size] with ``spread - 1`` zeros behind each value, axis by axis."""
    if all(step == 1 for step in spread):
        return x
    size = tuple(n * s for n, s in zip(x.shape[2:], spread, strict=True))
    result = np.zeros((*x.shape[:2], *size), dtype=x.dtype)
    result[(slice(None), slice(None), *(slice(None, None, step) for step in spread))] = x
    return result


def conv(
    x: Array,
    weight: Array,
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int,
    spread: Size = (),
    most: float | None = None,
) -> Array:
    """Correlation of ``x`` [n, in, *size] with ``weight`` [out, in / groups, *kernel], zeros outside, as in torch.
    ``most`` as in ``exact_type``.
    """
    x = spread_out(x, spread)
    if (held := exact_type(x, weight, most)) is not None:
        return conv(x.astype(held), weight.astype(held), stride, padding, dilation, groups).astype(np.int64)
    out, inward, *kernel = weight.shape
    seen = windows(x, tuple(kernel), stride, padding, dilation)  # [n, in, *place, *kernel]
    place = seen.shape[2 : 2 + len(kernel)]
    result = np.empty((len(x), out, *place), dtype=np.result_type(x, weight))
    each = out // groups
    step = max(1, PATCH_NUMBERS // max(1, inward * prod(kernel) * prod(place)))
    for group in range(groups):
        rows = weight[group * each : (group + 1) * each].reshape(each, -1)
        for first in range(0, len(x), step):
            part = np.moveaxis(seen[first : first + step, group * inward : (group + 1) * inward], 0, 1)
            patches = np.empty((inward, *kernel, part.shape[1], *place), dtype=x.dtype)
            for tap in np.ndindex(*kernel):  # a tap at a time, so that whole lines of a map are copied
                patches[(slice(None), *tap)] = part[(..., *tap)]
            made = product(rows, patches.reshape(rows.shape[1], -1)).reshape(each, part.shape[1], *place)
            result[first : first + step, group * each : (group + 1) * each] = np.moveaxis(made, 1, 0)
    return result


def pool(x: Array, kind: str, kernel: Size, stride: Size, padding: Size) -> Array:
    """Sum, mean (over all kernel cells) or maximum of each window; padding counts as zeros."""
    axes = tuple(range(-len(kernel), 0))
    seen = windows(x, kernel, stride, padding, (1,) * len(kernel))
    if kind == "max":
        return np.asarray(seen.max(axis=axes))
    total = seen.sum(axis=axes)
    return np.asarray(total / prod(kernel) if kind == "mean" else total)


def windows(x: Array, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Array:
    """What a kernel sees at each place, as a view: ``x`` [n, in, *size] as [n, in, *place, *kernel]; zeros outside."""
    edge = [(0, 0), (0, 0), *((p, p) for p in padding)]
    padded = np.pad(x, edge) if any(padding) else x
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    every = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + len(kernel))))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
    taps = tuple(slice(None, None, d) for d in dilation)
    return every[steps + taps]


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

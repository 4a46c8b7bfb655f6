"""Rows of bits, 64 elements a word: packing them, and counting what they have in common with masks.

Elements are in the order of ``numpy.packbits``: the first is the highest bit of the first byte. Counting is compiled
(``run/kernels/bits.cpp``) where the engine was built, NumPy elsewhere; either gives the same whole numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Integers
from snncompile.run.linear import product

try:
    from snncompile.run import _kernels
except ImportError:  # the package was installed without a compiler
    COMPILED = False
else:
    COMPILED = True

Bits = NDArray[np.uint64]
CHUNK_WORDS = 1 << 15  # words that NumPy looks at together: what a processor keeps at hand
EXACT = 1 << 24  # below it every whole number is a float32


def packed(rows: NDArray[np.bool_]) -> Bits:
    """Truths [rows, elements] as words of 64, filled up with zeros: [rows, words]."""
    octets = np.packbits(rows, axis=1)
    missing = -octets.shape[1] % 8
    if missing:
        octets = np.concatenate([octets, np.zeros((len(octets), missing), dtype=np.uint8)], axis=1)
    return np.ascontiguousarray(octets).view(np.uint64)


def ones(bits: Bits) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def met(rows: Bits, masks: Bits) -> Integers:
    """How many bits every row [rows, words] has in common with every mask [masks, words]: [masks, rows]."""
    found = np.empty((len(masks), len(rows)), dtype=np.int64)
    if COMPILED:
        _kernels.met(rows, masks, found)
        return found
    together = max(1, CHUNK_WORDS // max(1, masks.size))
    for first in range(0, len(rows), together):
        found[:, first : first + together] = _ones(rows[first : first + together] & masks[:, None])
    return found


def ever_and_always(rows: Bits) -> tuple[Bits, Bits]:
    """Which bits are set in any row [rows, words], and which in all of them: [words] each."""
    if COMPILED:
        ever, always = np.empty((2, rows.shape[1]), dtype=np.uint64)
        _kernels.ever_and_always(rows, ever, always)
        return ever, always
    return _over(np.bitwise_or, rows), _over(np.bitwise_and, rows)


def _over(operation: np.ufunc, rows: Bits) -> Bits:
    """An operation of words over all rows, many rows at a time: [rows, words] as [words]."""
    together = 1 << (len(rows).bit_length() // 2)
    whole = len(rows) - len(rows) % together
    if together > 1:
        many = operation.reduce(rows[:whole].reshape(-1, together * rows.shape[1]), axis=0)
        rows = np.concatenate([many.reshape(together, -1), rows[whole:]])
    return np.asarray(operation.reduce(rows, axis=0))


def _ones(words: Bits) -> Integers:
    """How many bits are set in every row, which is the last axis."""
    count, size = np.bitwise_count(words), words.shape[-1]
    if 64 * size < EXACT:  # a product with ones is the fastest sum there is
        return product(count.astype(np.float32), np.ones(size, dtype=np.float32)).astype(np.int64)
    return np.asarray(count.sum(axis=-1, dtype=np.int64))

"""Samples that are decoded when they are asked for, so that a data set need not fit into memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Decode = Callable[[int, np.random.Generator | None], Array]
"""The sample of an index; with a generator, as training sees it."""

AT_ONCE = 1 << 26
"""Sets of so many bytes at most are decoded at once and are plain arrays."""

KEPT = 1 << 29
"""Of sets of so many bytes at most, what has been decoded is kept."""


class Decoded:
    """The array x[N, ...] of a data set, decoded one sample at a time.

    Where all of it is within ``KEPT`` bytes, every sample is decoded once; beyond, memory holds only what is asked for.
    ``identity`` says what the samples are, in place of their values: names of files, say.
    """

    def __init__(
        self, count: int, shape: Sequence[int], kind: Any, decode: Decode, identity: bytes, *, drawn: bool = False
    ) -> None:
        self.shape = (count, *shape)
        self.dtype = np.dtype(kind)
        self.ndim = len(self.shape)
        self.decode, self.identity, self.drawn = decode, identity, drawn
        self.bytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        self._kept: Array | None = None
        self._making = threading.Lock()
        self._known = np.zeros(count if self.bytes <= KEPT and not drawn else 0, bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: int | slice | Array) -> Array:
        indices = np.arange(len(self))[chosen]
        return self.at(indices) if np.ndim(indices) else self.at(np.array([indices]))[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.at(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def once(self, indices: Array, drawn: Sequence[np.random.Generator] | None = None) -> Array:
        """The samples of these indices, as ``at`` gives them; none is kept."""
        generators: Sequence[Any] = drawn if drawn and self.drawn else [None] * len(indices)
        found = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for place, (index, generator) in enumerate(zip(indices, generators, strict=True)):
            found[place] = self.decode(int(index), generator)
        return found

    def parts(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last) in order, ``size`` at a time; none is kept."""
        for at in range(first, last, size):
            yield self.once(np.arange(at, min(at + size, last)))

    def at(self, indices: Array, drawn: Sequence[np.random.Generator] | None = None) -> Array:
        """The samples of these indices; ``drawn`` has a generator for each, where training draws."""
        if not len(self._known):
            return self.once(indices, drawn)
        with self._making:  # threads decode batches side by side: a second array would lose what the first one holds
            if self._kept is None:
                self._kept = np.empty(self.shape, self.dtype)
        for index in indices:
            if not self._known[index]:
                self._kept[index] = self.decode(int(index), None)
                self._known[index] = True
        kept: Array = self._kept[indices]
        return kept

    def changed(self, change: Callable[[Array], Array], kind: Any) -> Decoded:
        """The same samples after ``change``."""
        return Decoded(
            len(self),
            self.shape[1:],
            kind,
            lambda index, generator: change(self.decode(index, generator)),
            self.identity,
            drawn=self.drawn,
        )


def gathered(samples: Decoded) -> Array | Decoded:
    """A plain array where that is small."""
    return samples if samples.bytes > AT_ONCE or samples.drawn else np.asarray(samples)

"""Samples of a data set that lie in one array of a file: read in order, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from snncompile.train.samples import Array, Decoded
from snncompile.train.streamed import Streamed


class Stored(Decoded):
    """What ``change`` makes of every sample of a file. One that is asked for alone is looked for from the begin of a
    packed file on; ``parts`` reads on.
    """

    def __init__(self, stream: Streamed, change: Callable[[Array], Array], kind: Any) -> None:
        def one(index: int, _: np.random.Generator | None) -> Array:
            return change(next(stream.read(index, index + 1, 1))[0])

        identity = f"{stream.path.name} {stream.path.stat().st_size}".encode()
        super().__init__(len(stream), stream.shape, kind, one, identity)
        self.stream, self.change = stream, change

    def parts(self, first: int, last: int, size: int) -> Iterator[Array]:
        """Samples [first, last) in order, ``size`` at a time; none is kept, nothing before them is read twice."""
        for part in self.stream.read(first, last, size):
            yield np.stack([self.change(one) for one in part]).astype(self.dtype, copy=False)

    def changed(self, change: Callable[[Array], Array], kind: Any) -> Stored:
        """The same samples after ``change``."""
        return Stored(self.stream, lambda one: change(self.change(one)), kind)

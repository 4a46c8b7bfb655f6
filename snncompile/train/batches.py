"""Batches that are decoded while the network works on those before."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from snncompile.run.trace import Array
from snncompile.train.data import Split

AHEAD = 2
"""How many batches may wait, decoded, for the network."""


class Ahead:
    """The batches of an epoch in their order; what they hold does not depend on which thread decodes them.

    Sets that are in memory and shown as they are need no work, so no thread is started for them.
    """

    def __init__(self, split: Split, batches: Sequence[Array], epoch: int) -> None:
        self.split, self.batches, self.epoch = split, batches, epoch
        self.pool = None if split.held and not split.draws else ThreadPoolExecutor(min(4, os.cpu_count() or 1))

    def __iter__(self) -> Iterator[Array]:
        if self.pool is None:
            for chosen in self.batches:
                yield self.split.batch(chosen, self.epoch)
            return
        waiting: deque[Future[Array]] = deque()
        for chosen in self.batches:
            waiting.append(self.pool.submit(self.split.batch, chosen, self.epoch))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

"""A network over many samples: a batch after the other in this process, or shared out to others.

Samples are independent of each other, so how they are cut changes nothing: parts come in the order of the samples, with
their spikes and operations counted, and put together they are one run.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import deque
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from snncompile.errors import ToolError
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program
from snncompile.run.cpu import Simulator, chosen_kernels, say_nothing
from snncompile.run.stimulus import Given, Inputs, encoded, shown
from snncompile.run.trace import Trace, joined
from snncompile.target import Target

BATCH = 128
SHARDS = 8  # a process: so that progress shows, and none waits long for the last
AHEAD = 2  # shards a process that may wait for it, or for those before them


class Source(Protocol):
    """Samples that are read, or made, batch by batch. It is sent to where its samples are wanted."""

    def __len__(self) -> int: ...

    def batches(self, first: int, last: int, size: int) -> Iterator[Given]:
        """Samples [first, last) in order, so many at a time."""
        ...


class Pool(Protocol):
    """Others that work: an executor of ``concurrent.futures``, or whatever takes work and gives futures as it does."""

    def submit(self, work: Any, /, *arguments: Any) -> Any:
        """A future of ``work(*arguments)``: its ``result()`` waits."""
        ...


@dataclass(frozen=True)
class Part:
    """Some consecutive samples, how many, and their trace: of what is kept, with the counts of everything; and the
    ``engine`` that ran them. ``digests``: of the samples, as ``digests_of`` has them, where they are asked for.
    """

    samples: int
    trace: Trace
    engine: str
    digests: bytes = b""


@dataclass(frozen=True)
class Shards:
    """A graph on a target, samples of so many steps: ``Shards.of(program)``. ``keep``: populations that are traced
    (None: all). ``reals``: integers are reals as well, and not what the inputs receive. ``digests``: parts say which
    samples they are of.
    """

    graph: Graph
    target: Target
    steps: int
    keep: Collection[str] | None = ()
    reals: bool = False
    digests: bool = False

    @classmethod
    def of(cls, program: Program, target: Target | None = None, keep: Collection[str] | None = ()) -> Shards:
        """Those of a program, on the target that it names where none is given."""
        return cls(program.graph, target or Target.load(program.target), program.steps, keep)

    def here(self, x: Given | Source, first: int = 0, last: int = -1, threads: int | None = None) -> Iterator[Part]:
        """Samples [first, last) of ``x``, a batch at a time, in this process.

        ``x``: images [samples, *shape] or frames [samples, steps, *shape], or a ``Source`` of them.
        """
        simulator = Simulator(Program(self.graph, "fixed", self.target.name, self.steps), self.target, threads)
        for part in _batches(x, first, len(x) if last < 0 else last):
            if self.reals:
                trace = simulator.run(encoded(self.graph, shown(self.graph, part, self.steps)), self.keep)
            else:
                trace = simulator(part, self.keep)
            yield Part(len(part), trace, simulator.engine, digests_of(part) if self.digests else b"")

    def over(
        self,
        x: Given | Source,
        jobs: int,
        pool: Pool | None = None,
        threads: int = 1,
        first: int = 0,
        last: int = -1,
    ) -> Iterator[Part]:
        """Samples [first, last), in order, by so many others at a time, each with so many threads.

        ``pool``: an executor. Without one joblib shares them out, by the backend that ``joblib.parallel_config`` names:
        processes of this machine by default, ``"dask"`` or ``"ray"`` where these are set up. Raises ``ToolError`` where
        joblib is needed and not installed.
        """
        chosen_kernels()  # whether there are any is said here, and not by everyone
        last = len(x) if last < 0 else last
        size = -(-(last - first) // (jobs * SHARDS))
        size = max(1, -(-size // BATCH) * BATCH if size > BATCH else size)
        calls = (self._call(x, at, min(at + size, last), threads) for at in range(first, last, size))
        yield from _by_joblib(calls, jobs) if pool is None else _by(pool, calls, jobs)

    def _call(self, x: Given | Source, first: int, last: int, threads: int) -> tuple[Any, ...]:
        if isinstance(x, np.ndarray | Inputs):  # what is in memory is cut here
            return self, x[first:last], 0, last - first, threads
        return self, x, first, last, threads


def digests_of(x: Given) -> bytes:
    """The SHA-256 of every sample, 32 bytes each: of the values, types and shapes of what is shown."""
    arrays = x.arrays if isinstance(x, Inputs) else {"": x}
    said = [f"{name} {array.dtype.str} {array.shape[1:]} ".encode() for name, array in arrays.items()]
    found = []
    for sample in range(len(x)):
        content = hashlib.sha256()
        for head, array in zip(said, arrays.values(), strict=True):
            content.update(head + np.ascontiguousarray(array[sample]).tobytes())
        found.append(content.digest())
    return b"".join(found)


def digests_before(x: Given | Source, last: int) -> Iterator[bytes]:
    """``digests_of`` samples [0, last), a batch at a time."""
    return map(digests_of, _batches(x, 0, last))


def _batches(x: Given | Source, first: int, last: int) -> Iterator[Given]:
    if not isinstance(x, np.ndarray | Inputs):
        yield from x.batches(first, last, BATCH)
        return
    for at in range(first, last, BATCH):
        yield x[at : min(at + BATCH, last)]


def _shard(shards: Shards, x: Given | Source, first: int, last: int, threads: int) -> Part:
    """Samples [first, last) as one part; runs wherever there is room."""
    say_nothing()
    parts = list(shards.here(x, first, last, threads))
    said = b"".join(part.digests for part in parts)
    return Part(last - first, joined([part.trace for part in parts]), parts[-1].engine, said)


def _by(pool: Pool, calls: Iterator[tuple[Any, ...]], jobs: int) -> Iterator[Part]:
    """In order; no more waits than keeps everybody busy, so that what is in memory does not grow with the samples."""
    waiting: deque[Any] = deque()
    try:
        for call in calls:
            waiting.append(pool.submit(_shard, *call))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # an error, or an interrupt: nobody starts what nobody wants any more
        for future in waiting:
            future.cancel()


def _by_joblib(calls: Iterator[tuple[Any, ...]], jobs: int) -> Iterator[Part]:
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        remedy = "pip install snncompile[jobs], or leave --jobs out"
        raise ToolError("joblib, which shares work out, is not installed", where="--jobs", remedy=remedy) from error
    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch=f"{AHEAD}*n_jobs")
    except ValueError:  # a backend that hands over nothing before everything is done
        parallel = Parallel(n_jobs=jobs)
    found = parallel(delayed(_shard)(*call) for call in calls)
    try:
        for part in found:  # noqa: UP028  (``yield from`` would close it before what is below)
            yield part
    finally:
        if isinstance(found, Generator):  # nobody wants the rest; that it is called off needs no warning
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.close()

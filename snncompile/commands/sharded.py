"""A network over many samples, in this process or shared out to several: the answers are those of one run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from snncompile.errors import ToolError
from snncompile.ir.graph import Graph
from snncompile.run.cpu import Simulator, chosen_threads
from snncompile.run.parts import merged
from snncompile.run.stimulus import Given, encoded, shown
from snncompile.run.trace import Array, Trace
from snncompile.target import Target
from snncompile.train.streamed import Streamed
from snncompile.verify import all_answers

BATCH = 128
SHARDS = 8  # a process: so that progress shows, and none waits long for the last


@dataclass(frozen=True)
class Part:
    """What some consecutive samples gave: spikes of each population, answers of each read-out, the trace if kept."""

    samples: int
    spikes: Mapping[str, int]
    answers: dict[str, Array]
    trace: Trace | None = None


@dataclass(frozen=True)
class Work:
    """A graph on a target, samples of so many steps; ``keep``: populations that are traced (None: all, and handed on).

    Samples are independent of each other, so how they are cut changes nothing: spikes are added, answers joined.
    """

    graph: Graph
    target: Target
    steps: int
    keep: Collection[str] | None

    def parts(self, x: Given | Streamed, first: int = 0, last: int = -1, threads: int | None = None) -> Iterator[Part]:
        """Samples [first, last) in order, a batch at a time."""
        simulator = Simulator(self.graph, self.target, threads)
        for part in _batches(x, first, len(x) if last < 0 else last):
            stimulus = encoded(self.graph, shown(self.graph, part, self.steps))
            trace = merged(self.graph, simulator.run(stimulus, keep=self.keep))
            handed = trace if self.keep is None else None
            yield Part(len(part), trace.meta["spikes"], all_answers(self.graph, trace), handed)

    def shared(self, x: Given | Streamed, jobs: int) -> Iterator[Part]:
        """All samples, in order, by so many processes. Raises ``ToolError`` where joblib is not installed."""
        try:
            from joblib import Parallel, delayed
        except ImportError as error:
            remedy = "pip install snncompile[jobs], or leave --jobs out"
            raise ToolError("joblib, which shares work out, is not installed", where="--jobs", remedy=remedy) from error
        threads = max(1, chosen_threads(None) // jobs)
        size = -(-len(x) // (jobs * SHARDS))
        size = max(1, -(-size // BATCH) * BATCH if size > BATCH else size)
        cuts = [(first, min(first + size, len(x))) for first in range(0, len(x), size)]
        run = delayed(_shard)
        calls = (
            run(self, x, first, last, threads)
            if isinstance(x, Streamed)
            else run(self, x[first:last], 0, last - first, threads)
            for first, last in cuts
        )
        yield from Parallel(n_jobs=jobs, return_as="generator")(calls)


def _batches(x: Given | Streamed, first: int, last: int) -> Iterator[Given]:
    if isinstance(x, Streamed):
        yield from x.batches(first, last, BATCH)
        return
    for at in range(first, last, BATCH):
        yield x[at : min(at + BATCH, last)]


def _shard(work: Work, x: Given | Streamed, first: int, last: int, threads: int) -> Part:
    """Samples [first, last) as one part; runs in a process of its own."""
    parts = list(work.parts(x, first, last, threads))
    spikes = {name: sum(part.spikes[name] for part in parts) for name in parts[0].spikes}
    answers = {name: np.concatenate([part.answers[name] for part in parts]) for name in parts[0].answers}
    return Part(last - first, spikes, answers)

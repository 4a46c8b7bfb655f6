"""What ``snncompile simulate`` has counted of its samples so far."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.commands.resuming import Kept, digest_of_target
from snncompile.energy import weights_digest
from snncompile.ir.connections import answering
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program
from snncompile.run.shards import Part, digests_before
from snncompile.run.stimulus import Given
from snncompile.run.trace import Array, Trace
from snncompile.target import Target
from snncompile.train.progress import Progress
from snncompile.verify import all_answers

if TYPE_CHECKING:
    from snncompile.commands.imported import Batches


@dataclass(frozen=True)
class Tally:
    """Spikes by population, synaptic operations by node of weights, answers by read-out, of the first ``done`` samples.

    ``operations``: None where some were not counted. ``seen``: the SHA-256 over the digests of those samples.
    """

    spikes: Mapping[str, int]
    operations: Mapping[str, int] | None = field(default_factory=dict)
    answers: Mapping[str, tuple[Array, ...]] = field(default_factory=dict)
    done: int = 0
    seen: Any = field(default_factory=hashlib.sha256)

    def after(self, graph: Graph, part: Part, trace: Trace) -> Tally:
        """With the next samples, whose ``trace`` holds populations in one piece."""
        operations, more = self.operations, trace.meta.get("operations")
        if operations is not None:
            operations = None if more is None else {name: operations.get(name, 0) + more[name] for name in more}
        answers = {name: (*self.answers.get(name, ()), found) for name, found in all_answers(graph, trace).items()}
        spikes = {**self.spikes}
        for name, count in trace.meta["spikes"].items():
            spikes[name] += count
        seen = self.seen.copy()
        seen.update(part.digests)
        return Tally(spikes, operations, answers, self.done + part.samples, seen)

    def answers_of(self, name: str) -> Array:
        """The answers of a read-out, [done]."""
        return np.concatenate(self.answers[name])

    def kept(self) -> Kept:
        """For the file of ``--resume``."""
        operations = None if self.operations is None else dict(self.operations)
        plain = {"spikes": dict(self.spikes), "operations": operations, "seen": self.seen.hexdigest()}
        return Kept(self.done, plain, {f"answers.{name}": self.answers_of(name) for name in self.answers})

    @staticmethod
    def of(
        kept: Kept, x: Given | Batches, graph: Graph, neurons: Mapping[str, object], options: argparse.Namespace
    ) -> Tally:
        """What a file keeps. Raises ``ReadError`` where it is damaged, or the samples were not the first of ``x``."""
        spikes = kept.numbers("spikes", neurons)
        operations = None
        if kept.plain.get("operations") is not None:
            operations = kept.numbers("operations", graph.nodes)
        if spikes.keys() != neurons.keys():
            kept.refuse("spikes of some populations are missing")
        answers = {name: (kept.array(f"answers.{name}", np.int64, (kept.done,)),) for name in answering(graph)}
        seen, done = hashlib.sha256(), 0
        with Progress(kept.done, shown=not options.quiet) as progress:
            for digests in digests_before(x, kept.done):
                seen.update(digests)
                done += len(digests) // seen.digest_size
                progress.update(done, "look through the samples that were counted")
        if seen.hexdigest() != kept.plain.get("seen"):
            kept.refuse_data()
        return Tally(spikes, operations, answers, kept.done, seen)


def belongs(program: Program, target: Target, samples: int) -> dict[str, Any]:
    """What the counts of a simulation belong to; what they were made of is in ``seen``."""
    return {
        "work": "simulate",
        "network": weights_digest(program.graph),
        "target": digest_of_target(target),
        "steps": program.steps,
        "samples": samples,
    }

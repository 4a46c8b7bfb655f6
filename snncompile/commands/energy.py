"""``snncompile energy``: exact AC and MAC counts, priced, and gated."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.commands.console import Log, log_of, result
from snncompile.commands.energy_gate import check_options, gate
from snncompile.commands.energy_kept import Batches, belongs
from snncompile.commands.energy_output import OUTPUTS, check_places, write_reports
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model
from snncompile.commands.resuming import Resuming
from snncompile.compile import encoded, shown
from snncompile.cost_model import CostModel
from snncompile.energy import Counter, Counts, concatenate, dense_layers
from snncompile.energy_compat import also
from snncompile.energy_conventions import Options
from snncompile.errors import ReadError
from snncompile.ir.check import Level
from snncompile.ir.connections import answering
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Readout, Stateful
from snncompile.ir.signals import Fixed
from snncompile.passes.quantise import encode
from snncompile.report.energy_report import to_json, to_text
from snncompile.run import reference
from snncompile.run.cpu import Simulator
from snncompile.run.stimulus import Given
from snncompile.run.trace import Array, Trace
from snncompile.target import Target
from snncompile.train.progress import Progress

BATCH, BATCH_NUMBERS = 1024, 1 << 23  # samples; values of all populations and steps, which bound them as well
INTEGERS: Mapping[str, Level] = {"fixed": "fixed", "timed": "timed", "placed": "placed"}


@dataclass(frozen=True)
class Counted:
    """What is counted and what is run: the ``network``, and the ``graph`` of the level that leaves the spikes.

    ``target``: whose integers the graph is in, None where it is in reals. ``record``: who runs it where no interpreter
    of ours does: torch.
    """

    network: Graph
    graph: Graph
    target: Target | None
    steps: int
    level: str
    record: Callable[[Given], Trace | None] | None = None

    def counter(self, options: Options | None = None) -> Counter:
        """What counts its runs."""
        return Counter(self.network, options, self.graph if self.graph is not self.network else None)


def run(options: argparse.Namespace) -> int:
    """Run the network level, count what its spikes cause, price it, and hold it against its limits."""
    log = log_of(options)
    prices = CostModel.load(options.cost_model)
    check_places(options)
    budget, lock = check_options(options)
    resuming = Resuming(options, log, [options.baseline, *(getattr(options, key) for key in OUTPUTS)])
    model = open_model(options.model, options)
    data = chosen_data(model, options)
    counts, correct, what = count_model(model, data, options, log, resuming)
    report = to_json(
        counts,
        prices,
        name=Path(options.model).name,
        level=what.level,
        ann=ann_of(model, what),
        correct=correct,
        data={"name": data.name, "digest": data.digest},
    )
    if options.also:
        report["also"] = also(report, options.also)
    verdict = gate(report, budget, lock, options, log)
    write_reports(report, verdict, options, log)
    result(options, to_text(report), report)
    resuming.finish()
    if verdict is not None and verdict.failures:
        raise verdict.error()
    return 0


def count_model(
    model: Trained | Imported | Exchanged | Bundle,
    data: Data,
    options: argparse.Namespace,
    log: Log,
    resuming: Resuming,
) -> tuple[Counts, list[int] | None, Counted]:
    """Counts over all data, how many samples are right after 1, 2, ... steps, and what was run."""
    what = chosen_level(model, options, log)
    counting = Options(options.static_input, options.zero_skip, options.multiplicity)
    counter = what.counter(counting)
    judged = data.labels is not None and len(answering(what.graph)) == 1
    size = len(data.x)
    batches = Batches()
    if kept := resuming.begin(size, "samples", lambda: belongs(what, counting, size, data.digest)):
        if kept.done % batch_size(what) and kept.done != size:  # sums of reals depend on what is summed together
            kept.refuse("it ends within a batch")
        one = replace(data, x=data.x[:1])
        batches = Batches.of(
            kept, next(counter.count(stimulus, trace) for _, stimulus, trace in runs(what, one)), judged
        )
    with (
        Progress(size, before=batches.done, shown=not options.quiet) as progress,
        resuming.keeping(lambda: batches.kept()),
    ):
        for _, stimulus, trace in runs(what, data, batches.done):
            answers = [answers_by_steps(what.graph, trace)] if judged else []
            batches = batches.after(counter.count(stimulus, trace), answers)
            resuming.counted()
            progress.update(batches.done, "count")
    correct = None
    if judged and data.labels is not None:
        right = np.concatenate(batches.answers) == data.labels[:, None]
        correct = [int(number) for number in right.sum(axis=0)]
    return concatenate(batches.counts), correct, what


def ann_of(model: Trained | Imported | Exchanged | Bundle, what: Counted) -> list[dict[str, Any]] | int:
    """The artificial network of the same topology: its layers, or its MACs where a bundle holds no more of it."""
    if not isinstance(model, Bundle):
        return dense_layers(model.topology)
    layers, mac = dense_layers(what.network), int(model.manifest["ann_mac"])
    return layers if sum(layer["mac"] for layer in layers) == mac else mac


def batch_size(what: Counted) -> int:
    """How many samples are run together."""
    values = what.steps * sum(prod(op.shape) for op in what.graph.nodes.values() if isinstance(op, Input | Stateful))
    return max(1, min(BATCH, BATCH_NUMBERS // values))


def runs(what: Counted, data: Data, begin: int = 0) -> Iterator[tuple[int, dict[str, Array], Trace]]:
    """Batches from ``begin`` on: their first sample, the network's stimulus and the trace that the level left."""
    simulator = Simulator(what.graph, what.target) if what.target is not None else None
    batch = batch_size(what)
    for first in range(begin, len(data.x), batch):
        x = data.x[first : first + batch]
        stimulus = shown(what.network, x, what.steps)
        reals = {name: _in_reals(values) for name, values in stimulus.items()}
        trace = what.record(x) if what.record else None
        if trace is None:
            trace = simulator.run(encoded(what.graph, reals)) if simulator else reference.run(what.graph, reals)
        yield first, given(what.network, stimulus), trace


def _in_reals(stimulus: Array) -> Array:
    """Images that are shown at every step stay one and the same memory."""
    if stimulus.shape[1] > 1 and stimulus.strides[1] == 0:
        return np.broadcast_to(stimulus[:, :1].astype(np.float64), stimulus.shape)
    return stimulus.astype(np.float64)


def given(network: Graph, stimulus: Mapping[str, Array]) -> dict[str, Array]:
    """What a network meets: integers where its inputs are declared to be, else the data as they are."""
    found = dict(stimulus)
    for name, op in network.nodes.items():
        if isinstance(op, Input) and isinstance(op.signal, Fixed):
            found[name] = encode(op.signal, _in_reals(stimulus[name]))
    return found


def answers_by_steps(graph: Graph, trace: Trace) -> Array:
    """The class of every sample had the run ended after 1, 2, ... steps: [samples, steps].

    The largest accumulator of the only read-out: what it is divided by is the same for all classes.
    """
    (name,) = answering(graph)
    op = graph.nodes[name]
    assert isinstance(op, Readout)
    values = op.summed(trace.potentials[name])
    return np.asarray(values.reshape(*values.shape[:2], -1).argmax(axis=2))


def chosen_level(model: Trained | Imported | Exchanged | Bundle, options: argparse.Namespace, log: Log) -> Counted:
    """The level of the model that the command line asks for."""
    if isinstance(model, Bundle):
        program = model.program
        if options.level not in (None, program.level):
            raise ReadError(
                f"a bundle has no level {options.level!r}", where=options.model, remedy="give the checkpoint"
            )
        return Counted(model.network, program.graph, model.target, program.steps, program.level)
    level = options.level or ("fixed" if model.in_integers else "folded")
    if level == "torch":
        if not isinstance(model, Trained) or model.in_integers:
            what = "torch runs no network in integers" if model.in_integers else "torch runs checkpoints alone"
            raise ReadError(what, where=options.model, remedy="leave --level out")
        return Counted(model.graph, model.graph, None, model.steps, level, model.record)
    if level in INTEGERS or model.in_integers:
        compiled = model.lowered(options, log)
        graph = compiled.levels[INTEGERS.get(level, "fixed")]
        return Counted(model.graph, graph, compiled.target, model.steps, level)
    return Counted(model.graph, model.graph if level == "read" else model.folded, None, model.steps, level)

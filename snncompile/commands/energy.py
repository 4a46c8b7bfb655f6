"""``snncompile energy``: exact AC and MAC counts, priced, and gated."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.commands.console import Log, log_of, result
from snncompile.commands.energy_gate import check_options, gate
from snncompile.commands.energy_output import check_places, write_reports
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model
from snncompile.compile import encoded, shown
from snncompile.cost_model import CostModel
from snncompile.energy import Counter, Counts, concatenate, dense_layers
from snncompile.energy_compat import also
from snncompile.energy_conventions import Options
from snncompile.errors import ReadError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Readout
from snncompile.report.energy_report import to_json, to_text
from snncompile.run import reference
from snncompile.run.cpu import Simulator
from snncompile.run.stimulus import Given, Inputs
from snncompile.run.trace import Array, Trace
from snncompile.target import Target
from snncompile.train.progress import Progress

BATCH = 64


@dataclass(frozen=True)
class Counted:
    """What is run: one level of one model."""

    graph: Graph
    target: Target | None
    steps: int
    level: str
    ann: list[dict[str, Any]] | int | None
    record: Callable[[Given], Trace] | None = None
    """Who runs it where no interpreter of ours does: torch."""


def run(options: argparse.Namespace) -> int:
    """Run the network level, count what its spikes cause, price it, and hold it against its limits."""
    log = log_of(options)
    prices = CostModel.load(options.cost_model)
    check_places(options)
    budget, lock = check_options(options)
    model = open_model(options.model, options)
    data = chosen_data(model, options)
    counts, correct, what = count_model(model, data, options, log)
    report = to_json(
        counts,
        prices,
        name=Path(options.model).name,
        level=what.level,
        ann=what.ann,
        correct=correct,
        data={"name": data.name, "digest": data_digest(data)},
    )
    if options.also:
        report["also"] = also(report, options.also)
    verdict = gate(report, budget, lock, options, log)
    write_reports(report, verdict, options, log)
    result(options, to_text(report), report)
    if verdict is not None and verdict.failures:
        raise verdict.error()
    return 0


def count_model(
    model: Trained | Imported | Exchanged | Bundle, data: Data, options: argparse.Namespace, log: Log
) -> tuple[Counts, list[int] | None, Counted]:
    """Counts over all data, how many samples are right after 1, 2, ... steps, and what was run."""
    what = chosen_level(model, options, log)
    graph = what.graph
    choices = Options(options.static_input, options.zero_skip, options.multiplicity)
    counter, parts, found = Counter(graph, choices), [], []
    judged = data.labels is not None and len(graph.names(Readout)) == 1
    with Progress(len(data.x)) as progress:
        for first, stimulus, trace in runs(what, data):
            parts.append(counter.count(stimulus, trace))
            if judged:
                found.append(answers_by_steps(graph, trace))
            if not options.quiet:
                progress.update(min(first + BATCH, len(data.x)), "count")
    correct = None
    if judged and data.labels is not None:
        right = np.concatenate(found) == data.labels[:, None]
        correct = [int(number) for number in right.sum(axis=0)]
    return concatenate(parts), correct, what


def runs(what: Counted, data: Data) -> Iterator[tuple[int, dict[str, Array], Trace]]:
    """Batches: their first sample, stimulus and trace; integers where a chip's integers are counted, else reals."""
    simulator = Simulator(what.graph, what.target) if what.target is not None else None
    for first in range(0, len(data.x), BATCH):
        stimulus = shown(what.graph, data.x[first : first + BATCH], what.steps)
        if simulator is None:
            reals = {name: np.asarray(values, dtype=np.float64) for name, values in stimulus.items()}
            run = what.record
            yield first, reals, run(data.x[first : first + BATCH]) if run else reference.run(what.graph, reals)
        else:
            integers = encoded(what.graph, stimulus)
            yield first, integers, simulator.run(integers)


def answers_by_steps(graph: Graph, trace: Trace) -> Array:
    """The class of every sample had the run ended after 1, 2, ... steps: [samples, steps].

    The largest accumulator of the only read-out: what it is divided by is the same for all classes.
    """
    (name,) = graph.names(Readout)
    op = graph.nodes[name]
    assert isinstance(op, Readout)
    values = op.summed(trace.potentials[name])
    return np.asarray(values.reshape(*values.shape[:2], -1).argmax(axis=2))


def data_digest(data: Data) -> str:
    """SHA-256 of the inputs as the network sees them, and of their labels."""
    content = hashlib.sha256()
    given = data.x.arrays if isinstance(data.x, Inputs) else {"x": data.x}
    arrays: Mapping[str, Array | None] = {**given, "labels": data.labels}
    for key, array in arrays.items():
        if array is not None:
            content.update(f"{key} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def chosen_level(model: Trained | Imported | Exchanged | Bundle, options: argparse.Namespace, log: Log) -> Counted:
    """The level of the model that the command line asks for."""
    if isinstance(model, Bundle):
        if options.level not in (None, "fixed"):
            raise ReadError(
                f"a bundle has no level {options.level!r}", where=options.model, remedy="give the checkpoint"
            )
        program = model.program
        return Counted(program.graph, model.target, program.steps, program.level, model.manifest.get("ann_mac"))
    level, ann = options.level or ("fixed" if model.in_integers else "folded"), dense_layers(model.topology)
    if level == "torch":
        if not isinstance(model, Trained) or model.in_integers:
            raise ReadError("torch runs no network in integers", where=options.model, remedy="leave --level out")
        return Counted(model.graph, None, model.steps, level, ann, model.record)
    if level == "fixed" or model.in_integers:
        compiled = model.lowered(options, log)
        return Counted(compiled.levels["fixed"], compiled.target, model.steps, level, ann)
    return Counted(model.graph if level == "read" else model.folded, None, model.steps, level, ann)

"""``snncompile energy``: exact AC and MAC counts, priced."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from snncompile.commands.console import check_place, log_of, result
from snncompile.commands.opening import Bundle, chosen_data, open_model
from snncompile.compile import encoded, shown
from snncompile.energy import Counter, Counts, concatenate, dense_macs, price
from snncompile.errors import ReadError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Readout
from snncompile.report.energy_report import to_json, to_text
from snncompile.run import reference
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Array, Trace
from snncompile.target import CostModel, Target
from snncompile.train.progress import Progress
from snncompile.verify import answers

BATCH = 64


def run(options: argparse.Namespace) -> int:
    """Run the network level, count what its spikes cause, price it."""
    log = log_of(options)
    prices = CostModel.load(options.cost_model)
    if options.output:
        check_place(Path(options.output))
    model = open_model(options.model)
    data = chosen_data(model, options)
    target: Target | None = None
    if isinstance(model, Bundle):
        if options.level not in (None, "fixed"):
            raise ReadError(
                f"a bundle has no level {options.level!r}", where=options.model, remedy="give the checkpoint"
            )
        graph, target, steps, level = model.program.graph, model.target, model.program.steps, model.program.level
        ann_mac = model.manifest.get("ann_mac")
    else:
        steps, ann_mac = model.steps, dense_macs(model.topology)
        level = options.level or ("fixed" if model.in_integers else "folded")
        if level == "fixed" or model.in_integers:
            compiled = model.lowered(options, log)
            graph, target = compiled.levels["fixed"], compiled.target
        else:
            graph = model.graph if level == "read" else model.folded
    counter = Counter(graph)
    parts: list[Counts] = []
    found: list[Array] = []
    simulator = Simulator(graph, target) if target is not None else None
    with Progress(len(data.x)) as progress:
        for first in range(0, len(data.x), BATCH):
            trace, stimulus = _step(graph, simulator, shown(graph, data.x[first : first + BATCH], steps))
            parts.append(counter.count(stimulus, trace))
            if len(graph.names(Readout)) == 1:
                found.append(answers(graph, trace))
            if not options.quiet:
                progress.update(min(first + BATCH, len(data.x)), "count")
    counts = concatenate(parts)
    accuracy = None
    if found and data.labels is not None:
        accuracy = float(np.mean(np.concatenate(found) == data.labels))
    priced = price(counts, prices, ann_mac=ann_mac)
    report = to_json(counts, priced, name=Path(options.model).name, level=level, accuracy=accuracy)
    if options.output:
        _write(Path(options.output), json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
        log(f"wrote {options.output}")
    result(options, to_text(report), report)
    return 0


def _step(graph: Graph, simulator: Simulator | None, stimulus: dict[str, Array]) -> tuple[Trace, dict[str, Array]]:
    """A trace and the stimulus it belongs to: integers where a chip's integers are counted, else reals."""
    if simulator is None:
        reals = {name: np.asarray(values, dtype=np.float64) for name, values in stimulus.items()}
        return reference.run(graph, reals), reals
    integers = encoded(graph, stimulus)
    return simulator.run(integers), integers


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

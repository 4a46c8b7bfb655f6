"""``snncompile simulate``: the chip's integers on this CPU."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from snncompile.commands.console import check_place, log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Imported
from snncompile.commands.opening import Bundle, chosen_data, open_model
from snncompile.commands.traces import save_trace
from snncompile.compile import encoded, shown
from snncompile.ir.ops import Readout, Resonator, SigmaDelta
from snncompile.report.table import table
from snncompile.run.cpu import Simulator
from snncompile.run.parts import merged, wholes
from snncompile.run.trace import Array, Trace, joined
from snncompile.target import Target
from snncompile.train.progress import Progress
from snncompile.verify import all_answers

BATCH = 128


def run(options: argparse.Namespace) -> int:
    """Simulate a data set; accuracy, spikes and rates."""
    log = log_of(options)
    if options.trace:
        check_place(Path(options.trace))
    model = open_model(options.model, options)
    data = chosen_data(model, options)
    if isinstance(model, Bundle):
        program, target = model.program, model.target
    elif isinstance(model, Imported):
        program, target = model.program, Target.load(options.target)
    else:
        compiled = model.lowered(options, log)
        program, target = compiled.program, compiled.target
    graph, steps = program.graph, program.steps
    simulator = Simulator(graph, target)
    others = {
        name: op.shape
        for name, op in graph.nodes.items()
        if isinstance(op, Resonator) or (isinstance(op, SigmaDelta) and op.kind != "sigma")
    }
    readouts, neurons = graph.names(Readout), wholes(graph) | others
    counts = dict.fromkeys(neurons, 0)
    found: list[dict[str, Array]] = []
    kept: list[Trace] = []
    start = time.monotonic()
    with Progress(len(data.x)) as progress:
        for first in range(0, len(data.x), BATCH):
            part = data.x[first : first + BATCH]
            stimulus = encoded(graph, shown(graph, part, steps))
            trace = merged(graph, simulator.run(stimulus, keep=None if options.trace else readouts))
            for name, spikes in trace.meta["spikes"].items():
                counts[name] += spikes
            found.append(all_answers(graph, trace))
            if options.trace:
                kept.append(trace)
            if not options.quiet:
                progress.update(first + len(part), f"simulate {target.name}")
    seconds = time.monotonic() - start
    if options.trace:
        dt = model.found.dt if isinstance(model, Exchanged) else None
        save_trace(Path(options.trace), joined(kept), dt, shown(graph, data.x, steps))
    samples = len(data.x)
    log(f"{samples} samples in {seconds:.1f} s, {samples / seconds:.0f} a second")
    rows, rates = [], {}
    for name, shape in neurons.items():
        rates[name] = counts[name] / (samples * steps * int(np.prod(shape)))
        rows.append([name, "x".join(map(str, shape)), f"{counts[name]:,}", f"{rates[name]:.2%}"])
    text = table(["population", "neurons", "spikes", "rate"], rows, right={2, 3})
    text += f"\n\n{samples} samples of {data.name}, {steps} steps each, in the integers of {target.name}"
    summary: dict[str, object] = {
        "data": data.name,
        "samples": samples,
        "target": target.name,
        "spikes": counts,
        "rates": rates,
    }
    classes = {name: np.concatenate([part[name] for part in found]) for name in graph.names(Readout)}
    if len(classes) > 1:
        summary["answers"] = {name: each.tolist() for name, each in classes.items()}
    elif classes:
        (only,) = classes.values()
        summary["answers"] = only.tolist()
        if data.labels is not None:
            right = int(np.sum(only == data.labels))
            summary["accuracy"] = right / samples
            text += f"\naccuracy {right / samples:.2%} ({right} of {samples})"
    result(options, text, summary)
    return 0

"""``snncompile simulate``: the chip's integers on this CPU."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snncompile.commands.console import check_place, log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Imported, by_batches
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model
from snncompile.commands.resuming import Resuming
from snncompile.commands.tally import Tally, belongs
from snncompile.commands.traces import save_trace
from snncompile.compile import shown
from snncompile.errors import ReadError
from snncompile.ir.connections import answering
from snncompile.ir.ops import Resonator, SigmaDelta
from snncompile.report.table import table
from snncompile.run.cpu import chosen_threads
from snncompile.run.parts import merged, wholes
from snncompile.run.shards import Shards
from snncompile.run.stimulus import Given, Inputs
from snncompile.run.trace import Array, Trace, joined
from snncompile.target import Target
from snncompile.train.encoders import draws
from snncompile.train.progress import Progress
from snncompile.train.set_batches import nir_batches, set_batches
from snncompile.train.streamed import streamed

if TYPE_CHECKING:
    from snncompile.commands.imported import Batches

Opened = Trained | Imported | Exchanged | Bundle


def run(options: argparse.Namespace) -> int:
    """Simulate a data set; accuracy, spikes and rates."""
    log = log_of(options)
    if options.trace:
        check_place(Path(options.trace))
    for name, given in (("--jobs", options.jobs > 1), ("--resume", options.resume)):
        if options.trace and given:
            what = f"--trace and {name} exclude each other"
            raise ReadError(what, where=options.trace, remedy="leave one of them out")
    resuming = Resuming(options, log)
    model = open_model(options.model, options)
    x, labels, name_of_data = _samples(model, options)
    if isinstance(model, Bundle):
        program, target = model.program, model.target
    elif isinstance(model, Imported):
        program, target = model.program, Target.load(options.target)
    else:
        compiled = model.lowered(options, log)
        program, target = compiled.program, compiled.target
    graph, steps = program.graph, program.steps
    others = {
        name: op.shape
        for name, op in graph.nodes.items()
        if isinstance(op, Resonator) or (isinstance(op, SigmaDelta) and op.kind != "sigma")
    }
    readouts, neurons = answering(graph), wholes(graph) | others
    engines: set[str] = set()
    kept: list[Trace] = []
    found = resuming.begin(len(x), "samples", lambda: belongs(program, target, len(x)))
    tally = Tally.of(found, x, graph, neurons, options) if found else Tally(dict.fromkeys(neurons, 0))
    start, first = time.monotonic(), tally.done
    work = Shards(graph, target, steps, None if options.trace else readouts, reals=True, digests=resuming.asked)
    threads = max(1, chosen_threads(None) // options.jobs)
    with Progress(len(x), before=first, shown=not options.quiet) as progress, resuming.keeping(lambda: tally.kept()):
        alone = options.jobs == 1
        for part in work.here(x, first) if alone else work.over(x, options.jobs, threads=threads, first=first):
            trace = merged(graph, part.trace)
            if part.engine not in engines:  # said once, and again where other values need another
                engines.add(part.engine)
                log(f"runs on {part.engine}")
            tally = tally.after(graph, part, trace)
            if options.trace:
                kept.append(trace)
            resuming.counted()
            progress.update(tally.done, f"simulate {target.name}")
    seconds = time.monotonic() - start
    if options.trace:
        dt = model.found.dt if isinstance(model, Exchanged) else None
        assert isinstance(x, np.ndarray | Inputs)  # nothing is traced batch by batch
        save_trace(Path(options.trace), joined(kept), dt, shown(graph, x, steps))
    samples, counts = len(x), tally.spikes
    log(f"{samples - first} samples in {seconds:.1f} s, {(samples - first) / seconds:.0f} a second")
    rows, rates = [], {}
    for name, shape in neurons.items():
        rates[name] = counts[name] / (samples * steps * int(np.prod(shape)))
        rows.append([name, "x".join(map(str, shape)), f"{counts[name]:,}", f"{rates[name]:.2%}"])
    text = table(["population", "neurons", "spikes", "rate"], rows, right={2, 3})
    text += f"\n\n{samples} samples of {name_of_data}, {steps} steps each, in the integers of {target.name}"
    summary: dict[str, object] = {
        "data": name_of_data,
        "samples": samples,
        "target": target.name,
        "spikes": counts,
        "rates": rates,
    }
    if tally.operations is not None:
        summary["operations"] = tally.operations
        text += f"\n{sum(tally.operations.values()):,} synaptic operations"
    classes = {name: tally.answers_of(name) for name in readouts}
    if len(classes) > 1:
        summary["answers"] = {name: each.tolist() for name, each in classes.items()}
    elif classes:
        (only,) = classes.values()
        summary["answers"] = only.tolist()
        if labels is not None:
            right = int(np.sum(only == labels))
            summary["accuracy"] = right / samples
            text += f"\naccuracy {right / samples:.2%} ({right} of {samples})"
    result(options, text, summary)
    resuming.finish()
    return 0


def _samples(model: Opened, options: argparse.Namespace) -> tuple[Given | Batches, Array | None, str]:
    """The data, their labels and their name: batch by batch, where the network takes them as they are."""
    found = _batches(model, options) if options.data and not options.trace else None
    if found is not None:
        return found, found.y, options.data
    data = chosen_data(model, options)
    return data.x, data.labels, data.name


def _batches(model: Opened, options: argparse.Namespace) -> Batches | None:
    spec, root = options.data, options.data_root
    if isinstance(model, Imported | Exchanged):  # the steps of their samples are those of the data
        return model.batches(spec, root)
    if isinstance(model, Bundle) and not model.manifest.get("recipe"):
        return by_batches(model.program.graph, spec, root, model.program.steps)
    recipe = model.recipe
    if (found := set_batches(spec, root, recipe, recipe.input, recipe.steps)) is not None:
        return found
    if draws(recipe):
        return None
    return nir_batches(spec, "input", recipe.input, recipe.steps) or streamed(spec, recipe.input, recipe.steps)

"""``snncompile run``: a bundle on its device's software."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.backends import lava, onnxruntime
from snncompile.backends.nir_integers import InReals, in_reals
from snncompile.backends.nir_profiles import profile_of
from snncompile.commands.console import check_place, log_of, result
from snncompile.commands.imported import Data
from snncompile.commands.opening import Bundle, chosen_data, open_model
from snncompile.commands.traces import save_trace
from snncompile.compile import encoded, shown
from snncompile.errors import ReadError, ToolError
from snncompile.frontends.nir import read
from snncompile.ir.connections import answering
from snncompile.ir.graph import Graph
from snncompile.ir.store import load
from snncompile.run import reference
from snncompile.run.parts import merged
from snncompile.run.trace import Array, Trace, joined
from snncompile.target import Target
from snncompile.train.progress import Progress
from snncompile.verify import all_answers

BATCH = 64


def run(options: argparse.Namespace) -> int:
    """Execute, and say how often the answer was right where there are labels."""
    if options.trace:
        check_place(Path(options.trace))
    model = open_model(options.bundle, options)
    if not isinstance(model, Bundle):
        raise ReadError("is no bundle", where=options.bundle, remedy="export it first")
    data = chosen_data(model, options)
    device = str(model.manifest.get("device") or model.target.interpreter)
    if device == "onnx":
        graph, parts = _on_onnxruntime(model, data, options)
    elif device == "lava":
        graph, parts = _on_lava(model, data, options)
    elif device == "nir":
        graph, parts = _in_reals(model, data, options)
    else:
        raise ToolError(
            f"no device software for {model.target.name}", where=options.bundle, remedy="use `snncompile simulate`"
        )
    spikes: Counter[str] = Counter()
    found: list[dict[str, Array]] = []
    kept: list[Trace] = []
    meta: Mapping[str, Any] = {}
    for part in parts:
        meta = part.meta
        spikes.update({name: int(array.sum()) for name, array in part.spikes.items()})
        found.append(all_answers(graph, part))
        if options.trace:
            kept.append(part)
    if options.trace:
        save_trace(Path(options.trace), joined(kept), None, shown(graph, data.x, int(model.manifest["steps"])))
    summary: dict[str, object] = {
        "bundle": options.bundle,
        "data": data.name,
        "samples": len(data.x),
        device: {key: value for key, value in meta.items() if key != "potential"},
        "spikes": dict(spikes),
    }
    versions = meta.get("versions", {})
    told = {
        "onnx": f"onnxruntime {versions.get('onnxruntime', '')}",
        "lava": f"Lava {versions.get('lava', '')}",
        "nir": "the reference interpreter",
    }[device]
    text = f"{len(data.x)} samples on {told}, {sum(spikes.values()):,} spikes"
    classes = {name: np.concatenate([part[name] for part in found]) for name in answering(graph)}
    if len(classes) > 1:
        summary["answers"] = {name: each.tolist() for name, each in classes.items()}
    elif classes:
        (only,) = classes.values()
        summary["answers"] = only.tolist()
        if data.labels is not None:
            right = int(np.sum(only == data.labels))
            summary["accuracy"] = right / len(data.x)
            text += f", accuracy {right / len(data.x):.2%} ({right} of {len(data.x)})"
    result(options, text, summary)
    return 0


def _on_lava(model: Bundle, data: Data, options: argparse.Namespace) -> tuple[Graph, Iterable[Trace]]:
    program = model.program
    stimulus = encoded(program.graph, shown(program.graph, data.x, program.steps))
    found = lava.run(model.path, stimulus, potentials=bool(options.trace), timeout=options.timeout, log=log_of(options))
    trace = Trace(
        {key[:-2]: array.astype(bool) for key, array in found.arrays.items() if key.endswith(".s")},
        {key[:-2]: array for key, array in found.arrays.items() if key.endswith(".v")},
        {**found.meta, "potential": "after reset"},
    )
    return program.graph, [merged(program.graph, trace)]


def _in_reals(model: Bundle, data: Data, options: argparse.Namespace) -> tuple[Graph, Iterable[Trace]]:
    """The network that the bundle's ``model.nir`` holds, in float64, a batch of samples at a time."""
    found, steps = read(model.path / "model.nir"), int(model.manifest["steps"])
    stimulus = shown(found.graph, data.x, steps)
    in_integers = model.manifest.get("form") == "integers"  # its inputs are as well
    made, batch = InReals(found.graph, {}), BATCH
    if model.manifest.get("drawn") and found.integers:
        made = in_reals(found.graph, Target.load(found.integers), steps, profile_of(model.manifest["profile"]))
        batch = 1  # populations that are drawn digit by digit have many nodes

    def parts() -> Iterator[Trace]:
        with Progress(len(data.x), shown=not options.quiet) as progress:
            for first in range(0, len(data.x), batch):
                given = {name: np.asarray(x[first : first + batch], np.float64) for name, x in stimulus.items()}
                part = reference.run(made.graph, encoded(found.graph, given) if in_integers else given)
                progress.update(first + part.samples, "run in reals")
                yield made.populations(part, found.graph) if made.drawn else part

    return found.graph, parts()


def _on_onnxruntime(model: Bundle, data: Data, options: argparse.Namespace) -> tuple[Graph, Iterable[Trace]]:
    """The step graph of the bundle; the tensors of hidden populations are made outputs, nothing else is changed."""
    made, told = onnxruntime.open_step(model.path / "model.onnx")
    program = load(model.path)
    stimulus = shown(program.graph, data.x, program.steps)
    if told["form"] == "integer":
        stimulus = encoded(program.graph, stimulus)

    def parts() -> Iterator[Trace]:
        done = 0
        with Progress(len(data.x), shown=not options.quiet) as progress:
            for part in onnxruntime.batches(made, told, stimulus, potentials=bool(options.trace)):
                done += part.samples
                progress.update(done, "run on onnxruntime")
                yield merged(program.graph, part)

    return program.graph, parts()

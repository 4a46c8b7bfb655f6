"""``snncompile show``: graph, numbers and cores of any artifact."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from snncompile.commands.console import log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Imported
from snncompile.commands.opening import Bundle, open_model, taught_by
from snncompile.commands.traces import is_trace, load_trace
from snncompile.errors import ReadError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Neuron, Norm, Readout, Resonator, Scale, SigmaDelta, kind
from snncompile.ir.shapes import shapes, signals
from snncompile.ir.text import to_text
from snncompile.passes.place import chips_of, told
from snncompile.report.table import table
from snncompile.run.trace import Trace


def run(options: argparse.Namespace) -> int:
    """Print what an artifact holds."""
    if is_trace(options.artifact):
        return _trace(options, load_trace(options.artifact))
    model = open_model(options.artifact, options)
    if isinstance(model, Bundle):
        if options.level not in (None, "placed"):
            remedy = "give the checkpoint"
            raise ReadError(f"a bundle has no level {options.level!r}", where=options.artifact, remedy=remedy)
        program = model.program
        heading = f"{options.artifact}: {program.level} on {program.target}, {program.steps} steps a sample, "
        heading += "one stream" if program.stream else "sample by sample"
        board = str(model.manifest.get("target", {}).get("board", ""))
        target = model.target.on_board(board) if board else model.target
        heading += "\n" + told(chips_of(program.graph, target), target)
        return _graph(options, program.graph, heading, model.manifest.get("notes", ()), model.teacher)
    notes: Iterable[str] = model.found.notes if isinstance(model, Exchanged) else ()
    level = options.level or ("fixed" if isinstance(model, Imported) else "read")
    if level == "read" or (level == "fixed" and isinstance(model, Imported)):
        graph = model.graph
    elif level == "folded":
        graph = model.folded
    else:
        compiled = model.lowered(options, log_of(options))
        graph = next(one for name, one in compiled.levels.items() if name == level)
        notes = compiled.notes
    heading = f"{options.artifact}: {model.about}, level {level}"
    return _graph(options, graph, heading, notes, model.origin.get("teacher"))


def _graph(
    options: argparse.Namespace,
    graph: Graph,
    heading: str,
    notes: Iterable[str] = (),
    teacher: Mapping[str, Any] | None = None,
) -> int:
    """The table of a graph, what the passes that made it chose, and who taught it."""
    if options.text:
        result(options, to_text(graph).rstrip(), {"text": to_text(graph)})
        return 0
    extent, carried = shapes(graph), signals(graph)
    rows: list[list[str]] = []
    data: list[dict[str, Any]] = []
    for name in graph.order:
        op = graph.nodes[name]
        sources = [f"{edge.source}@{edge.delay}" if edge.delay else edge.source for edge in graph.into(name)]
        cores = [slice_.core for slice_ in op.cores] if isinstance(op, Neuron | Readout) else []
        entry = {
            "name": name,
            "op": kind(op),
            "shape": list(extent[name]),
            "signal": type(carried[name]).__name__.lower(),
            "weights": _weights(op),
            "phase": op.phase if isinstance(op, Neuron | Readout) else None,
            "cores": cores,
            "reads": sources,
        }
        data.append(entry)
        rows.append(
            [
                name,
                kind(op),
                "x".join(map(str, extent[name])),
                str(entry["signal"]),
                f"{entry['weights']:,}" if entry["weights"] else "",
                str(entry["phase"]) if entry["phase"] else "",
                _span(cores),
                ", ".join(sources),
            ]
        )
    headers = ["node", "op", "shape", "carries", "weights", "phase", "cores", "reads"]
    spiking = (Neuron, SigmaDelta, Resonator)
    neurons = sum(int(np.prod(op.shape)) for op in graph.nodes.values() if isinstance(op, spiking))
    weights = sum(_weights(op) for op in graph.nodes.values())
    heading += f"\n{taught_by(teacher)}" if teacher else ""
    text = f"{heading}\n{neurons:,} neurons, {weights:,} weights\n\n" + table(headers, rows, right={4, 5})
    chosen = list(notes)
    text += "\n\n" + "\n".join(chosen) if chosen else ""
    told_too = {"teacher": dict(teacher)} if teacher else {}
    result(options, text, {"nodes": data, "neurons": neurons, "weights": weights, "notes": chosen} | told_too)
    return 0


def _weights(op: object) -> int:
    match op:
        case Dense() | Conv():
            return int(np.prod(op.weight.shape))
        case Scale():
            return int(np.prod(op.factor.shape))
        case Norm():
            return int(2 * np.prod(op.gain.shape))
        case _:
            return 0


def _span(cores: list[int]) -> str:
    if not cores:
        return ""
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]}-{cores[-1]}"


def _trace(options: argparse.Namespace, trace: Trace) -> int:
    rows, data = [], {}
    for name in {**trace.spikes, **trace.potentials}:
        spikes, potentials = trace.spikes.get(name), trace.potentials.get(name)
        some = spikes if spikes is not None else potentials
        assert some is not None
        count = int(spikes.sum()) if spikes is not None else None
        rate = f"{spikes.mean():.2%}" if spikes is not None else ""
        rows.append([name, "x".join(map(str, some.shape)), "" if count is None else f"{count:,}", rate])
        data[name] = {"shape": list(some.shape), "spikes": count, "potentials": potentials is not None}
    result(options, table(["population", "samples x steps x neurons", "spikes", "rate"], rows, right={2, 3}), data)
    return 0

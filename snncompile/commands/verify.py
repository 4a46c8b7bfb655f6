"""``snncompile verify``: the ladder of one model, or the first divergence of two artifacts."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snncompile.commands.console import Log, log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model
from snncompile.commands.resuming import Kept, Resuming
from snncompile.commands.traces import is_trace, load_trace
from snncompile.errors import Disagreement, ReadError
from snncompile.report.table import table
from snncompile.run.trace import Trace, first_divergence

if TYPE_CHECKING:
    from snncompile.compile import Compiled
    from snncompile.ir.graph import Graph
    from snncompile.target import Target

REALS = ("read", "folded")
INTEGERS = ("fixed", "timed", "placed")
LEVELS = ("torch", *REALS, *INTEGERS, "cpu", "lava")


@dataclass(frozen=True)
class Played:
    """What an artifact did, and what it is: None where only the trace is left."""

    trace: Trace
    graph: Graph | None = None
    target: Target | None = None
    reals: bool = False


def run(options: argparse.Namespace) -> int:
    """0 where all agree; ``Disagreement`` where not."""
    if len(options.artifact) > 2:
        raise ReadError(f"{len(options.artifact)} artifacts", where="verify", remedy="give one (its ladder) or two")
    if len(options.artifact) == 2:
        return _compare(options)
    if is_trace(options.artifact[0]):
        raise ReadError("a trace has no ladder", where=options.artifact[0], remedy="give what it is compared with")
    return _ladder(options)


def lava_wanted(log: Log) -> bool:
    """Whether the device rung can run here; one line says so where it cannot."""
    from snncompile.backends import lava

    if os.environ.get("SNNCOMPILE_NO_LAVA") == "1" or lava.find_interpreter() is None:
        log("the Lava rung is left out: no Python 3.10 with Lava (`make lava`, or SNNCOMPILE_LAVA_PYTHON)")
        return False
    return True


def device_of(options: argparse.Namespace, target: Target) -> str:
    """What executes a program: as the command line says, else as the sheet does."""
    return str(getattr(options, "device", None) or target.interpreter)


def rung_rows(rungs: list[dict[str, Any]]) -> str:
    """The ladder as a table; ``rungs`` as in the JSON result."""
    rows = [
        [
            str(rung["rung"]),
            str(rung["level"]),
            str(rung["run_by"]),
            str(rung["against"]) or "-",
            str(rung["verdict"]),
            f"{rung['compared']:,}",
            f"{rung['different']:,}",
            str(rung["note"]),
        ]
        for rung in rungs
    ]
    headers = ["rung", "level", "run by", "against", "verdict", "compared", "different", ""]
    return table(headers, rows, right={0, 5, 6})


def climb(
    model: Trained | Imported | Exchanged, data: Data, options: argparse.Namespace, log: Log, resuming: Resuming
) -> tuple[Compiled, list[dict[str, Any]]]:
    """Lower a checkpoint and climb the ladder; the compiled network and the rungs. Raises ``Disagreement``."""
    from snncompile.commands.rungs_kept import belongs, kept_rungs, plain
    from snncompile.verify import LISTED, Ladder

    compiled = model.lowered(options, log)
    ladder = Ladder(compiled, data.x, data.labels, model.record(data.x))
    on_onnx = device_of(options, compiled.target) == "onnx"
    with_lava = not on_onnx and lava_wanted(log)
    total, device = len(ladder.climbs(with_lava, on_onnx)), "onnxruntime" if on_onnx else "Lava" if with_lava else ""
    kept = resuming.begin(total, "rungs", lambda: belongs(compiled, data, device))
    rungs: tuple[dict[str, Any], ...] = kept_rungs(kept) if kept else ()
    with resuming.keeping(lambda: Kept(len(rungs), {"rungs": list(rungs)})):
        for rung in ladder.rungs(with_lava=with_lava, onnx=on_onnx, log=log, first=len(rungs)):
            log(f"rung {rung.number} {rung.level}: {rung.verdict}")
            for flip in rung.flips[:LISTED]:
                log(f"  {flip}")
            if not rung.holds:  # the ladder up to here is the result; the error says the rest
                found = [*rungs, plain(rung)]
                result(options, rung_rows(found), {"data": data.name, "samples": len(data.x), "rungs": found})
                resuming.finish()
            rung.demand()
            rungs = (*rungs, plain(rung))
            resuming.counted()
    return compiled, list(rungs)


def _ladder(options: argparse.Namespace) -> int:
    log = log_of(options)
    resuming = Resuming(options, log)
    model = open_model(options.artifact[0], options)
    if isinstance(model, Bundle):
        device = model.manifest.get("device", "lava")
        options.artifact = [f"{options.artifact[0]}@cpu", f"{options.artifact[0]}@{device}"]
        return _compare(options)
    data = chosen_data(model, options)
    _, rungs = climb(model, data, options, log, resuming)
    result(options, rung_rows(rungs), {"data": data.name, "samples": len(data.x), "rungs": rungs})
    resuming.finish()
    return 0


def _compare(options: argparse.Namespace) -> int:
    from snncompile.run import parts
    from snncompile.rungs import explain

    log = log_of(options)
    if options.resume:
        why = "two artifacts are compared in one piece"
        remedy = "leave it out; `snncompile simulate --trace` and `snncompile run --trace` keep what each of them does"
        raise ReadError("--resume belongs to the ladder of one model", where="verify", why=why, remedy=remedy)
    one, other = (_played(artifact, options, log) for artifact in options.artifact)
    log("comparing " + " with ".join(options.artifact))
    left, right = one.trace, other.trace
    if left.meta.get("potential") != right.meta.get("potential"):
        known = one.graph or other.graph
        left, right = _as_machines_show(left, known), _as_machines_show(right, known)
    alone = sorted(left.spikes.keys() ^ right.spikes.keys())
    if alone:
        log("only one of the two has " + ", ".join(alone))
    potentials = not (one.reals or other.reals)
    graph, target = one.graph or other.graph, one.target or other.target
    order = parts.names(graph) if graph is not None else list({**left.spikes, **left.potentials})
    found = first_divergence(left, right, order, potentials=potentials)
    shared = [name for name in left.spikes if name in right.spikes]
    wrong = {name: int((left.spikes[name] != right.spikes[name]).sum()) for name in shared}
    total = sum(left.spikes[name].size for name in shared)
    if found is not None:
        layers = ", ".join(f"{name} {count}" for name, count in wrong.items() if count) or "potentials only"
        bits = target.potential.fraction_bits if target is not None else 0
        told = explain(graph, bits, found, one.trace, other.trace) if graph is not None and potentials else str(found)
        raise Disagreement(
            f"first {told}", where=" and ".join(options.artifact), why=f"spikes that differ of {total}: {layers}"
        )
    both = [name for name in left.potentials if name in right.potentials] if potentials else []
    text = f"equal: {total:,} spikes of {len(shared)} populations, potentials of {len(both)}"
    data = {"equal": True, "compared": total, "populations": shared, "potentials": both, "not_compared": alone}
    result(options, text, data)
    return 0


def _as_machines_show(trace: Trace, graph: Graph | None) -> Trace:
    """Potentials after the reset, to zero where no graph says otherwise."""
    if trace.meta.get("potential") == "after reset":
        return trace
    if graph is not None:
        from snncompile.run.parts import after_reset

        return after_reset(graph, trace)
    potentials = {
        name: array * ~trace.spikes[name] if name in trace.spikes else array for name, array in trace.potentials.items()
    }
    return Trace(trace.spikes, potentials, {**trace.meta, "potential": "after reset"})


def _played(artifact: str, options: argparse.Namespace, log: Log) -> Played:
    """What an artifact does on the data."""
    path, at, level = artifact.rpartition("@")
    if not at or Path(artifact).exists():  # a path may hold an @ of its own
        path, level = artifact, ""
    if is_trace(path):
        if level:
            raise ReadError(f"a trace has no level {level!r}", where=path, remedy="name the file alone")
        return Played(load_trace(path))
    model = open_model(path, options)
    data = chosen_data(model, options)
    if isinstance(model, Bundle):
        return _of_bundle(model, level or "cpu", data, log)
    if isinstance(model, Imported):
        return _of_imported(model, level or "fixed", data, options, log)
    return _of_reals(model, level or ("torch" if isinstance(model, Trained) else "read"), data, options, log)


def _of_imported(model: Imported, level: str, data: Data, options: argparse.Namespace, log: Log) -> Played:
    """A network in integers: on its own at level ``fixed``, else as it lies on the target."""
    from snncompile.compile import encoded, shown
    from snncompile.run import integer
    from snncompile.target import Target

    if level == "fixed":
        target = Target.load(options.target)
        stimulus = encoded(model.graph, shown(model.graph, data.x, model.steps))
        return Played(integer.run(model.graph, stimulus, target), model.graph, target)
    if level not in LEVELS or level in ("torch", *REALS):
        remedy = ", ".join(name for name in LEVELS if name not in ("torch", *REALS))
        raise ReadError(f"a .net has no level {level!r}", where=str(model.path), remedy=remedy)
    return _on_target(model, level, data, options, log)


def _of_bundle(bundle: Bundle, level: str, data: Data, log: Log) -> Played:
    from snncompile.backends import onnxruntime
    from snncompile.compile import encoded, shown
    from snncompile.run import integer
    from snncompile.run.cpu import Simulator
    from snncompile.run.parts import merged
    from snncompile.verify import run_on_lava

    program, target = bundle.program, bundle.target
    graph = program.graph
    stimulus = encoded(graph, shown(graph, data.x, program.steps))
    match level:
        case "cpu":
            trace = Simulator(graph, target).run(stimulus)
        case "placed":
            trace = integer.run(graph, stimulus, target, stream=program.stream)
        case "lava":
            trace = run_on_lava(bundle.path, stimulus, log)[0]
        case "onnx":
            trace = onnxruntime.trace(*onnxruntime.open_step(bundle.path / "model.onnx"), stimulus)
        case _:
            remedy = "cpu, placed, lava or onnx"
            raise ReadError(f"a bundle has no level {level!r}", where=str(bundle.path), remedy=remedy)
    return Played(merged(graph, trace), graph, target)


def _of_reals(model: Trained | Exchanged, level: str, data: Data, options: argparse.Namespace, log: Log) -> Played:
    from snncompile.compile import shown
    from snncompile.run import reference

    known = LEVELS if isinstance(model, Trained) else LEVELS[1:]
    if level not in known:
        what = "a checkpoint" if isinstance(model, Trained) else "a .nir"
        raise ReadError(f"{what} has no level {level!r}", where=str(model.path), remedy=", ".join(known))
    if level == "torch" and isinstance(model, Trained):
        return Played(model.record(data.x), model.graph, reals=not model.in_integers)
    if level in REALS and not model.in_integers:
        graph = model.graph if level == "read" else model.folded
        return Played(reference.run(graph, shown(graph, data.x, model.steps)), graph, reals=True)
    return _on_target(model, "fixed" if level in REALS else level, data, options, log)  # all one graph in integers


def _on_target(
    model: Trained | Imported | Exchanged, level: str, data: Data, options: argparse.Namespace, log: Log
) -> Played:
    from snncompile.compile import encoded, shown
    from snncompile.run import integer
    from snncompile.run.cpu import Simulator
    from snncompile.run.parts import merged

    compiled = model.lowered(options, log)
    graph = next(graph for name, graph in compiled.levels.items() if name == (level if level in INTEGERS else "placed"))
    stimulus = encoded(graph, shown(model.graph, data.x, model.steps))
    if level == "cpu":
        trace = Simulator(graph, compiled.target).run(stimulus)
    elif level == "lava":
        from snncompile.verify import Ladder

        trace = Ladder(compiled, data.x, None, None).on_device(log)[0]
    else:
        stream = compiled.program.stream and level != "fixed"
        trace = integer.run(graph, stimulus, compiled.target, stream=stream)
    return Played(merged(graph, trace), graph, compiled.target)

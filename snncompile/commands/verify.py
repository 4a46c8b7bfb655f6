"""``snncompile verify``: the ladder of one model, or the first divergence of two artifacts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snncompile.commands.console import Log, log_of, result
from snncompile.commands.opening import Bundle, Data, Trained, chosen_data, open_model
from snncompile.errors import Disagreement, ReadError
from snncompile.report.table import table
from snncompile.run.trace import Trace, first_divergence

if TYPE_CHECKING:
    from snncompile.compile import Compiled

REALS = ("read", "folded")
INTEGERS = ("fixed", "timed", "placed")


def run(options: argparse.Namespace) -> int:
    """0 where all agree; ``Disagreement`` where not."""
    if len(options.artifact) == 1:
        return _ladder(options)
    if len(options.artifact) == 2:
        return _compare(options)
    raise ReadError(f"{len(options.artifact)} artifacts", where="verify", remedy="give one (its ladder) or two")


def lava_wanted(log: Log) -> bool:
    """Whether the device rung can run here; one line says so where it cannot."""
    from snncompile.backends import lava

    if os.environ.get("SNNCOMPILE_NO_LAVA") == "1" or lava.find_interpreter() is None:
        log("the Lava rung is left out: no Python 3.10 with Lava (`make lava`, or SNNCOMPILE_LAVA_PYTHON)")
        return False
    return True


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


def climb(model: Trained, data: Data, options: argparse.Namespace, log: Log) -> tuple[Compiled, list[dict[str, Any]]]:
    """Lower a checkpoint and climb the ladder; the compiled network and the rungs. Raises ``Disagreement``."""
    from snncompile.verify import LISTED, Ladder

    compiled = model.lowered(options, log)
    ladder = Ladder(compiled, data.x, data.labels, model.record(data.x))
    rungs: list[dict[str, Any]] = []
    for rung in ladder.rungs(with_lava=lava_wanted(log), log=log):
        log(f"rung {rung.number} {rung.level}: {rung.verdict}")
        for flip in rung.flips[:LISTED]:
            log(f"  {flip}")
        rung.demand()
        rungs.append(
            {
                "rung": rung.number,
                "level": rung.level,
                "run_by": rung.run_by,
                "against": rung.against,
                "verdict": rung.verdict,
                "compared": rung.compared,
                "different": rung.different,
                "note": rung.note,
                "flips": [str(flip) for flip in rung.flips],
                "distance": dict(rung.distance or {}),
            }
        )
    return compiled, rungs


def _ladder(options: argparse.Namespace) -> int:
    model = open_model(options.artifact[0])
    if isinstance(model, Bundle):
        options.artifact = [f"{options.artifact[0]}@cpu", f"{options.artifact[0]}@lava"]
        return _compare(options)
    data = chosen_data(model, options)
    _, rungs = climb(model, data, options, log_of(options))
    result(options, rung_rows(rungs), {"data": data.name, "samples": len(data.x), "rungs": rungs})
    return 0


def _compare(options: argparse.Namespace) -> int:
    log = log_of(options)
    traces = [_trace(artifact, options, log) for artifact in options.artifact]
    (one, order), (other, _) = traces
    log("comparing " + " with ".join(options.artifact))
    reals = one.meta.get("reals") or other.meta.get("reals")
    if one.meta.get("potential") != other.meta.get("potential"):
        one, other = _as_machines_show(one), _as_machines_show(other)
    found = first_divergence(one, other, order, potentials=not reals)
    shared = [name for name in one.spikes if name in other.spikes]
    wrong = {name: int((one.spikes[name] != other.spikes[name]).sum()) for name in shared}
    total = sum(one.spikes[name].size for name in shared)
    if found is not None:
        layers = ", ".join(f"{name} {count}" for name, count in wrong.items() if count) or "potentials only"
        raise Disagreement(
            f"first {found}", where=" and ".join(options.artifact), why=f"spikes that differ of {total}: {layers}"
        )
    text = f"equal: {total:,} spikes of {len(shared)} populations" + ("" if reals else ", and potentials")
    result(options, text, {"equal": True, "compared": total, "populations": shared, "potentials": not reals})
    return 0


def _as_machines_show(trace: Trace) -> Trace:
    """Potentials after the (hard) reset."""
    if trace.meta.get("potential") == "after reset":
        return trace
    potentials = {
        name: array * ~trace.spikes[name] if name in trace.spikes else array for name, array in trace.potentials.items()
    }
    return Trace(trace.spikes, potentials, {**trace.meta, "potential": "after reset"})


def _trace(artifact: str, options: argparse.Namespace, log: Log) -> tuple[Trace, list[str]]:
    """What an artifact does on the data, and the order of its populations."""
    path, _, level = artifact.partition("@")
    if path.endswith(".npz"):
        trace = Trace.load(Path(path))
        return trace, list({**trace.spikes, **trace.potentials})
    model = open_model(path)
    data = chosen_data(model, options)
    if isinstance(model, Bundle):
        return _of_bundle(model, level or "cpu", data, log)
    return _of_checkpoint(model, level or "torch", data, options, log)


def _of_bundle(bundle: Bundle, level: str, data: Data, log: Log) -> tuple[Trace, list[str]]:
    from snncompile.compile import encoded, shown
    from snncompile.run import integer
    from snncompile.run.cpu import Simulator
    from snncompile.verify import run_on_lava

    program = bundle.program
    graph = program.graph
    stimulus = encoded(graph, shown(graph, data.x, program.steps))
    match level:
        case "cpu":
            return Simulator(graph, bundle.target).run(stimulus), list(graph.order)
        case "placed":
            return integer.run(graph, stimulus, bundle.target, stream=program.stream), list(graph.order)
        case "lava":
            return run_on_lava(bundle.path, stimulus, log)[0], list(graph.order)
        case _:
            raise ReadError(f"a bundle has no level {level!r}", where=str(bundle.path), remedy="cpu, placed or lava")


def _of_checkpoint(
    model: Trained, level: str, data: Data, options: argparse.Namespace, log: Log
) -> tuple[Trace, list[str]]:
    from snncompile.compile import encoded, fold, shown
    from snncompile.run import integer, reference
    from snncompile.run.cpu import Simulator

    if level == "torch":
        trace = model.record(data.x)
        return Trace(trace.spikes, trace.potentials, {**trace.meta, "reals": True}), list(model.graph.order)
    if level in REALS:
        graph = model.graph if level == "read" else fold(model.graph)[0]
        trace = reference.run(graph, shown(graph, data.x, model.steps))
        return Trace(trace.spikes, trace.potentials, {**trace.meta, "reals": True}), list(graph.order)
    if level not in (*INTEGERS, "cpu", "lava"):
        known = ", ".join(("torch", *REALS, *INTEGERS, "cpu", "lava"))
        raise ReadError(f"a checkpoint has no level {level!r}", where=str(model.path), remedy=known)
    compiled = model.lowered(options, log)
    fixed = compiled.levels["fixed"]
    stimulus = encoded(fixed, shown(fixed, data.x, model.steps))
    order = list(fixed.order)
    if level == "cpu":
        return Simulator(compiled.levels["placed"], compiled.target).run(stimulus), order
    if level == "lava":
        from snncompile.verify import Ladder

        ladder = Ladder(compiled, data.x, None, None)
        return ladder.on_device(log)[0], order
    graph = next(one for name, one in compiled.levels.items() if name == level)
    stream = compiled.program.stream and level != "fixed"
    return integer.run(graph, stimulus, compiled.target, stream=stream), order

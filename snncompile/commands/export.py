"""``snncompile export``: lower, prove, write the bundle."""

from __future__ import annotations

import argparse
import platform
import shutil
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from snncompile import __version__
from snncompile.backends import bundle, lava, net, onnx, onnxruntime
from snncompile.commands import export_nir, export_reals
from snncompile.commands.console import log_of, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Bundle, Trained, chosen_data, open_model, source_of
from snncompile.commands.resuming import Resuming
from snncompile.commands.verify import climb, device_of, rung_rows
from snncompile.compile import Compiled
from snncompile.energy import dense_macs
from snncompile.energy_skeleton import skeleton
from snncompile.errors import ReadError
from snncompile.ir.connections import is_partial
from snncompile.ir.ops import Input, Neuron, Readout
from snncompile.ir.store import Program, save
from snncompile.passes.place import chips_of, utilisation
from snncompile.passes.quantise import Layer, Range
from snncompile.report.bundle_report import bundle_report
from snncompile.report.cores_picture import cores_svg
from snncompile.report.document import to_html, to_markdown
from snncompile.run.steps import latency
from snncompile.target import Target


def run(options: argparse.Namespace) -> int:
    """Export; nothing is written where a level does not hold."""
    if options.resume and (options.target == "nir" or options.reals or options.no_verify):
        what = "--resume belongs to the ladder of a machine"
        raise ReadError(what, where=options.resume, remedy="leave it out: this takes no long proof")
    if options.target == "nir":
        return export_nir.run(options)
    log = log_of(options)
    resuming = Resuming(options, log)
    out = Path(options.output)
    if options.soft_reset or options.nir_profile != "canonical":
        raise ReadError("--nir-profile and --soft-reset belong to NIR", where=options.target, remedy="--target nir")
    target = Target.load(options.target)  # a wrong target is said before anything else is read
    device = device_of(options, target)
    if device != "onnx" and (options.reals or options.scan):
        raise ReadError(
            "--float and --scan belong to ONNX", where=target.name, remedy="--target onnx, or --device onnx"
        )
    if device == "onnx":
        onnxruntime.demand()
    model = open_model(options.model, options)
    if isinstance(model, Bundle):
        raise ReadError("is a bundle already", where=options.model, remedy="export the checkpoint it came from")
    bundle.check_free(out, force=options.force)
    data = chosen_data(model, options)
    if options.reals:
        return export_reals.run(model, data, options, log)
    rungs: list[dict[str, Any]] = []
    if options.no_verify:
        compiled = model.lowered(options, log)
    else:
        compiled, rungs = climb(model, data, options, log, resuming)
    with bundle.writing(out, force=options.force) as folder:
        save(compiled.program, folder)
        (folder / "network").mkdir()
        save(Program(skeleton(model.graph), "read", compiled.target.name, compiled.steps), folder / "network")
        shutil.copyfile(compiled.target.sheet.path, folder / "target.toml")
        note = _for_onnx(compiled, folder, options) if device == "onnx" else _for_lava(compiled, folder)
        log(note)
        manifest = _manifest(model, data, compiled, rungs, note) | {"device": device}
        blocks = bundle_report(manifest)
        (folder / "cores.svg").write_text(cores_svg(manifest), encoding="utf-8")
        (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        (folder / "report.html").write_text(to_html(manifest["source"]["recipe"], blocks), encoding="utf-8")
        bundle.write_manifest(folder, manifest)
    text = (rung_rows(rungs) + "\n\n" if rungs else "") + f"wrote {out}: {manifest['cores_used']} cores, "
    text += f"latency {manifest['latency']} steps; read {out / 'report.md'}"
    if not rungs:
        text += "\nNOT VERIFIED (--no-verify)"
    result(options, text, {"bundle": str(out), "rungs": rungs, "verified": bool(rungs)})
    resuming.finish()
    return 0


def _manifest(
    model: Trained | Imported | Exchanged, data: Data, compiled: Compiled, rungs: list[dict[str, Any]], note: str
) -> dict[str, Any]:
    graph, origin = compiled.levels["placed"], model.origin
    populations = {name: op for name, op in graph.nodes.items() if isinstance(op, Neuron | Readout)}
    return {
        "source": source_of(model),
        "recipe": origin["recipe"],
        "classes": origin["classes"],
        "target": _machine(compiled),
        "versions": {
            "snncompile": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "networkx", "torch")},
        },
        "steps": compiled.steps,
        "latency": latency(graph),
        "stream": compiled.program.stream,
        "inputs": {
            name: {"shape": list(op.shape), "signal": type(op.signal).__name__.lower()} | asdict(op.signal)
            for name, op in graph.nodes.items()
            if isinstance(op, Input)
        },
        "resets": {
            name: {"interval": compiled.steps, "offset": op.phase + 1}
            for name, op in populations.items()
            if not is_partial(op)  # it keeps nothing
        },
        "cores_used": sum(len(op.cores) for op in populations.values()),
        "placement": _placement(compiled),
        "quantisation": [_layer(layer) for layer in compiled.layers],
        "ann_mac": dense_macs(model.topology),
        "spike_exact": not compiled.later,
        "notes": [*compiled.notes, note],
        "verification": {"data": data.name, "samples": len(data.x), "rungs": rungs},
    }


def _machine(compiled: Compiled) -> dict[str, Any]:
    """The target, and the board that the network lies on."""
    target, lies = compiled.target, chips_of(compiled.levels["placed"], compiled.target)
    return {
        "name": target.name,
        "title": target.title,
        "board": lies.board.name,
        "chips": lies.board.chips,
        "chip_cores": target.chip_cores,
        "chips_used": lies.chips,
        "routes_between_chips": lies.crossing,
    }


def _for_lava(compiled: Compiled, folder: Path) -> str:
    """Write what Lava and lava-dl read; how lava-dl reads it, or why it cannot."""
    lava.emit(folder)
    reason = net.export(compiled.program.graph, folder / "network.net", compiled.steps)
    if reason:
        return f"no network.net: {reason}"
    return "network.net is read by lava-dl with " + net.loading(compiled.program.graph, compiled.steps)


def _for_onnx(compiled: Compiled, folder: Path, options: argparse.Namespace) -> str:
    """Write the step graph and an example of what a runtime must give."""
    told = onnx.save(compiled.logical, compiled.target, folder)
    if options.scan:
        (folder / "scan").mkdir()
        onnx.save(compiled.logical, compiled.target, folder / "scan", scan=True)
    return f"model.onnx: {told['guarantee']}, {len(told['states'])} states"


def _layer(layer: Layer) -> dict[str, Any]:
    def of(entry: Range) -> dict[str, Any]:
        return {"limit": entry.limit, "worst": entry.worst, "proven": entry.proven}

    return asdict(layer) | {"current": of(layer.current), "potential": of(layer.potential)}


def _placement(compiled: Compiled) -> list[dict[str, Any]]:
    core = compiled.target.core
    slices = []
    for name, used in utilisation(compiled.levels["placed"], compiled.target).items():
        for slice_, use in used:
            numbers = {key: getattr(use, key) for key in ("neurons", "synaptic_words", "axons_in", "axons_out")}
            share = {key: value / getattr(core, key) for key, value in numbers.items()}
            slices.append({"population": name, "core": slice_.core, **numbers, "share": share})
    return slices

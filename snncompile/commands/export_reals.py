"""``snncompile export --float``: the folded network as a step graph in float32, its spikes compared."""

from __future__ import annotations

import argparse
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from snncompile import __version__
from snncompile.backends import bundle, onnx, onnxruntime
from snncompile.commands.console import Log, result
from snncompile.commands.exchanged import Exchanged
from snncompile.commands.imported import Data, Imported
from snncompile.commands.opening import Trained, source_of
from snncompile.compile import shown
from snncompile.errors import Disagreement
from snncompile.ir.store import Program, save
from snncompile.report.document import Block, Heading, Paragraph, to_html, to_markdown
from snncompile.run import reference
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target


def run(model: Trained | Imported | Exchanged, data: Data, options: argparse.Namespace, log: Log) -> int:
    """Write the bundle. A form that is said to be exact and is not is a ``Disagreement``."""
    out, target = Path(options.output), Target.load(options.target)
    program = Program(model.folded, "folded", target.name, model.steps)
    made = onnx.model(program, None)
    told = onnx.told_by(made)
    compared = [] if options.no_verify else _compared(model, program, data, made, log)
    for entry in compared:
        if entry["against"] == "folded" and entry["different"] and told["guarantee"] == onnx.EXACT:
            raise Disagreement(f"is said to be exact; {entry['note']}", where="model.onnx")
    with bundle.writing(out, force=options.force) as folder:
        save(program, folder)
        shutil.copyfile(target.sheet.path, folder / "target.toml")
        onnx.save(program, None, folder)
        if options.scan:
            (folder / "scan").mkdir()
            onnx.save(program, None, folder / "scan", scan=True)
        manifest = _manifest(model, data, program, compared, told["guarantee"])
        blocks = _report(manifest)
        (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        (folder / "report.html").write_text(to_html(model.title, blocks), encoding="utf-8")
        bundle.write_manifest(folder, manifest)
    lines = [f"spikes against {entry['against']}: {entry['note']}" for entry in compared]
    lines += [f"wrote {out}: {told['guarantee']}"] + ([] if compared else ["NOT VERIFIED (--no-verify)"])
    result(options, "\n".join(lines), {"bundle": str(out), "compared": compared, "guarantee": told["guarantee"]})
    return 0


def _compared(
    model: Trained | Imported | Exchanged, program: Program, data: Data, made: Any, log: Log
) -> list[dict[str, Any]]:
    """The spikes of onnxruntime against those of the folded graph in float64, and those of torch."""
    stimulus = {name: np.asarray(x, np.float64) for name, x in shown(program.graph, data.x, program.steps).items()}
    found = onnxruntime.trace(made, onnx.told_by(made), stimulus)
    above = {"folded": reference.run(program.graph, stimulus), "checkpoint": model.record(data.x)}
    return [_against(name, trace, found, program, log) for name, trace in above.items() if trace is not None]


def _against(name: str, trace: Trace, found: Trace, program: Program, log: Log) -> dict[str, Any]:
    shared = [key for key in trace.spikes if key in found.spikes]
    total = sum(trace.spikes[key].size for key in shared)
    different = sum(int((trace.spikes[key] != found.spikes[key]).sum()) for key in shared)
    note = f"{different:,} of {total:,} differ"
    if different:
        note += f", first {first_divergence(trace, found, program.graph.order, potentials=False)}"
    log(f"onnxruntime against {name}: {note}")
    return {"against": name, "compared": total, "different": different, "note": note}


def _manifest(
    model: Trained | Imported | Exchanged, data: Data, program: Program, compared: list[dict[str, Any]], guarantee: str
) -> dict[str, Any]:
    origin = model.origin
    return {
        "source": source_of(model),
        "recipe": origin["recipe"],
        "classes": origin["classes"],
        "device": "onnx",
        "form": "float",
        "guarantee": guarantee,
        "versions": {
            "snncompile": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "networkx", "torch", "onnx", "onnxruntime")},
        },
        "steps": program.steps,
        "verification": {"data": data.name, "samples": len(data.x), "compared": compared},
    }


def _report(manifest: dict[str, Any]) -> list[Block]:
    source, proof = manifest["source"], manifest["verification"]
    lines = [f"Spikes against {entry['against']}: {entry['note']}." for entry in proof["compared"]]
    return [
        Heading(f"{source['recipe']} in float32", 1),
        Paragraph(
            f"Exported by snncompile {manifest['versions']['snncompile']} from {source['name']} "
            f"(SHA-256 {source['sha256'][:12]}). {manifest['steps']} steps a sample. {manifest['guarantee']}."
        ),
        Heading("Comparison"),
        Paragraph(f"On {proof['samples']} samples of {proof['data']}." if lines else "Not verified."),
        *map(Paragraph, lines),
    ]

"""``snncompile run``: a bundle on its device's software."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from snncompile.backends import lava
from snncompile.commands.console import check_place, log_of, result
from snncompile.commands.opening import Bundle, chosen_data, open_model
from snncompile.compile import encoded, shown
from snncompile.errors import ReadError, ToolError
from snncompile.ir.ops import Readout
from snncompile.run.parts import merged
from snncompile.run.trace import Trace
from snncompile.verify import answers


def run(options: argparse.Namespace) -> int:
    """Execute, and say how often the answer was right where there are labels."""
    log = log_of(options)
    if options.trace:
        check_place(Path(options.trace))
    model = open_model(options.bundle)
    if not isinstance(model, Bundle):
        raise ReadError("is no bundle", where=options.bundle, remedy="export it first")
    target = model.target
    if target.interpreter != "lava":
        raise ToolError(
            f"no device software for {target.name}", where=options.bundle, remedy="use `snncompile simulate`"
        )
    data = chosen_data(model, options)
    program = model.program
    stimulus = encoded(program.graph, shown(program.graph, data.x, program.steps))
    found = lava.run(model.path, stimulus, potentials=bool(options.trace), timeout=options.timeout, log=log)
    shown_by_lava = Trace(
        {key[:-2]: array.astype(bool) for key, array in found.arrays.items() if key.endswith(".s")},
        {key[:-2]: array for key, array in found.arrays.items() if key.endswith(".v")},
        {**found.meta, "potential": "after reset"},
    )
    trace = merged(program.graph, shown_by_lava)
    if options.trace:
        trace.save(Path(options.trace))
    summary: dict[str, object] = {
        "bundle": options.bundle,
        "data": data.name,
        "samples": len(data.x),
        "lava": dict(found.meta),
        "spikes": {name: int(array.sum()) for name, array in trace.spikes.items()},
    }
    text = f"{len(data.x)} samples on Lava {found.meta.get('versions', {}).get('lava', '')}, "
    text += f"{sum(int(array.sum()) for array in trace.spikes.values()):,} spikes"
    if len(program.graph.names(Readout)) == 1:
        classes = answers(program.graph, trace)
        summary["answers"] = classes.tolist()
        if data.labels is not None:
            right = int(np.sum(classes == data.labels))
            summary["accuracy"] = right / len(data.x)
            text += f", accuracy {right / len(data.x):.2%} ({right} of {len(data.x)})"
    result(options, text, summary)
    return 0

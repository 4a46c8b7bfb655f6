"""Networks exported to NIR by other frameworks, read here: every spike of the last layer against the framework's own.

    SNNCOMPILE_NIR_PYTHON=.../bin/python python benchmarks/nir_import.py

``SNNCOMPILE_NIR_PYTHON`` names the interpreter that has the frameworks (``nir_exporters.py`` runs there); what it
cannot export is listed with its error. Prints a table; the exit code is 1 where a spike differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.errors import SnncompileError
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options, parse
from snncompile.ir.ops import Input, Output
from snncompile.report.table import table
from snncompile.run import reference

INTERPRETER = "SNNCOMPILE_NIR_PYTHON"
SAID: dict[str, tuple[str | None, float | None, str]] = {
    "spikingjelly_lif": (None, None, "fires=ge"),
    "spikingjelly_decay_input": ("euler", 1e-4, "fires=ge,start=reset"),
    "spikingjelly_if": (None, None, "fires=ge,start=reset"),
    "spikingjelly_cuba": (None, None, "fires=ge"),
    "snntorch_leaky": (None, None, ""),
    "snntorch_synaptic": (None, None, ""),
    "snntorch_recurrent": (None, None, "loop=lif1.w_rec"),
    "norse_lif": ("euler", 2.0**-20, ""),  # Norse 1.1.0 writes tau dt for tau, so that its dt is dt dt in the file
    "sinabs_if": ("sinabs", None, ""),
}
"""What is said of each file: semantics, dt, words of --nir. What a file says itself is not said again."""


def shown(case: str) -> str:
    """The options as on the command line."""
    semantics, dt, words = SAID[case]
    said = {"--nir-semantics": semantics, "--dt": dt, "--nir": words}
    return " ".join(f"{key} {value}" for key, value in said.items() if value)


def compared(folder: Path, case: str, options: Options) -> tuple[int, int, int]:
    """Spikes compared, different, and how many there are."""
    graph = read(folder / f"{case}.nir", options).graph
    with np.load(folder / f"{case}.npz") as content:
        x, expected = content["x"].astype(np.float64), content["spikes"]
    ((name, given),) = ((name, op) for name, op in graph.nodes.items() if isinstance(op, Input))
    ends = {edge.source for end in graph.names(Output) for edge in graph.into(end)}
    trace = reference.run(graph, {name: x.reshape(1, len(x), *given.shape)})
    (last,) = ends
    found = trace.spikes[last][0]
    return found.size, int((found != expected).sum()), int(expected.sum())


def main() -> int:
    """The table of all cases."""
    rows, wrong = [], 0
    runner = Path(__file__).with_name("nir_exporters.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [os.environ.get(INTERPRETER, sys.executable), str(runner), name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in (line for line in done.stdout.splitlines() if line.startswith('{"case"')):
            told: dict[str, Any] = json.loads(line)
            case = told["case"]
            if "failed" in told:
                rows.append([case, "", shown(case), "", "", "", f"not exported: {told['failed'][:60]}"])
                continue
            try:
                size, different, spikes = compared(folder, case, parse(*SAID[case]))
                verdict = "equal" if not different else "differs"
            except SnncompileError as error:
                size, different, spikes, verdict = 0, 0, 0, f"refused: {error.what}"[:70]
            wrong += verdict != "equal"
            rows.append([case, told["version"], shown(case), f"{size:,}", f"{spikes:,}", f"{different:,}", verdict])
    headers = ["exporter and network", "version", "said of the file", "compared", "spikes", "different", "verdict"]
    print(table(headers, rows, right={3, 4, 5}))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

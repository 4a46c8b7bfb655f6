"""lava-dl's own ground truths against our interpreters: a table of case, values compared, mismatches.

    python benchmarks/conformance.py [--wheel lava_dl-0.6.0-py3-none-any.whl] [--only CASE ...]

The wheel of lava-dl 0.6.0 on PyPI (68 MB, BSD-3) carries the networks and recordings of its tests under
``tests/lava/lib/dl/netx/``; without ``--wheel`` it is downloaded into a temporary folder. Every network is read from a
``.net``: the upstream file, or, for the cases that upstream holds as loose matrices, one written here in its schema.

Not compared, and why:
    pilotnet_lif/fc-3-*       25 steps where all others have 24, and other currents: from another run
    pilotnet_lif/input-s.npy  differs from input.npy (which the layers behind it agree with) after step 16: another run
    pilotnet_lif, v at spikes the chip shows a neuron that has just fired as 128, its mark of refractoriness
    tinynet_sdnn/layer1       after its first step: upstream ran one
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
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Resonator, SigmaDelta
from snncompile.ir.signals import Fixed
from snncompile.report.table import table
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Array, Trace
from snncompile.target import Target

FOLDER = "tests/lava/lib/dl/netx"
WHEEL = "lava-dl==0.6.0"
AGREE = "cpu = integer"
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
    return slow, [Row(case, AGREE, compared, different)]


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


def in_machine_time(graph: Graph) -> Graph:
    """Every synapse one step late and all layers from step 0 on, as Lava runs what it never resets."""
    edges = [
        Edge(e.source, e.target, e.delay + 1) if isinstance(graph.nodes[e.target], Dense | Conv) else e
        for e in graph.edges
    ]
    return graph.edit(None, edges)


def with_sums(graph: Graph) -> Graph:
    """With a population ``NAME.sum`` beside every sigma-delta ``NAME`` that shows what it has summed up."""
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    for name in graph.names(SigmaDelta):
        op = graph.nodes[name]
        assert isinstance(op, SigmaDelta)
        nodes[f"{name}.sum"] = replace(op, kind="sigma")
        edges += [Edge(edge.source, f"{name}.sum", edge.delay) for edge in graph.into(name)]
    return graph.edit(nodes, [*graph.edges, *edges])


def messages(graph: Graph, trace: Trace, name: str) -> Array:
    """What a sigma-delta population sent, [steps, *shape]."""
    op = graph.nodes[name]
    assert isinstance(op, SigmaDelta)
    sent: Array = (trace.potentials[name] * trace.spikes[name])[0] >> op.shift
    return sent


def pilotnet_sdnn(folder: Path) -> Iterator[Row]:
    """An image that stands still, encoded, through 4 convolutions and 4 dense layers; then the layers' sums."""
    place = folder / "gts/pilotnet_sdnn"
    graph = in_machine_time(read(place / "network.net").graph)
    x = image_first(np.load(place / "input.npy")) / 64
    trace = integer.run(graph, encoded(graph, shown(graph, x, 9)), LOIHI)
    yield compare("pilotnet_sdnn", "sums output", trace.potentials["sdnn9"][0], np.load(place / "output.npy").T)
    for file, wide, layers in (("network", 100, ("1", "2")), ("square_network", 33, ("1", "2", "3", "4"))):
        graph = with_sums(in_machine_time(read(place / f"{file}.net").graph))
        first = graph.nodes["sdnn0"]
        assert isinstance(first, SigmaDelta)
        given = {"image": None, "input": None, "sdnn0": Input(first.shape, Fixed(24))}
        graph = graph.edit({**given, "sdnn0.sum": None})
        act = image_first(np.load(place / "act0.npy")[:wide, :33])[None]
        trace = integer.run(graph, {"sdnn0": act.astype(np.int64)}, LOIHI)
        for layer in layers:
            theirs = image_first(np.load(place / f"sigma{layer}{'_square' if wide == 33 else ''}.npy"))
            ours = trace.potentials[f"sdnn{layer}.sum"][0]
            yield compare("pilotnet_sdnn", f"sums {file} {layer}", ours, theirs)


def tinynet_sdnn(folder: Path) -> Iterator[Row]:
    """An encoder; one step of biased convolution neurons; a sum. Upstream ran the two latter on spikes of 1."""
    place = folder / "gts/tinynet_sdnn"
    neuron = {"type": b"SDNN", "vThMant": 20}
    graph = written([{"type": b"input", "shape": [3, 16, 16], "neuron": neuron}])
    wave = np.sin(2 * np.pi * np.arange(15) / 15)
    x = image_first((np.load(place / "input_bias.npy")[..., None] * wave).astype(int))
    trace = integer.run(graph, {"input": x[None]}, LOIHI)
    yield compare(
        "tinynet_sdnn", "messages input", messages(graph, trace, "sdnn0"), image_first(np.load(place / "input.npy"))
    )
    conv = {"type": b"conv", "shape": [24, 6, 6], "stride": 2, "weight": kernel(np.load(place / "layer1_kernel.npy"))}
    conv |= {"bias": np.load(place / "layer1_bias.npy"), "neuron": neuron}
    dense_ = {"type": b"dense", "shape": [100], "weight": np.load(place / "layer2_weight.npy")}
    graph = in_machine_time(written([{"type": b"input", "shape": [3, 16, 16]}, conv]))
    theirs = image_first(np.load(place / "layer1.npy"))
    trace = integer.run(graph, {"input": np.zeros((1, 1, 3, 16, 16), dtype=np.int64)}, LOIHI)
    yield compare("tinynet_sdnn", "messages layer1", messages(graph, trace, "sdnn1"), theirs[:1])
    layers = [{"type": b"input", "shape": [864]}, dense_ | {"neuron": neuron | {"sigma_output": True}}]
    graph = in_machine_time(written(layers))
    spikes = np.load(place / "layer1.npy").reshape(-1, 16).T != 0
    trace = integer.run(graph, {"input": spikes[None].astype(np.int64)}, LOIHI)
    yield compare("tinynet_sdnn", "sums layer2", trace.potentials["sdnn1"][0], np.load(place / "layer2.npy").T)


def kernel(weight: Array) -> Array:
    """Lava's [out, x, y, in], turned round, as the [out, in, y, x] of a file."""
    return weight[:, ::-1, ::-1].transpose(0, 3, 2, 1)


def complex_dense(folder: Path) -> Iterator[Row]:
    """RF_IZ neurons that hear the input in both parts; 200-256 with complex weights to RF neurons; 2000 steps."""
    place = folder / "gts/complex_dense"
    x = np.load(place / "in.npy").transpose()[None].astype(np.int64)
    one = np.eye(200, dtype=np.int64)
    for kind, weight, (size, period), threshold, file in (
        ("RF", (one, one), (200, 7), FixedPoint.number(int(1.1 * 64), -6), "current"),  # finer than the format
        ("RF_PHASE", tuple(np.load(place / f"weight_{part}.npy") for part in ("r", "img")), (256, 11), None, "out"),
    ):
        turn = [int(0.95 * wave(np.pi * 2 / period) * 4096) for wave in (np.sin, np.cos)]
        neuron = {"type": kind.encode(), "sinDecay": turn[0], "cosDecay": turn[1], "vThMant": 25}
        weights = dict(zip(("real", "imag"), weight, strict=True))
        graph = written([{"type": b"dense", "shape": [size], "weight": weights, "neuron": neuron}])
        op = graph.nodes["rf0"]
        assert isinstance(op, Resonator)
        # upstream made the neurons directly, without the fractions that reading a file cuts off
        sine, cosine = (FixedPoint.number(value, -12) for value in turn)
        graph = graph.edit({"rf0": replace(op, sine=sine, cosine=cosine, threshold=threshold or op.threshold)})
        graph = graph if threshold else in_machine_time(graph)
        trace = integer.run(graph, {"input": x}, LOIHI)
        theirs = np.load(place / f"{file}.npy").transpose()
        yield compare(
            "complex_dense", f"spikes {kind if threshold is None else 'RF_IZ'}", trace.spikes["rf0"][0], theirs
        )


CASES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "tiny": tiny,
    "pilotnet_lif": pilotnet_lif,
    "ntidigits": ntidigits,
    "dense": dense,
    "complex_dense": complex_dense,
    "pilotnet_sdnn": pilotnet_sdnn,
    "tinynet_sdnn": tinynet_sdnn,
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
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.10", "--quiet", "--dest", str(folder)]
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
    for what, own in (("recorded by lava-dl", False), (AGREE, True)):
        some = [row for row in rows if (row.what == AGREE) == own]
        cells.append(["all", what, f"{sum(r.compared for r in some):,}", f"{sum(r.different for r in some):,}"])
    print(table(["case", "what", "values compared", "mismatches"], cells, right={2, 3}))
    return 1 if any(row.different for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Our ``network.net`` on lava-dl's own reader, on real Lava: a table of case, values compared, mismatches.

    python benchmarks/netx_gate.py [--checkpoint CKPT --data D] ...

Builds lava-dl 0.6.0 by pip into a temporary folder beside the interpreter that has Lava (``SNNCOMPILE_LAVA_PYTHON``);
its netx needs two names of torch and one function of its training half, which stand-ins give: torch does not go with
that Lava. Networks: chains of convolutions and dense layers as large as those for digits, with biases, graded input and
streams of samples; a recurrent layer; and trained checkpoints, whose biases are rounded to whole weights first, since
the format has no finer ones. Potentials and spikes of every layer and step are compared with ``integer`` at level
``fixed``. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from snncompile.backends import lava, net
from snncompile.commands.opening import Trained
from snncompile.compile import encoded, shown
from snncompile.errors import ToolError
from snncompile.fixed import FixedPoint
from snncompile.frontends.net import read
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Readout
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Fixed, Signal, Spike, grid
from snncompile.passes.balance import balance
from snncompile.report.table import table
from snncompile.run import integer
from snncompile.run.steps import latency
from snncompile.run.trace import Array, Trace
from snncompile.target import Target

LOIHI = Target.load("loihi")
PACKAGES = ("lava-dl==0.6.0", "h5py==3.16.0")  # the second is what netx reads files with
STANDINS = {
    "torch.py": "def tensor(*given): raise NotImplementedError\ndef is_tensor(value): return False\n",
    "lava/lib/dl/slayer/__init__.py": "",
    "lava/lib/dl/slayer/neuron/__init__.py": "",
    "lava/lib/dl/slayer/neuron/rf.py": "def neuron_params(given): raise NotImplementedError\n",
}


def environment(folder: Path, python: Path) -> dict[str, str]:
    """Where that interpreter finds lava-dl's netx: installed by pip into ``folder``, its other half replaced."""
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--target", str(folder)]
    subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", *options, *PACKAGES], check=True)
    shutil.rmtree(folder / "lava/lib/dl/slayer")
    for name, text in STANDINS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def on_netx(graph: Graph, stimulus: Array, python: Path, variables: Mapping[str, str]) -> Trace:
    """Potentials after the reset and spikes of a timed graph on netx, phases removed."""
    samples, steps = stimulus.shape[:2]
    populations = graph.names(Neuron, Readout)
    with tempfile.TemporaryDirectory(prefix="netx-") as name:
        folder = Path(name)
        reason = net.export(graph, folder / "network.net", steps)
        if reason:
            raise SystemExit(f"no network.net: {reason}")
        _, least, most = grid(next(op for op in graph.nodes.values() if isinstance(op, Input)).signal)
        bits = 0 if (least, most) == (0, 1) else most.bit_length() + 1
        arguments = {"reset_interval": steps, "reset_offset": 1, "input_message_bits": bits}
        how = {"arguments": arguments, "latency": latency(graph), "stream": net.streams(graph)}
        (folder / "how.json").write_text(json.dumps(how), encoding="utf-8")
        np.save(folder / "stimulus.npy", stimulus)
        runner = Path(__file__).with_name("netx_runner.py")
        subprocess.run([python, runner, folder], env=variables, check=True, start_new_session=True)
        with np.load(folder / "found.npz", allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
    potentials, spikes = {}, {}
    for index, population in enumerate(populations):
        op = graph.nodes[population]
        assert isinstance(op, Neuron | Readout)
        for what, into in (("v", potentials), ("s", spikes)):
            array = arrays[f"{index}.{what}"]
            array = array[:, op.phase : op.phase + (samples * steps if how["stream"] else steps)]
            into[population] = array.reshape(samples, steps, *op.shape)
    return Trace(spikes, potentials)


def compared(graph: Graph, stimulus: Array, python: Path, variables: Mapping[str, str]) -> tuple[int, int, int]:
    """Values compared, mismatches, and spikes: a fixed graph on ``integer`` against its ``.net`` on netx."""
    name = graph.names(Input)[0]
    ours = integer.run(graph, {name: stimulus}, LOIHI)
    theirs = on_netx(balance(graph, LOIHI, stimulus.shape[1]).graph, stimulus, python, variables)
    total = different = 0
    for population, v in ours.potentials.items():
        s = ours.spikes.get(population, np.zeros(v.shape, dtype=bool))
        pairs = [(np.where(s, 0, v), theirs.potentials[population]), (s, theirs.spikes[population])]
        total += sum(one.size for one, _ in pairs)
        different += sum(int((one != other).sum()) for one, other in pairs)
    return total, different, sum(int(s.sum()) for s in ours.spikes.values())


def chain(seed: int, signal: Signal) -> tuple[Graph, Array]:
    """1x8x8 -> convolution -> convolution, stride 2 -> dense -> read-out; three samples of five steps."""
    generator = np.random.default_rng(seed)

    def even(*shape: int, most: int = 24) -> FixedPoint:
        return FixedPoint(2 * generator.integers(-most, most + 1, shape))

    def neuron(*shape: int, threshold: int) -> Neuron:
        bias = generator.integers(-20, 30, (shape[0], *(1,) * (len(shape) - 1)))
        decays = [FixedPoint.number(int(value), -12) for value in generator.integers(300, 4097, 2)]
        values = (FixedPoint.number(threshold), FixedPoint(bias))
        return Neuron(shape, *decays, *values, initial=FixedPoint.number(0))

    most = grid(signal)[2]
    nodes: dict[str, Op] = {
        "input": Input((1, 8, 8), signal),
        "conv1": Conv(even(8, 1, 3, 3), padding=(1, 1)),
        "lif1": neuron(8, 8, 8, threshold=40 * most),
        "conv2": Conv(even(6, 4, 3, 2), stride=(2, 2), padding=(1, 0), groups=2),
    }
    shape = shape_of("conv2", nodes["conv2"], (8, 8, 8))
    nodes |= {
        "lif2": neuron(*shape, threshold=120),
        "dense": Dense(even(20, int(np.prod(shape)))),
        "lif3": neuron(20, threshold=150),
        "last": Dense(even(10, 20)),
        "readout": Readout((10,), "sum", FixedPoint(generator.integers(-9, 9, 10))),
    }
    names = list(nodes)
    x = generator.integers(grid(signal)[1], most + 1, (3, 5, 1, 8, 8))
    return Graph(nodes, [Edge(a, b) for a, b in itertools.pairwise(names)]), x


def recurrent(seed: int) -> tuple[Graph, Array]:
    """9 -> 12 that hear themselves -> 4; three samples of ten steps, each from a fresh state."""
    generator = np.random.default_rng(seed)
    nodes: dict[str, Op] = {
        "input": Input((9,), Spike()),
        "dense": Dense(FixedPoint(2 * generator.integers(-20, 25, (12, 9)))),
        "again": Dense(FixedPoint(2 * generator.integers(-20, 21, (12, 12)))),
        "lif": Neuron(
            (12,),
            *(FixedPoint.number(value, -12) for value in (3000, 500)),
            *(FixedPoint.number(90), FixedPoint(generator.integers(-9, 5, 12))),
            initial=FixedPoint.number(0),
        ),
        "last": Dense(FixedPoint(2 * generator.integers(-20, 25, (4, 12)))),
        "lif2": Neuron(
            (4,), *(FixedPoint.number(v, -12) for v in (4096, 200)), FixedPoint.number(80), FixedPoint.number(0)
        ),
    }
    edges = [Edge("input", "dense"), Edge("dense", "lif"), Edge("lif", "again", 1), Edge("again", "lif")]
    return Graph(nodes, [*edges, Edge("lif", "last"), Edge("last", "lif2")]), generator.integers(0, 2, (3, 10, 9))


def trained(path: Path, data: str | None, samples: int) -> tuple[Graph, Array]:
    """The integers of a checkpoint with biases in whole weights, and samples of its data."""
    model = Trained(path)
    options = argparse.Namespace(target="loihi", calibration=None, per_channel=False, board=None, data_root=None)
    graph = model.lowered(options, lambda line: None).levels["fixed"]
    x = (model.data(data, None) if data else model.sample).x[:samples]
    whole: dict[str, Op | None] = {}
    for name in graph.names(Neuron, Readout):
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        bias = op.bias.real if isinstance(op.bias, FixedPoint) else op.bias
        whole[name] = replace(op, bias=FixedPoint(np.rint(bias).astype(np.int64)))
    (stimulus,) = encoded(graph, shown(graph, x, model.steps)).values()
    return graph.edit(whole), np.ascontiguousarray(stimulus)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Graph, Array]]:
    """Name, fixed graph and integers of every case."""
    for seed in range(options.random):
        yield f"chain, spikes, seed {seed}", *chain(seed, Spike())
        yield f"chain, 8 bits, seed {seed}", *chain(seed + 100, Fixed(8))
        yield f"recurrent, seed {seed}", *recurrent(seed)
    for path in options.checkpoint:
        yield path.name, *trained(path, options.data, options.samples)


def read_again(graph: Graph, x: Array, folder: Path) -> int:
    """Mismatches between a graph and what our own reader makes of its ``.net``."""
    timed = balance(graph, LOIHI, x.shape[1]).graph
    assert net.export(timed, folder / "again.net", x.shape[1]) is None
    one = integer.run(graph, {graph.names(Input)[0]: x}, LOIHI)
    other = integer.run(read(folder / "again.net").graph, {"input": x}, LOIHI)
    pairs = zip(one.potentials.values(), other.potentials.values(), strict=True)
    return sum(int((a.reshape(b.shape) != b).sum()) for a, b in pairs)


def main() -> int:
    """Print the table; 1 where a value differs."""
    parser = argparse.ArgumentParser(description="our network.net on lava-dl's netx and real Lava")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="a trained network, a chain")
    parser.add_argument("--data", help="data set of the checkpoints (default: the sample they carry)")
    parser.add_argument("--samples", type=int, default=2, help="of each checkpoint's data")
    parser.add_argument("--random", type=int, default=3, help="random networks of each kind")
    options = parser.parse_args()
    python = lava.find_interpreter()
    if python is None:
        raise ToolError("there is no interpreter with Lava", where="netx", remedy=lava.REMEDY)
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory(prefix="lava-dl-") as name:
        variables = environment(Path(name), python)
        for case, graph, x in cases(options):
            start = time.monotonic()
            total, different, spikes = compared(graph, x, python, variables)
            again = read_again(graph, x, Path(name))
            wrong += different + again
            rows.append([case, f"{total:,}", f"{spikes:,}", f"{different:,}", f"{again:,}"])
            print(f"{case}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    headers = ["case", "values compared", "spikes", "mismatches on netx", "mismatches of our reader"]
    print(table(headers, rows, right={1, 2, 3, 4}))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

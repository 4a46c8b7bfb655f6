"""The compiled engine against plain torch, peers and Lava, on networks that fire at a rate: who is faster, by how much.

    python benchmarks/simulation.py --peers DIR --lava      the whole table

    [--networks N,..] [--rates R,..] [--steps T,..] [--samples N,..] [--threads N,..] [--rounds N] [--memory N]

Networks: ``resnet19``, ``vggsnn``, ``vggsnn-narrow``, ``lenet``, ``recurrent`` (``simulation_networks.py``). Torch:
float32, evaluation, no batch norm left, time merged into the batch, inference mode, as many threads. Everybody takes
turns; medians of the turns, CPU seconds and wall seconds. Before it is timed, the engine is held against
``run/integer`` to the last bit on one sample, and peers must read out what torch does.

``--peers``: the folder of an environment with SpikingJelly, snnTorch and onnxruntime at the versions of
``constraints.txt``, made where it is not there; each runs in a process of its own. ``--lava``: Lava in its own
interpreter (``make lava``), at 10 %, where it ends within minutes: synapses as sparse matrices, which is the fastest
that it has, and as its own process of a convolution. ``--memory N``: instead, N samples of each network in batches in a
process of their own, and the most memory that it ever held.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import simulation_peer
import torch
from peers import environment
from simulation_lava import OnLava
from simulation_networks import NETWORKS, Drawn

from snncompile.ir.graph import Graph
from snncompile.ir.store import Program, save
from snncompile.report.table import table
from snncompile.run import compiled
from snncompile.run.cpu import Simulator
from snncompile.run.integer import run as run_integer
from snncompile.target import Target

PEERS = ("spikingjelly", "snntorch", "onnxruntime")
NEEDED = ("torch", "spikingjelly", "snntorch", "onnx", "onnxruntime")
LAVA = {"vggsnn-narrow": (0.1, 1), "lenet": (0.1, 4), "recurrent": (0.1, 4)}  # the rate, and samples of a run
LAVA_TURNS = 3  # seconds each, with a start of seconds before
Seconds = tuple[float, float]  # of CPU, of wall


def main() -> None:
    """Draw, compare bit for bit, take turns, print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--networks", default=",".join(NETWORKS))
    own.add_argument("--rates", default="0.05,0.1,0.2")
    own.add_argument("--steps", default="", help="default: the network's own")
    own.add_argument("--samples", default="", help="of a run; default: the network's own")
    own.add_argument("--threads", default="1")
    own.add_argument("--rounds", type=int, default=7)
    own.add_argument("--peers", type=Path, metavar="DIR", help="an environment with peers, made where it is not there")
    own.add_argument("--lava", action="store_true", help="Lava as well")
    own.add_argument("--memory", type=int, default=0, metavar="N")
    given = own.parse_args()
    rows: list[tuple[str, ...]] = []
    python = environment(given.peers.absolute(), NEEDED) if given.peers else None
    for name in given.networks.split(","):
        draw, usual, batch = NETWORKS[name]
        for rate in map(float, given.rates.split(",")):
            for steps in _numbers(given.steps, usual):
                drawn = draw(rate, steps, Target.load("onnx"))
                if given.memory:
                    _remember(name, drawn, given.memory, _numbers(given.threads, 1)[0])
                    continue
                _equal(name, drawn)
                for samples in _numbers(given.samples, batch):
                    for threads in _numbers(given.threads, 1):
                        what = (name, f"{rate:.1%}", str(steps), str(samples), str(threads))
                        rows += _turns(what, drawn, samples, threads, given, python)
    if rows:
        heads = ["network", "rate", "T", "N", "threads", "who", "CPU ms", "wall ms", "ratio CPU", "ratio wall", "G/s"]
        print(table(heads, rows, right=set(range(1, 11)) - {5}))
        print("\n" + _ratios(rows))


def _numbers(words: str, usual: int) -> list[int]:
    return [int(word) for word in words.split(",")] if words else [usual]


def _equal(name: str, drawn: Drawn) -> None:
    """Every spike and potential of one sample, or the exit."""
    graph, stimulus = drawn.graph(), {"input": drawn.stimulus(1)}
    populations = [layer["name"] for layer in drawn.layers]
    own = Simulator(graph, drawn.target, 1)
    fast = own.run(stimulus, keep=populations)
    slow = run_integer(graph, stimulus, drawn.target)
    if own.kernels == "numpy" or own.uncarried:
        raise SystemExit(f"{name}: the compiled engine does not run: {own.uncarried or 'not built'}")
    for layer in populations:
        if not np.array_equal(fast.potentials[layer], slow.potentials[layer]):
            raise SystemExit(f"{name}: {layer} differs from run/integer")
    print(f"{name} at {drawn.rate:.1%}: equal to run/integer on one sample, kernels {own.kernels}", file=sys.stderr)


def _turns(
    what: tuple[str, ...], drawn: Drawn, samples: int, threads: int, given: argparse.Namespace, python: Path | None
) -> list[tuple[str, ...]]:
    """Everyone's medians, of a sample; the first row is ours, the others say how many times longer they take."""
    torch.set_num_threads(threads)
    stimulus = np.array(drawn.stimulus(samples))
    shown = np.ascontiguousarray((stimulus if drawn.spikes else stimulus[:, :1]).swapaxes(0, 1), dtype=np.float32)
    own = Simulator(drawn.graph(), drawn.target, threads)
    network, x = simulation_peer.Network(drawn.layers, drawn.weights), torch.tensor(shown)
    meta = own.run({"input": stimulus}, keep=["out"]).meta
    answer = float(network(x).abs().mean())
    peers = PEERS if python else ()
    rate, few = LAVA.get(what[0], (0.0, 0)) if given.lava else (0.0, 0)
    kinds = ("sparse",) if what[0] == "recurrent" else ("sparse", "conv")
    lava = [OnLava(drawn, few, kind) for kind in kinds] if rate == drawn.rate else []
    runs: dict[str, list[Seconds]] = {"snncompile": [], "torch": []} | {who: [] for who in (*peers, *map(str, lava))}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "network.npz"
        processes = {}
        if python:
            np.savez(file, layers=np.array(json.dumps(drawn.layers)), shown=shown, **drawn.weights)  # type: ignore[arg-type]
            processes = {peer: _started(python, peer, file, threads, answer) for peer in peers}
        for turn in range(given.rounds):
            runs["snncompile"].append(timed(lambda: own.run({"input": stimulus}, keep=["out"])))
            runs["torch"].append(timed(lambda: network(x)))
            for peer, process in processes.items():
                cpu, wall = _answer(process, "again")
                runs[peer].append((cpu, wall))
            if turn < LAVA_TURNS:
                for other in lava:
                    runs[str(other)].append((float("nan"), other.run() * samples))
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    medians = {who: [statistics.median(each) for each in zip(*found, strict=True)] for who, found in runs.items()}
    # values of an image count as so many events each: no measure of speed
    operations = sum(n for name, n in meta["operations"].items() if drawn.spikes or not name.startswith("stem."))
    rows = []
    for who, (cpu, wall) in medians.items():
        mine = medians["snncompile"]
        ratios = ("", "") if who == "snncompile" else (f"{cpu / mine[0]:.2f}", f"{wall / mine[1]:.2f}")
        each = (f"{cpu / samples * 1e3:.3f}", f"{wall / samples * 1e3:.3f}")
        rows.append((*what, who, *each, *ratios, f"{operations / cpu / 1e9:.1f}" if who == "snncompile" else ""))
    _told(what, drawn, meta, samples, rows)
    return rows


def _ratios(rows: list[tuple[str, ...]]) -> str:
    """The same in short: how many times longer than the engine everyone takes (CPU time; Lava: by the clock)."""
    everyone = list(dict.fromkeys(row[5] for row in rows))
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        ratio = row[6] if row[5] == "snncompile" else row[9] if row[8] == "nan" else row[8]
        found.setdefault(row[:5], {})[row[5]] = ratio
    short = [(*what, *(ratios.get(who, "") for who in everyone)) for what, ratios in found.items()]
    heads = ["network", "rate", "T", "N", "threads", "ms a sample", *everyone[1:]]
    return table(heads, short, right=set(range(1, len(heads))))


def _told(what: tuple[str, ...], drawn: Drawn, meta: Any, samples: int, rows: list[tuple[str, ...]]) -> None:
    """What was measured, as soon as it is, with the rates that the layers really have."""
    rates = [
        meta["spikes"][layer["name"]] / (samples * drawn.steps * prod(drawn.shapes[layer["name"]]))
        for layer in drawn.layers[:-1]
    ]
    print(" ".join(what), f"rates {min(rates):.2%} to {max(rates):.2%}", file=sys.stderr)
    for row in rows:
        print("   ", " ".join(row[5:]), file=sys.stderr, flush=True)


def timed(run: Callable[[], Any]) -> Seconds:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def _started(python: Path, peer: str, file: Path, threads: int, answer: float) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    words = [str(python), simulation_peer.__file__]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    told = _answer(process, json.dumps({"file": str(file), "peer": peer, "threads": threads}))
    if abs(told["answer"] - answer) > 1e-3 * abs(answer):
        raise SystemExit(f"{peer} reads out {told['answer']}, torch {answer}: not the same network")
    return process


def engine(graph: Graph, target: Target, stimulus: Mapping[str, Any], products: float | None) -> Simulator:
    """An engine on one thread, built for such a stimulus: it chooses between events and products of all weights where
    ``products`` is None, and is held to events by 0, to products (where there are some) by infinity.
    """
    own = Simulator(graph, target, 1)
    with patch.object(compiled, "PRODUCTS", products, create=True):
        own.run(stimulus, keep=())  # what is chosen stays with what is built here
    return own


def _answer(peer: subprocess.Popen[str], line: str) -> Any:
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write(line + "\n")
    peer.stdin.flush()
    return json.loads(peer.stdout.readline())


def _remember(name: str, drawn: Drawn, samples: int, threads: int) -> None:
    """Many samples, nothing kept: memory must not grow with them."""
    if not drawn.spikes:
        raise SystemExit(f"{name} takes images: --memory draws spikes")
    print(f"{name} at {drawn.rate:.1%}:", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        save(Program(drawn.graph(), "fixed", drawn.target.name, drawn.steps), Path(scratch))
        script = Path(__file__).with_name("simulation_memory.py")
        words = [sys.executable, str(script), scratch, str(drawn.rate), str(samples), str(threads)]
        subprocess.run(words, check=True)


if __name__ == "__main__":
    main()

"""The share of this processor's accumulates that the large layers reach.

    python benchmarks/ceiling.py [--networks vggsnn,resnet19] [--rate 0.1] [--compiler g++]

The ceiling: ``ceiling.cpp``, compiled here, which walks through rows of weights in the first and second cache, adds
them to sums in registers and does nothing else. The layers: each alone, on spikes of the layer before it, one thread,
everything included: lists of events, borders, neurons, counts; the engine held to events, and as it chooses between
these and products of all weights. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from simulation import engine, timed
from simulation_networks import NETWORKS, Drawn

from snncompile.report.table import table
from snncompile.run.cpu import KERNELS
from snncompile.target import Target

SETS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512",
    "avx2": "-mavx2",
}
CACHES = {"first cache": 1 << 14, "second cache": 1 << 19}
SAMPLES, ROUNDS = 4, 9


def main() -> None:
    """Measure the ceiling, then layer after layer."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--networks", default="vggsnn,resnet19")
    own.add_argument("--rate", type=float, default=0.1)
    own.add_argument("--compiler", default="g++")
    given = own.parse_args()
    kernels = "avx512" if "avx512" in KERNELS else "avx2"
    if kernels not in KERNELS:
        raise SystemExit("the ceiling is written for AVX-512 and AVX2")
    ceilings = {cache: _ceiling(given.compiler, kernels, size) for cache, size in CACHES.items()}
    rows = [(name, *(f"{found[name]:.1f}" for found in ceilings.values())) for name in ceilings["first cache"]]
    print(table([f"{kernels}, G weights/s", *CACHES], rows, right={1, 2}) + "\n")
    first, second = (found["bytes"] for found in ceilings.values())
    for name in given.networks.split(","):
        draw, steps, _ = NETWORKS[name]
        drawn = draw(given.rate, steps, Target.load("onnx"))
        rows = [_row(drawn, layer, first, second) for layer in drawn.layers]
        heads = [
            "layer",
            "operations",
            "events, ms",
            "G/s",
            "of the first cache's",
            "of the second's",
            "chosen, ms",
            "G/s",
        ]
        print(table([f"{name} {heads[0]}", *heads[1:]], rows, right=set(range(1, 8))) + "\n", flush=True)


def _ceiling(compiler: str, kernels: str, size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "ceiling"
        source = Path(__file__).with_name("ceiling.cpp")
        words = [compiler, "-O3", "-std=c++17", "-Wno-psabi", "-Wno-ignored-attributes", *SETS[kernels].split()]
        subprocess.run([*words, str(source), "-o", str(program)], check=True)
        told = subprocess.run([program, str(size)], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in map(str.split, told.splitlines())}


def _row(drawn: Drawn, layer: dict[str, object], first: float, second: float) -> tuple[str, ...]:
    """One layer by itself: a few samples, all of the recorded one."""
    stimulus = drawn.arriving(layer)
    stimulus = {name: np.repeat(array, SAMPLES, axis=0) for name, array in stimulus.items()}
    milliseconds, rates = [], []
    for products in (0.0, None):
        own = engine(drawn.alone(layer), drawn.target, stimulus, products)
        operations = sum(own.run(stimulus, keep=()).meta["operations"].values())
        cpu = statistics.median(timed(lambda: own.run(stimulus, keep=()))[0] for _ in range(ROUNDS))  # noqa: B023
        milliseconds.append(f"{cpu / SAMPLES * 1e3:.3f}")
        rates.append(operations / cpu / 1e9)
    shares = (f"{rates[0] / first:.0%}", f"{rates[0] / second:.0%}")
    count = f"{operations // SAMPLES:,}"
    return (str(layer["name"]), count, milliseconds[0], f"{rates[0]:.1f}", *shares, milliseconds[1], f"{rates[1]:.1f}")


if __name__ == "__main__":
    main()

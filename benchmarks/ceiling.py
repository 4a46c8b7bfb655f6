"""The share of this processor's accumulates that the large layers reach.

    python benchmarks/ceiling.py [--networks vggsnn,resnet19] [--rate 0.1] [--compiler g++] [--groups]

The ceiling: ``ceiling.cpp``, compiled here, which walks through rows of weights in the first and second cache, adds
them to sums in registers and does nothing else. The layers: each alone, on spikes of the layer before it, one thread,
everything included: lists of events, borders, neurons, counts; the engine held to events, and as it chooses between
these and products of all weights. Needs a C++ compiler. ``--groups``: instead, convolutions of groups, against one
without, and against neurons that each have one synapse.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

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
SAMPLES, STEPS, ROUNDS = 4, 4, 9


def main() -> None:
    """Measure the ceiling, then layer after layer; or groups."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--networks", default="vggsnn,resnet19")
    own.add_argument("--rate", type=float, default=0.1)
    own.add_argument("--compiler", default="g++")
    own.add_argument("--groups", action="store_true")
    given = own.parse_args()
    _groups(given.rate) if given.groups else _layers(given)


def _layers(given: argparse.Namespace) -> None:
    """The ceiling, and the layers of networks below it."""
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
        each = ["ms", "G/s", "of the first cache's", "of the second's"]
        heads = [f"{name} layer", "operations", *(f"{how}, {what}" for how in ("events", "chosen") for what in each)]
        print(table(heads, rows, right=set(range(1, 10))) + "\n", flush=True)


def _groups(rate: float) -> None:
    """3 x 3 convolutions of as many channels as they read, in more and more groups."""
    for channels, size in ((128, 32), (256, 16), (512, 8)):
        random = np.random.default_rng(0)
        shown = random.random((1, STEPS, channels, size, size)) < rate
        drawn = Drawn(STEPS, rate, random, Target.load("onnx"), shown, spikes=True)
        for groups in (1, 2, 4, 8, channels):
            drawn.add(str(groups), (channels, size, size), drawn.conv("input", channels, groups=groups))
        drawn.add("one synapse a neuron", (channels, size, size), drawn.identity("input"))
        timings = [(str(layer["name"]), *_measured(drawn, layer)) for layer in drawn.layers]
        whole = [seconds for _, seconds in timings[0][1:]]
        rows = []
        for name, *measured in timings:
            shares = [f"{seconds / all_of_it:.2f}" for (_, seconds), all_of_it in zip(measured, whole, strict=True)]
            times = [f"{seconds / SAMPLES * 1e3:.3f}" for _, seconds in measured]
            rows.append((name, f"{measured[0][0] // SAMPLES:,}", times[0], shares[0], times[1], shares[1]))
        heads = [f"groups of {channels} channels, {size} x {size}", "operations"]
        heads += ["events, ms", "of one group's", "chosen, ms", "of one group's"]
        print(table(heads, rows, right=set(range(1, 6))) + "\n", flush=True)


def _ceiling(compiler: str, kernels: str, size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "ceiling"
        source = Path(__file__).with_name("ceiling.cpp")
        words = [compiler, "-O3", "-std=c++17", "-Wno-psabi", "-Wno-ignored-attributes", *SETS[kernels].split()]
        subprocess.run([*words, str(source), "-o", str(program)], check=True)
        told = subprocess.run([program, str(size)], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in map(str.split, told.splitlines())}


def _row(drawn: Drawn, layer: dict[str, Any], first: float, second: float) -> tuple[str, ...]:
    """One layer by itself, held to events and as it chooses."""
    cells: list[str] = []
    for operations, seconds in _measured(drawn, layer):
        rate = operations / seconds / 1e9
        cells += [f"{seconds / SAMPLES * 1e3:.3f}", f"{rate:.1f}", f"{rate / first:.0%}", f"{rate / second:.0%}"]
    return (str(layer["name"]), f"{operations // SAMPLES:,}", *cells)


def _measured(drawn: Drawn, layer: dict[str, Any]) -> list[tuple[int, float]]:
    """Operations and CPU seconds of a few samples, all of the recorded one: held to events, and as it chooses."""
    stimulus = {name: np.repeat(array, SAMPLES, axis=0) for name, array in drawn.arriving(layer).items()}
    engines = [engine(drawn.alone(layer), drawn.target, stimulus, products) for products in (0.0, None)]
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for own, found in zip(engines, seconds, strict=True):
            found.append(timed(lambda: own.run(stimulus, keep=()))[0])  # noqa: B023
    operations = sum(engines[0].run(stimulus, keep=()).meta["operations"].values())
    return [(operations, statistics.median(found)) for found in seconds]


if __name__ == "__main__":
    main()

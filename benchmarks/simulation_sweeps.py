"""How long the engine takes against the rate of spikes, the steps, the samples of a run and the threads.

    python benchmarks/simulation_sweeps.py [--networks N,..] [--only rate,steps,samples,threads] [--points P,..]
                                           [--rounds N] [--kept FILE.json] [-o docs/simulation-rates.svg]

Networks and torch as in ``simulation.py``, one thread unless it says otherwise; medians of runs that take turns, CPU
time, and by the clock for threads. Against the rate torch runs as well, and the engine twice more, held to events alone
and to products of all weights alone; where two curves meet is their crossover. Rates are those that the layers really
have: a layer that feeds itself does not fall below some. ``--kept``: figures are added to those of the file, point by
point, and those that it has are not measured again, so that a sweep goes on where it was left; the tables and the
picture are of everything in it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import simulation_peer
import torch
from simulation import Seconds, engine, timed
from simulation_networks import NETWORKS, Drawn

from snncompile.report.table import table
from snncompile.run.cpu import Simulator
from snncompile.target import Target

RATES = (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
LEAST = {"recurrent": 0.01}  # below it feeds on itself, or is silent
STEPS = {"resnet19": (1, 2, 4, 8, 16), "vggsnn": (1, 2, 4, 8, 16), "lenet": (1, 2, 4, 8, 16, 32)}
STEPS["recurrent"] = (10, 25, 50, 100, 200, 400)
SAMPLES = {"resnet19": (1, 4, 16), "vggsnn": (1, 4, 16), "lenet": (1, 4, 16, 64, 256)}
SAMPLES["recurrent"] = (1, 4, 16, 64, 256)
THREADS = 1, 2
SHARED = {"resnet19": 8, "vggsnn": 8, "lenet": 256, "recurrent": 256}  # samples of a run with several threads
COLOURS = {"resnet19": "#2a78c8", "vggsnn": "#d9722b", "lenet": "#3a8f4d", "recurrent": "#8a4fb0"}
Point = tuple[float, float]
Found = dict[str, dict[str, dict[str, list[float]]]]
"""Sweep -> network -> point that was asked for -> what was found there."""


def main() -> None:
    """Measure, keep, print, draw."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--networks", default=",".join(STEPS))
    own.add_argument("--only", default="rate,steps,samples,threads")
    own.add_argument("--points", default="", help="of the sweep, where not all of them")
    own.add_argument("--rounds", type=int, default=5)
    own.add_argument("--kept", type=Path, help="figures of runs before this one")
    own.add_argument("-o", "--output", type=Path, help="the picture of time against rate")
    given = own.parse_args()
    torch.set_num_threads(1)
    found: Found = json.loads(given.kept.read_text()) if given.kept and given.kept.exists() else {}
    chosen = [float(point) for point in given.points.split(",") if point]
    for name in given.networks.split(",") if given.networks else ():
        for sweep in given.only.split(","):
            kept = found.setdefault(sweep, {}).setdefault(name, {})
            wanted = [point for point in chosen or points_of(sweep, name) if f"{point:g}" not in kept]
            for point, figures in SWEEPS[sweep](name, wanted, given.rounds) if wanted else ():
                kept[f"{point:g}"] = figures
                print(sweep, name, f"{point:g}", figures, flush=True)
                if given.kept:
                    given.kept.write_text(json.dumps(found))
    print(_tables(found))
    if given.output:
        given.output.write_text(picture(_in_order(found)["rate"]) + "\n", encoding="utf-8")


def points_of(sweep: str, name: str) -> Sequence[float]:
    """The points of a sweep."""
    if sweep == "rate":
        return [rate for rate in RATES if rate >= LEAST.get(name, 0)]
    return {"steps": STEPS, "samples": SAMPLES}[sweep][name] if sweep != "threads" else THREADS


def _in_order(found: Found) -> dict[str, dict[str, list[list[float]]]]:
    """What was found, networks as they are listed and points by their size."""
    return {
        sweep: {
            name: [networks[name][point] for point in sorted(networks[name], key=float)]
            for name in STEPS
            if networks.get(name)
        }
        for sweep, networks in found.items()
    }


def _drawn(name: str, rate: float = 0.1) -> Drawn:
    draw, steps, _ = NETWORKS[name]
    return draw(rate, steps, Target.load("onnx"))


def _shown(drawn: Drawn, samples: int, steps: int) -> dict[str, Any]:
    """What a network is shown for any number of steps: its thresholds do not depend on them."""
    if not drawn.spikes:
        still = drawn.shown[np.arange(samples) % len(drawn.shown)]
        return {"input": np.broadcast_to(still, (samples, steps, *still.shape[2:]))}
    return {"input": np.random.default_rng(2).random((samples, steps, *drawn.shown.shape[2:])) < drawn.rate}


def _medians(rounds: int, *runs: Callable[[], Any]) -> list[Seconds]:
    """(CPU, wall) seconds of each, in turns; before it is timed each runs once for itself, since who comes behind torch
    finds the caches full of its numbers.
    """

    def warm(run: Callable[[], Any]) -> Seconds:
        run()
        return timed(run)

    turns = [[warm(run) for run in runs] for _ in range(rounds)]
    return [
        (statistics.median(cpu for cpu, _ in each), statistics.median(wall for _, wall in each))
        for each in zip(*turns, strict=True)
    ]


Points = Iterator[tuple[float, list[float]]]


def _rates(name: str, rates: Sequence[float], rounds: int) -> Points:
    for rate in rates:
        yield rate, _rate(name, rate, rounds)


def _rate(name: str, rate: float, rounds: int) -> list[float]:
    """The rate that there is, ms a sample of the engine and of torch, operations a sample, ms a sample of events alone
    and of products alone.
    """
    drawn, samples = _drawn(name, rate), NETWORKS[name][2]
    stimulus = np.array(drawn.stimulus(samples))
    still = stimulus if drawn.spikes else stimulus[:, :1]
    network = simulation_peer.Network(drawn.layers, drawn.weights)
    x = torch.tensor(np.ascontiguousarray(still.swapaxes(0, 1), dtype=np.float32))
    shown = {"input": stimulus}
    engines = [engine(drawn.graph(), drawn.target, shown, products) for products in (None, 0.0, math.inf)]
    found = _medians(rounds, *(lambda own=own: own.run(shown, keep=["out"]) for own in engines), lambda: network(x))
    mine, events, products, theirs = (cpu / samples * 1e3 for cpu, _ in found)
    meta = engines[0].run(shown, keep=()).meta
    neurons = sum(math.prod(drawn.shapes[layer["name"]]) for layer in drawn.layers[:-1])
    fired = sum(meta["spikes"].values()) / (neurons * samples * drawn.steps)
    operations = sum(n for key, n in meta["operations"].items() if drawn.spikes or not key.startswith("stem."))
    return [fired, mine, theirs, operations / samples, events, products]


def _steps(name: str, every: Sequence[float], rounds: int) -> Points:
    """T, ms a sample."""
    drawn = _drawn(name)
    yield from _timed(drawn, [(steps, NETWORKS[name][2], int(steps)) for steps in every], rounds)


def _samples(name: str, every: Sequence[float], rounds: int) -> Points:
    """Samples of a run, ms a sample."""
    drawn = _drawn(name)
    yield from _timed(drawn, [(samples, int(samples), drawn.steps) for samples in every], rounds)


def _timed(drawn: Drawn, every: Sequence[tuple[float, int, int]], rounds: int) -> Points:
    """Of each point, samples and steps: ms a sample."""
    own = Simulator(drawn.graph(), drawn.target, 1)
    for point, samples, steps in every:
        stimulus = _shown(drawn, samples, steps)
        ((cpu, _),) = _medians(rounds, lambda stimulus=stimulus: own.run(stimulus, keep=["out"]))
        yield point, [point, cpu / samples * 1e3]


def _threads(name: str, every: Sequence[float], rounds: int) -> Points:
    """Threads, ms a sample by the clock; they take turns."""
    drawn, samples = _drawn(name), SHARED[name]
    stimulus = _shown(drawn, samples, drawn.steps)
    engines = [Simulator(drawn.graph(), drawn.target, int(threads)) for threads in every]
    found = _medians(rounds, *(lambda own=own: own.run(stimulus, keep=["out"]) for own in engines))
    for threads, (_, wall) in zip(every, found, strict=True):
        yield threads, [threads, wall / samples * 1e3]


SWEEPS: dict[str, Callable[[str, Sequence[float], int], Points]] = {
    "rate": _rates,
    "steps": _steps,
    "samples": _samples,
    "threads": _threads,
}


def crossover(points: Sequence[Sequence[float]], one: int, other: int) -> str:
    """The rate from which on column ``other`` is faster than ``one``, between points; or that there is none."""
    for left, right in pairwise(points):
        before, after = left[one] - left[other], right[one] - right[other]
        if before < 0 <= after:
            return f"{left[0] + (right[0] - left[0]) * before / (before - after):.1%}"
    return f"none up to {points[-1][0]:.0%}" if points[-1][one] < points[-1][other] else "everywhere"


def _tables(found: Found) -> str:
    texts = []
    for sweep, networks in _in_order(found).items():
        for name, points in networks.items():
            if sweep == "rate":
                rows = [
                    ("engine, ms", *(f"{point[1]:.3g}" for point in points)),
                    ("events alone", *(f"{point[4]:.3g}" for point in points)),
                    ("products alone", *(f"{point[5]:.3g}" for point in points)),
                    ("torch, ms", *(f"{point[2]:.3g}" for point in points)),
                    ("ratio", *(f"{point[2] / point[1]:.1f}" for point in points)),
                    ("G operations/s", *(f"{point[3] / point[1] / 1e6:.1f}" for point in points)),
                ]
                heads = [name, *(f"{point[0]:.1%}" for point in points)]
                texts.append(table(heads, rows, right=set(range(1, len(heads)))))
                texts.append(f"products are faster than events: {crossover(points, 4, 5)}")
                texts.append(f"torch is faster than the engine: {crossover(points, 1, 2)}")
            else:
                heads = [f"{name}, {sweep}", *(f"{point[0]:g}" for point in points)]
                rows = [("ms a sample", *(f"{point[1]:.3g}" for point in points))]
                if sweep == "threads":
                    rows.append(("times as fast", *(f"{points[0][1] / point[1]:.2f}" for point in points)))
                texts.append(table(heads, rows, right=set(range(1, len(heads)))))
    return "\n\n".join(texts)


# The picture: both axes in powers of ten; the engine in full, events alone dotted, torch dashed

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 110, 40, 48
END = (0.001, 0.5)  # of the axis of rates, unless fewer fire


def picture(found: dict[str, list[list[float]]]) -> str:
    """Time against rate of every network, as SVG."""
    every = [point[column] for points in found.values() for point in points for column in (1, 2, 4)]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    first = math.log10(min(END[0], *(point[0] for points in found.values() for point in points)))
    last = math.log10(END[1])

    def place(rate: float, time: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(rate) - first) / (last - first)
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(time) - low) / (high - low)
        return f"{x:.1f} {y:.1f}"

    def text(at: str, words: str, anchor: str = "middle", colour: str = "#222", dx: int = 0, dy: int = 0) -> str:
        x, y = map(float, at.split())
        return f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'

    parts, labels = [], []
    for power in range(low, high + 1):
        begin, end = place(10**first, 10.0**power), place(10**last, 10.0**power)
        parts.append(f'<path d="M{begin}L{end}" stroke="#222" stroke-opacity="0.2"/>')
        parts.append(text(begin, f"{10.0**power:g}", "end", dx=-6, dy=4))
    for rate in (0.001, 0.01, 0.1, 0.5):
        parts.append(text(place(rate, 10.0**low), f"{rate:.1%}".replace(".0%", "%"), dy=18))
    for name, points in found.items():
        colour = COLOURS.get(name, "#222")
        for column, dashes in ((1, ""), (2, ' stroke-dasharray="6 4"'), (4, ' stroke-dasharray="1 4"')):
            line = "L".join(place(point[0], point[column]) for point in points)
            parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            for x, y in (place(point[0], point[1]).split() for point in points)
        ]
        labels += [
            (place(points[-1][0], points[-1][column]), words, colour) for column, words in ((1, name), (2, "torch"))
        ]
    lowest = 0.0
    for at, words, colour in sorted(labels, key=lambda label: float(label[0].split()[1])):
        y = max(float(at.split()[1]), lowest + 13)  # one below the other, where curves end at one place
        parts.append(text(f"{at.split()[0]} {y}", words, "start", colour, dx=8, dy=4))
        lowest = y
    told = "CPU ms a sample: the engine, held to events (dotted), torch (dashed)"
    parts.append(text(f"{LEFT} 16", told, "start", dx=-LEFT + 4))
    parts.append(text(f"{(LEFT + WIDTH - RIGHT) / 2} {HEIGHT - 8}", "share of neurons that fire in a step"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" width="100%" '
    head += 'style="max-width:42rem" font-family="system-ui,sans-serif" font-size="13" fill="#222">'
    title = "<title>time of a sample against the rate of spikes, the engine and torch</title>"
    return f'{head}{title}<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>'


if __name__ == "__main__":
    main()

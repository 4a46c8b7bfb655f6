"""From where on multiplying all weights is faster than adding those of the events: the constants of that choice.

    python benchmarks/crossover.py [--kernels amx,vnni] [--networks N,..] [--rates R,..] [--rounds N] [--kept FILE.json]

Every layer of the networks of ``simulation.py``, each alone on spikes of the layer before it, held to events and to
products in turns, one thread, CPU time. The engine tells what it expects of each (``Engine.cost``): products made,
weights added, visits of events to a tile. It multiplies where

    made < products (added + visit visits)

and those constants (``Kernels`` in ``run/kernels/network.hpp``) are searched that lose the least: how much longer the
layers take as they are chosen than each by its better way, as a share of the better, summed over networks and rates.
What the constants in use lose stands beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from simulation import engine, timed
from simulation_networks import NETWORKS, Drawn

from snncompile.report.table import table
from snncompile.run import _kernels, cpu
from snncompile.target import Target

SAMPLES = {"resnet19": 2, "vggsnn": 2, "lenet": 32, "recurrent": 64}
PRODUCTS = [float(one) for one in np.geomspace(1, 100, 81)]
VISITS = [0.0, *map(float, np.geomspace(50, 20000, 60))]
Point = list[float]
"""Seconds by events and by products; products made, weights added, visits."""


def main() -> None:
    """Measure, search, print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--kernels", default="amx,vnni")
    own.add_argument("--networks", default=",".join(SAMPLES))
    own.add_argument("--rates", default="0.01,0.03,0.05,0.1,0.2")
    own.add_argument("--rounds", type=int, default=7)
    own.add_argument("--kept", type=Path, help="figures of runs before this one, which are not measured again")
    given = own.parse_args()
    found: dict[str, dict[str, Point]] = (
        json.loads(given.kept.read_text()) if given.kept and given.kept.exists() else {}
    )
    for name in given.networks.split(","):
        for rate in map(float, given.rates.split(",")):
            drawn: Drawn | None = None
            for kernels in given.kernels.split(","):
                points = found.setdefault(kernels, {})
                if any(label.startswith(f"{name} {rate:g} ") for label in points):
                    continue
                draw, steps, _ = NETWORKS[name]
                drawn = drawn or draw(rate, steps, Target.load("onnx"))
                for layer in drawn.layers:
                    with patch.dict("os.environ", {cpu.KERNELS_VARIABLE: kernels}):
                        point = _measured(drawn, layer, SAMPLES[name], given.rounds)
                    points |= {f"{name} {rate:g} {layer['name']}": point} if point else {}
                if given.kept:
                    given.kept.write_text(json.dumps(found))
    for kernels, points in found.items():
        _told(kernels, points)


def _measured(drawn: Drawn, layer: dict[str, Any], samples: int, rounds: int) -> Point | None:
    """One layer alone; None where it is not multiplied."""
    stimulus = {name: np.repeat(array, samples, axis=0) for name, array in drawn.arriving(layer).items()}
    engines = [engine(drawn.alone(layer), drawn.target, stimulus, products) for products in (0.0, float("inf"))]
    ready: Any = engines[0]._compiled._ready[1]
    cost = ready.engine.cost(0, samples, 1 if ready.plan.stepwise else drawn.steps)
    if not cost[0]:
        return None
    times = drawn.steps if ready.plan.stepwise else 1
    turns = [[timed(lambda: own.run(stimulus, keep=()))[0] for own in engines] for _ in range(rounds)]  # noqa: B023
    return [*(statistics.median(each) for each in zip(*turns, strict=True)), *(times * part for part in cost)]


def lost(points: np.ndarray[Any, Any], products: float, visit: float) -> np.ndarray[Any, Any]:
    """How many seconds longer what is chosen takes than the better of both, of each point."""
    events, multiplied, made, added, visits = points.T
    chosen = np.where(made < products * (added + visit * visits), multiplied, events)
    return np.asarray(chosen - np.minimum(events, multiplied))


def _told(kernels: str, found: dict[str, Point]) -> None:
    points, labels = np.array(list(found.values())), [label.rsplit(" ", 1)[0] for label in found]
    groups = {label: [at for at, other in enumerate(labels) if other == label] for label in labels}
    in_use = (_kernels.Engine(kernels).products, _kernels.Engine(kernels).visit)

    def shares(constants: tuple[float, float]) -> list[float]:
        seconds, best = lost(points, *constants), points[:, :2].min(axis=1)
        return [float(seconds[own].sum() / best[own].sum()) for own in groups.values()]

    found_here = min(product(PRODUCTS, VISITS), key=lambda constants: sum(shares(constants)))
    rows = [
        (*label.split(), f"{one:.1%}", f"{other:.1%}")
        for label, one, other in zip(groups, shares(in_use), shares(found_here), strict=True)
    ]
    print(f"{kernels}: products {found_here[0]:.3g}, visit {found_here[1]:.3g}; in use {in_use[0]:g}, {in_use[1]:g}")
    print(table(["network", "rate", "in use: lost", "found: lost"], rows, right={1, 2, 3}) + "\n")


if __name__ == "__main__":
    main()

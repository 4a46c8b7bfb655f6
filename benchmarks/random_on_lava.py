"""Random networks on real Lava: every spike and every potential of every population, bit for bit.

    python benchmarks/random_on_lava.py [--networks N] [--seed S]

Three families, a third each (N = 330 by default): ``integers``, networks of level fixed, streamed (several inputs, some
graded, biases that fire early, sums that wrap, potentials that saturate); ``loops``, the same with logical delays and
feedback, each sample from a fresh state; ``trained``, networks of reals as a frontend reads them (norms, pools, maxima,
residuals, thresholds and decays by channel) through all passes, streamed. Each is compared with the integer interpreter
on level fixed. Lava is started once for a batch, which runs as one disjoint union. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from snncompile.compile import compile_graph
from snncompile.errors import LoweringError, NotRepresentable
from snncompile.ir.connections import connections
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Neuron, Pool
from snncompile.ir.signals import Fixed
from snncompile.passes.balance import balance
from snncompile.passes.place import place
from snncompile.run import integer
from snncompile.run.parts import after_reset
from snncompile.target import Target
from tests.graphs import fixed_case, read_case
from tests.on_lava import Device, prove

BATCH = 30
HEADER = "| family | networks | populations | connections | values compared | different | spikes | seconds |"


@dataclass(frozen=True)
class Drawn:
    """A network for the machine, and what it holds that is hard."""

    device: Device
    holds: frozenset[str]


def integers(seed: int, target: Target, *, delays: bool = False) -> Drawn | None:
    """A network of level fixed; None where its biases would disturb a delay, which is refused."""
    steps = 5 if delays else 6
    case = fixed_case(Random(seed), steps=steps, samples=3, delays=delays)
    try:
        passed = balance(case.graph, target, steps)
    except NotRepresentable:
        return None
    expected = integer.run(case.graph, case.stimulus, target)
    holds = _held(case.graph, passed.graph, passed.notes)
    if any((np.abs(v) == 2**23 - 1).any() for v in expected.potentials.values()):
        holds.add("saturation")
    placed = place(passed.graph, target).graph
    return Drawn(Device(placed, case.stimulus, after_reset(case.graph, expected), steps, not delays), frozenset(holds))


def loops(seed: int, target: Target) -> Drawn | None:
    """A network with logical delays and feedback, samples from a fresh state."""
    return integers(seed, target, delays=True)


def trained(seed: int, target: Target) -> Drawn | None:
    """A network of reals through all passes; None where a norm cannot be folded, which is refused."""
    case = read_case(Random(seed), plain=True, rich=True, steps=4, samples=3)
    try:
        done = compile_graph(case.graph, target, case.stimulus)
    except LoweringError:
        return None
    holds = _held(done.levels["fixed"], done.levels["placed"], done.notes)
    if any(isinstance(op, Pool) and op.kind == "max" for op in case.graph.nodes.values()):
        holds.add("maxima")
    if len(done.levels["folded"].names(Pool)) > ("maxima" in holds):
        holds.add("pools")
    return Drawn(Device.of(done, case.stimulus), frozenset(holds))


def _held(fixed: Graph, timed: Graph, notes: tuple[str, ...]) -> set[str]:
    neurons = [op for op in fixed.nodes.values() if isinstance(op, Neuron)]
    found = {
        "skips or several sources": any(len(fixed.into(name)) > 1 for name in fixed.names(Neuron)),
        "biases": any(op.bias.mantissa.any() for op in neurons),  # type: ignore[union-attr]
        "thresholds by channel": any(op.part is not None for op in neurons),
        "relays": any("relay" in name for name in timed.nodes),
        "matrices for delays": any("written out as a matrix" in note for note in notes),
        "programmed delays": any(edge.delay > 1 for edge in timed.edges),
        "feedback or logical delays": any(edge.delay for edge in fixed.edges),
        "graded inputs": any(isinstance(op, Input) and isinstance(op.signal, Fixed) for op in fixed.nodes.values()),
    }
    return {what for what, true in found.items() if true}


def draw(family: Callable[[int, Target], Drawn | None], seed: int, target: Target) -> Iterator[Drawn]:
    """Networks of a family, by seed."""
    for number in count(seed):
        if (found := family(number, target)) is not None:
            yield found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=330)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--target", default="loihi")
    options = parser.parse_args()
    target = Target.load(options.target)
    held: Counter[str] = Counter()
    print("\n".join([HEADER, "|" + " --- |" + " ---: |" * 7]))
    wrong = 0
    for family in (integers, loops, trained):
        start = time.monotonic()
        every = list(islice(draw(family, options.seed, target), options.networks // 3))
        proven = []
        for first in range(0, len(every), BATCH):
            proven += prove([one.device for one in every[first : first + BATCH]], target)
        held.update(what for one in every for what in one.holds)
        populations = sum(len(one.device.placed.names(Neuron)) for one in every)
        wires = sum(len(connections(one.device.placed)) for one in every)
        sums = [sum(getattr(one, what) for one in proven) for what in ("compared", "different", "spikes")]
        wrong += sums[1]
        cells = [family.__name__, len(every), populations, wires, *sums, round(time.monotonic() - start)]
        print("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |", flush=True)
    print("\n" + "\n".join(f"{number:4} with {what}" for what, number in held.most_common()))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

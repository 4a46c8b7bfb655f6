"""Random networks on real Lava: every spike and every potential of every population, bit for bit.

Sixty networks, drawn with fixed seeds, are lowered from ``fixed`` to ``placed`` and run side by side as one disjoint
union a batch, because starting Lava costs more than running it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from snncompile.backends import lava
from snncompile.errors import NotRepresentable
from snncompile.ir.check import check
from snncompile.ir.ops import Conv, Input, Neuron, Readout
from snncompile.ir.signals import Fixed
from snncompile.ir.store import Program, save
from snncompile.passes.balance import balance, streams
from snncompile.passes.place import place
from snncompile.run import integer
from snncompile.run.steps import phase_of
from snncompile.target import Target
from tests.graphs import Case, fixed_case, union

pytestmark = pytest.mark.lava
LOIHI = Target.load("loihi")

# networks, steps, samples, populations, delays between steps: what does not stream starts Lava once a sample
BATCHES = [(26, 6, 4, 4, False), (26, 3, 5, 3, False), (8, 8, 2, 3, True)]


@pytest.fixture(scope="module", autouse=True)
def python() -> Path:
    found = lava.find_interpreter()
    assert found is not None, "no interpreter with Lava: run `make lava`, or set SNNCOMPILE_NO_LAVA=1 to do without"
    return found


def drawn(count: int, steps: int, samples: int, populations: int, delays: bool) -> list[Case]:
    """The first networks, by seed, that the machine can run."""
    cases: list[Case] = []
    seed = 4100 * steps
    while len(cases) < count:
        seed += 1
        shape = {"steps": steps, "samples": samples, "populations": populations, "delays": delays}
        case = fixed_case(Random(seed), **shape, prefix=f"net{len(cases)}_")
        if delays:
            try:
                balance(case.graph, LOIHI, steps)
            except NotRepresentable:  # its biases would disturb a delay: test_balance.py
                continue
        cases.append(case)
    return cases


def test_the_networks_are_many_and_hold_what_is_hard() -> None:
    """Relays, delays, graded inputs, biases that fire early, potentials that saturate."""
    found: Counter[str] = Counter()
    for batch in BATCHES:
        for case in drawn(*batch):
            passed = balance(case.graph, LOIHI, case.steps)
            timed = passed.graph
            extra = [edge.delay for edge in timed.edges if edge.delay > 1]
            plain = {name: replace(op, phase=0) for name, op in timed.nodes.items() if isinstance(op, Neuron | Readout)}
            silent = {name: np.zeros_like(array) for name, array in case.stimulus.items()}
            early = integer.run(timed.edit(plain), silent, LOIHI)
            run = integer.run(case.graph, case.stimulus, LOIHI)
            found["networks"] += 1
            found["relays"] += any("relay" in name for name in timed.nodes)
            found["matrices"] += any("written out as a matrix" in note for note in passed.notes)
            found["delays"] += bool(extra)
            found["graded"] += any(
                isinstance(op, Input) and isinstance(op.signal, Fixed) for op in timed.nodes.values()
            )
            found["early"] += any(s[:, : phase_of(timed, name)].any() for name, s in early.spikes.items())
            kernels = [op for op in timed.nodes.values() if isinstance(op, Conv)]
            found["spread"] += any(max(op.spread, default=1) > 1 for op in kernels)
            found["forgets"] += any(isinstance(op, Readout) and op.decay < 1 for op in timed.nodes.values())
            found["saturated"] += any((abs(v) == 2**23 - 1).any() for v in run.potentials.values())
    assert found["networks"] >= 50
    assert found["saturated"] >= 1
    assert min(found[kind] for kind in ("relays", "delays", "graded", "early", "spread", "forgets")) >= 3, found
    assert found["matrices"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("count", "steps", "samples", "populations", "delays"), BATCHES)
def test_random_networks_on_lava(
    count: int, steps: int, samples: int, populations: int, delays: bool, tmp_path: Path
) -> None:
    cases = drawn(count, steps, samples, populations, delays)
    whole = union(cases)
    placed = place(balance(whole.graph, LOIHI, steps).graph, LOIHI).graph
    check(placed, "placed", LOIHI)
    stream = streams(whole.graph)
    assert stream is not delays
    save(Program(placed, "placed", "loihi", steps, stream), tmp_path)
    shown = lava.run(tmp_path, whole.stimulus, potentials=True)
    expected = integer.run(whole.graph, whole.stimulus, LOIHI)
    fired = 0
    for name, op in whole.graph.nodes.items():
        if not isinstance(op, Neuron | Readout):
            continue
        v = expected.potentials[name]
        if isinstance(op, Neuron):
            s = expected.spikes[name]
            np.testing.assert_array_equal(shown.arrays[f"{name}.s"], s, err_msg=name)
            fired += bool(s.any())
            v = np.where(s, 0, v)  # Lava shows the potential after the reset
        np.testing.assert_array_equal(shown.arrays[f"{name}.v"], v, err_msg=name)
    assert fired > count, "silent networks test nothing"

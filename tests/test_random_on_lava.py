"""Random networks on real Lava: every spike and every potential of every population, bit for bit.

Sixty networks, drawn with fixed seeds, are lowered from ``fixed`` to ``placed`` and run side by side as one disjoint
union a batch, because starting Lava costs more than running it.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from snncompile.backends import lava
from snncompile.errors import NotRepresentable
from snncompile.ir.check import check
from snncompile.ir.ops import Neuron, Readout
from snncompile.ir.store import Program, save
from snncompile.passes.balance import balance, streams
from snncompile.passes.place import place
from snncompile.run import integer
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
    seed = 1000 * steps
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


def test_there_are_fifty_networks_and_more() -> None:
    assert sum(count for count, *_ in BATCHES) >= 50


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

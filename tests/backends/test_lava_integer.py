"""The definition in integers (``run/integer.py``) is Lava: random placed networks, side by side in one run."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from snncompile.backends import lava
from snncompile.errors import NotRepresentable
from snncompile.ir.store import Program, save
from snncompile.passes.balance import balance
from snncompile.passes.place import place
from snncompile.run import integer
from snncompile.target import Target
from tests.graphs import Case, fixed_case, union

pytestmark = pytest.mark.lava
STEPS, SAMPLES = 5, 2


def placed(target: Target, count: int, *, delays: bool) -> Case:
    found: list[Case] = []
    for seed in range(10 * count):
        case = fixed_case(Random(seed), steps=STEPS, samples=SAMPLES, delays=delays, prefix=f"n{seed}.")
        try:
            graph = place(balance(case.graph, target, STEPS).graph, target).graph
        except NotRepresentable:  # biases that disturb a delay between steps
            continue
        found.append(Case(graph, case.stimulus))
        if len(found) == count:
            break
    assert len(found) == count
    return union(found)


@pytest.mark.parametrize(("delays", "count"), [(False, 12), (True, 6)], ids=["streamed", "fresh"])
def test_random_networks_are_bit_equal(tmp_path: Path, delays: bool, count: int) -> None:
    target = Target.load("loihi")
    case = placed(target, count, delays=delays)
    save(Program(case.graph, "placed", "loihi", STEPS, stream=not delays), tmp_path)
    result = lava.run(tmp_path, case.stimulus, timeout=200)
    expected = integer.run(case.graph, case.stimulus, target, stream=not delays)
    for key, values in result.arrays.items():
        name, what = key.rsplit(".", 1)
        np.testing.assert_array_equal(values, (expected.spikes if what == "s" else expected.potentials)[name], key)
    spikes = [values for key, values in result.arrays.items() if key.endswith(".s")]
    assert len(spikes) > count
    assert sum(int(values.sum()) for values in spikes) > 0
